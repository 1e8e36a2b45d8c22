"""The streams server: the broker of all streams."""
