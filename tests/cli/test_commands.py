from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mediamesh.api.agent.v1.manifest_pb2 import Manifest
from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamEnd
from mediamesh.cli.main import app
from mediamesh.wire.errors import Unavailable

SECTIONS = ("common", "up", "media", "inference", "agent", "agents", "orchestrator")


def invoke(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_every_command_has_a_sentence_of_help() -> None:
    text = invoke("--help").output
    for command in ("up", "run", "agents", "serve", "demo", "settings", "flow"):
        assert command in text


@pytest.mark.parametrize("section", SECTIONS)
def test_settings_lists_the_variables_of_every_part(section, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = invoke("settings", section)
    assert done.exit_code == 0, done.output
    prefix = "MEDIAMESH_" if section == "common" else f"MEDIAMESH_{section.upper()}_"
    assert prefix in done.output


def test_an_unknown_section_or_server_is_named_with_those_there_are() -> None:
    for arguments in (("settings", "nobody"), ("serve", "nobody")):
        done = invoke(*arguments)
        assert done.exit_code == 2
        assert "nobody" in done.output
        assert "media" in done.output


FOREIGN = "no file [/tmp/x] \x1b[2Jthere"
SHOWN = "no file [/tmp/x] \N{REPLACEMENT CHARACTER}[2Jthere"


def test_what_others_wrote_is_no_markup_of_a_table(monkeypatch) -> None:
    async def list_streams(*about, **options):
        return [Stream(stream_id="s1", end=StreamEnd(reason=FOREIGN))]

    async def agents(*about):
        return [Manifest(id="test.agent", description=FOREIGN)]

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("mediamesh.cli.stream_list._list", list_streams)
    monkeypatch.setattr("mediamesh.cli.flow._agents", agents)
    for arguments in (("stream", "list"), ("agents",)):
        done = invoke(*arguments)
        assert done.exit_code == 0, done.exception
        assert SHOWN in done.output


@pytest.mark.parametrize("error", [RuntimeError("not up"), OSError("no room"), Unavailable("no answer")])
def test_a_demo_that_fails_says_why(monkeypatch, error) -> None:
    def fail(*about):
        raise error

    monkeypatch.setattr("mediamesh.cli.demo._samples", lambda *about: None)
    monkeypatch.setattr("mediamesh.cli.demo.mesh_up", fail)
    done = invoke("demo")
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert str(error) in done.stderr


def test_a_demo_with_a_wrong_setting_names_it(monkeypatch) -> None:
    monkeypatch.setenv("MEDIAMESH_UP_S3_MEMORY_MIB", "many")
    done = invoke("demo")
    assert done.exit_code == 1
    assert done.stderr.startswith("MEDIAMESH_UP_S3_MEMORY_MIB: ")


@pytest.mark.parametrize("command", ["demo", "up"])
def test_a_client_alone_is_told_what_brings_the_mesh(monkeypatch, command) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = invoke(command)
    assert done.exit_code == 2
    assert "mediamesh[all]" in done.stderr


INTERRUPTED = """
import asyncio, signal, sys, threading, time
import typer
from mediamesh.cli.door import complete

def interrupt():
    time.sleep(0.2)  # by now the main thread waits for events
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

async def work():
    threading.Thread(target=interrupt).start()
    await asyncio.Event().wait()

try:
    complete(work())
except typer.Exit as ended:
    sys.exit(ended.exit_code)
"""


def test_ctrl_c_ends_a_command_that_waits_whatever_thread_it_meets() -> None:
    """Python hears of a signal when its main thread goes on: one that comes just before that waits wakes it not."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stderr) == (130, "Cancelled.\n")
