"""The orchestrator server."""
