"""What a user gets from a wheel, without the checkout around it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import CAT, CLASSIFY

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]


def sh(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    # From a copy of what is committed or will be: a wheel never sees this machine's other files.
    tree = tmp_path_factory.mktemp("tree")
    listed = sh("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    out = tmp_path_factory.mktemp("wheel")
    sh("uv", "build", "--wheel", "--out-dir", out, cwd=tree, UV_SYSTEM_CERTS="1")
    built: list[Path] = list(out.glob("*.whl"))
    return built[0]


def install(folder: Path, what: str) -> Path:
    sh("uv", "venv", "--python", sys.executable, folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    sh(
        *("uv", "pip", "install", "--python", python, "-c", ROOT / "deploy" / "constraints.txt", what),
        cwd=folder,
        UV_SYSTEM_CERTS="1",
    )
    return folder / "venv" / "bin" / "mediamesh"


def test_a_client_needs_no_extra(wheel, mesh, tmp_path) -> None:
    mediamesh = install(tmp_path, str(wheel))
    out = sh(mediamesh, "run", CLASSIFY, "--input", f"upload.file={CAT}", "--server", mesh.door, cwd=tmp_path)
    assert "execution_finished" in out
    refused = subprocess.run([mediamesh, "up"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "mediamesh[all]" in refused.stderr


def test_the_whole_mesh_runs_without_its_checkout(wheel, tmp_path, model_store) -> None:
    mediamesh = install(tmp_path, f"mediamesh[all] @ {wheel.as_uri()}")
    out = sh(mediamesh, "demo", cwd=tmp_path, MEDIAMESH_MODELS_CACHE=str(model_store.cache.root))
    assert "cat" in out
    assert "Fail better." in out
    assert "The mesh is down." in out
