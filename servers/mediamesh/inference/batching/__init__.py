"""Requests for one model: how they wait, which of them run together, and where."""
