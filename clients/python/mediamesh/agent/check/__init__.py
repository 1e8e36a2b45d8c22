"""The contract's conformance suite: finds out over the wire whether a server's agents, in any language, behave."""

from __future__ import annotations

from mediamesh.agent.check.findings import Finding, Verdict
from mediamesh.agent.check.suite import check_names, check_server

__all__ = ["Finding", "Verdict", "check_names", "check_server"]
