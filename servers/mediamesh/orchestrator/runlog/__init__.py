"""The log of a run: kept where every replica can read it, delivered live, resumable from any event."""

from __future__ import annotations

from mediamesh.orchestrator.runlog.ports import EventLog, Fenced, RunRegistry, Store, Stored
from mediamesh.orchestrator.runlog.reader import RunLog

__all__ = ["EventLog", "Fenced", "RunLog", "RunRegistry", "Store", "Stored"]
