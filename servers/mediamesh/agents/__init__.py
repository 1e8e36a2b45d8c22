"""The agents server."""
