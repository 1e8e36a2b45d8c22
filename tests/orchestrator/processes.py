"""Orchestrators in processes of their own, which can be killed and frozen."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager

from mediamesh.orchestrator.settings import Settings

__all__ = ["orchestrator_process"]


@asynccontextmanager
async def orchestrator_process(settings: Settings):
    """Run an orchestrator, and yield its process and its address."""
    changed = {name: getattr(settings, name) for name in settings.model_fields_set}
    environment = {
        f"MEDIAMESH_ORCHESTRATOR_{name.upper()}": json.dumps(value) if isinstance(value, list) else str(value)
        for name, value in changed.items()
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mediamesh.orchestrator",
        env={**os.environ, **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        while b"orchestrator on" not in (line := await process.stderr.readline()):
            assert line
        yield process, line.split(b" on ")[1].split()[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
