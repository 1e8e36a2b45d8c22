"""Fixtures that every test may use: real servers on free ports, real parts, spoken to through the real client."""

from __future__ import annotations
