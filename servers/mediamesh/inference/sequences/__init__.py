"""Models with state: the requests of a sequence one after the other, many sequences side by side."""
