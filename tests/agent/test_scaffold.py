from __future__ import annotations

import asyncio
import json
import sys

import pytest
from typer.testing import CliRunner

from mediamesh.agent import load_manifest
from mediamesh.cli.main import app


def new(*arguments):
    return CliRunner().invoke(app, ["agent", "new", *map(str, arguments)])


async def program(*command, cwd) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


@pytest.mark.stack
async def test_a_new_python_agent_passes_its_own_tests(tmp_path) -> None:
    result = new("acme.word-counter", "--directory", tmp_path)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "word-counter"
    assert "class WordCounter(Agent)" in (folder / "agent.py").read_text()
    assert load_manifest(folder / "manifest.yaml").id == "acme.word-counter"
    printed = await program(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert "2 passed" in printed
    await program(
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--line-length=120",
        "--select",
        "E,F,I,UP,B",
        ".",
        cwd=folder,
    )


def test_a_new_typescript_agent_has_all_that_it_needs(tmp_path) -> None:
    result = new("acme.word-counter", "--language", "typescript", "--directory", tmp_path)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "word-counter"
    assert "class WordCounter implements Agent" in (folder / "src/agent.ts").read_text()
    assert load_manifest(folder / "manifest.yaml").id == "acme.word-counter"
    dependencies = json.loads((folder / "package.json").read_text())["dependencies"]
    beside = [target.removeprefix("file:") for target in dependencies.values() if target.startswith("file:")]
    assert beside == ["./mediamesh/agent", "./mediamesh/contracts"]
    assert all((folder / path / "package.json").is_file() for path in beside)
    assert not [path for path in folder.rglob("*") if path.name in {"node_modules", "dist", "package-lock.json"}]
    assert not (folder / "mediamesh/agent/test").exists()
    own = [path for path in folder.rglob("*") if path.is_file() and "mediamesh" not in path.parts]
    assert not [path for path in own if "splitter" in path.read_text().lower()]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(("Word Counter",), "lower-case letters"), (("counter", "--language", "cobol"), "python, typescript")],
)
def test_what_cannot_be_begun_is_said(tmp_path, arguments, text) -> None:
    result = new(*arguments, "--directory", tmp_path)
    assert result.exit_code == 1
    assert text in result.output
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path) -> None:
    (tmp_path / "counter").mkdir()
    result = new("counter", "--directory", tmp_path)
    assert result.exit_code == 1
    assert "is there already" in result.output
