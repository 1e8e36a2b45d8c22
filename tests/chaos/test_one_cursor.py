"""The example that reads one stream over every edge, through a ``kill -9``, as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]
SCRIPT = Path(__file__).resolve().parents[2] / "clients" / "examples" / "streams" / "one_cursor.py"


def test_one_cursor_goes_over_all_edges_through_a_kill() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    read = re.findall(r"^ *(grpc|sse|ndjson|websocket) +(\d+)  ", done.stdout, re.MULTILINE)
    assert [int(sequence) for _, sequence in read] == list(range(1, 63))
    assert [edge for edge, _ in read] == ["grpc"] * 12 + ["sse"] * 20 + ["ndjson"] * 14 + ["websocket"] * 16
    assert "kill -9" in done.stdout
    assert "no gap, no duplicate" in done.stdout
