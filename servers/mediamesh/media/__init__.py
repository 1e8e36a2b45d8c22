"""The media server."""
