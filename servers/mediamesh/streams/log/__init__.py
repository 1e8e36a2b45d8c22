"""Where streams are kept."""
