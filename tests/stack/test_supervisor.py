from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from mediamesh.stack.folder import Folder, FolderInUse
from mediamesh.stack.ports import GRPC_TWIN, free_ports
from mediamesh.stack.probes import NotReady
from mediamesh.stack.programs import Program, valkey
from mediamesh.stack.supervisor import Backoff, PortsTaken, StackFailed, Supervisor, check_ports

pytestmark = pytest.mark.stack

QUICK = Backoff(first=0.01, longest=0.05, max_failures=3)


class Console:
    """What a supervisor said; a test waits for lines of it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = asyncio.Event()

    def say(self, name: str, line: str) -> None:
        self.lines.append(f"{name}: {line}")
        self._more.set()

    async def saw(self, text: str, times: int = 1) -> None:
        while sum(text in line for line in self.lines) < times:
            self._more.clear()
            await self._more.wait()


@pytest.fixture
def console() -> Console:
    return Console()


async def always() -> None:
    pass


async def never() -> None:
    raise NotReady("not today")


def sleeping(name: str, **more) -> Program:
    return Program(name=name, argv=["sleep", "60"], probe=always, **more)


@asynccontextmanager
async def supervised(programs, folder, console, backoff=QUICK):
    supervisor = Supervisor(programs, folder, console.say, backoff)
    ready = asyncio.Event()
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        run = tasks.create_task(supervisor.run(ready.set))
        await ready.wait()
        yield supervisor
        supervisor.stop()
        await run


async def test_a_program_starts_when_what_it_needs_is_ready_and_all_stop_in_reverse(tmp_path, console) -> None:
    first, second = sleeping("first"), sleeping("second", needs=["first"])
    async with supervised([first, second], tmp_path, console):
        pass
    said = [line.split(" after")[0] for line in console.lines]
    assert said == ["up: first is ready", "up: second is ready", "up: second has stopped", "up: first has stopped"]


async def test_a_door_is_closed_softly_before_anything_stops(tmp_path, console) -> None:
    async def drain() -> None:
        console.say("door", "drained")

    async with supervised([sleeping("server"), sleeping("door", before_stop=drain)], tmp_path, console):
        pass
    assert console.lines[-3:] == ["door: drained", "up: door has stopped", "up: server has stopped"]


async def test_a_valkey_that_is_killed_comes_back_with_its_data(tmp_path, console) -> None:
    (port,) = free_ports(1)
    async with supervised([valkey(port=port, data=tmp_path)], tmp_path, console):
        assert await asked(port, b"SET word kept") == b"+OK\r\n"
        said = next(line for line in console.lines if "valkey is ready" in line)
        os.kill(int(said.split("pid ")[1]), signal.SIGKILL)
        await console.saw("valkey is ready", times=2)
        assert await asked(port, b"STRLEN word") == b":4\r\n"
    assert any("valkey ended with -9; see" in line for line in console.lines)


async def asked(port: int, command: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(command + b"\r\n")
        return await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_program_that_keeps_failing_stops_everything_and_names_its_log(tmp_path, console) -> None:
    broken = Program(name="broken", argv=["sh", "-c", "echo no disk; exit 3"], probe=never)
    supervisor = Supervisor([sleeping("other"), broken], tmp_path, console.say, QUICK)
    with pytest.raises(StackFailed, match=r"broken failed 3 times in a row.*exited with 3.*broken\.log"):
        async with asyncio.timeout(30):
            await supervisor.run(lambda: None)
    assert "up: other has stopped" in console.lines
    assert (tmp_path / "broken.log").read_text() == "no disk\n" * 3


async def test_pauses_double_up_to_the_longest() -> None:
    assert [QUICK.pause(failures) for failures in (1, 2, 3, 4, 9)] == [0.01, 0.02, 0.04, 0.05, 0.05]


async def test_a_program_that_ran_long_enough_is_forgiven(tmp_path, console) -> None:
    brief = Program(name="brief", argv=["sleep", "0.05"], probe=always)
    forgiving = Backoff(first=0.01, longest=0.01, max_failures=3, stable=0.01)
    async with supervised([brief], tmp_path, console, forgiving):
        await console.saw("brief is ready", times=6)


async def test_stopping_again_kills_what_does_not_listen(tmp_path, console) -> None:
    deaf = Program(name="deaf", argv=["sh", "-c", "trap '' TERM; sleep 60"], probe=always, stop_seconds=60)
    async with supervised([deaf], tmp_path, console) as supervisor:
        await asyncio.wait_for(console.saw("deaf is ready"), 5)
        supervisor.stop()
        asyncio.get_running_loop().call_later(0.05, supervisor.stop)


async def test_a_taken_port_is_named_with_its_holder_and_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        program = Program(name="envoy", argv=[], probe=always, ports={"MEDIAMESH_PORT": port})
        with pytest.raises(PortsTaken) as raised:
            check_ports([program])
    assert f"port {port} for envoy is in use by pid {os.getpid()} (" in str(raised.value)
    assert str(raised.value).endswith("set MEDIAMESH_PORT")


async def test_a_folder_belongs_to_one_mesh(tmp_path) -> None:
    refused = pytest.raises(FolderInUse, match=f"in use by pid {os.getpid()}; .* --data")
    with Folder(tmp_path).claimed(), refused, Folder(tmp_path).claimed():
        pass


def test_ports_stay_the_same_from_run_to_run_while_they_are_free(tmp_path) -> None:
    before = Folder(tmp_path).ports({"envoy": {"door": 4711, "admin": None}, "valkey": {"port": None}})
    assert before["envoy"]["door"] == 4711
    with socket.create_server(("127.0.0.1", before["valkey"]["port"])):
        after = Folder(tmp_path).ports({"envoy": {"door": 4712, "admin": None}, "valkey": {"port": None}})
    assert after["envoy"] == {"door": 4712, "admin": before["envoy"]["admin"]}
    assert after["valkey"] != before["valkey"]


def test_no_program_gets_the_port_of_another_s_twin(tmp_path, monkeypatch) -> None:
    (store,) = free_ports(1)
    twin = store + GRPC_TWIN
    monkeypatch.setattr("random.sample", lambda *about: range(twin, twin + 50))
    (tmp_path / "ports.json").write_text(json.dumps({"edge": {"port": twin}}))
    found = Folder(tmp_path).ports({"seaweedfs": {"s3": store}, "edge": {"port": None}, "media": {"port": None}})
    assert len({store, twin, found["edge"]["port"], found["media"]["port"]}) == 4


@pytest.mark.parametrize("torn", ["", '{"envoy": {"do', "\udcff"])
def test_ports_that_cannot_be_read_are_chosen_anew(tmp_path, torn) -> None:
    (tmp_path / "ports.json").write_text(torn, errors="surrogateescape")
    wanted = {"valkey": {"port": None}}
    found = Folder(tmp_path).ports(wanted)
    assert json.loads((tmp_path / "ports.json").read_text()) == found == Folder(tmp_path).ports(wanted)


def test_a_write_that_fails_leaves_the_ports_of_the_run_before(tmp_path, monkeypatch) -> None:
    before = Folder(tmp_path).ports({"valkey": {"port": None}})
    write = Path.write_text

    def fails(self, text, **named) -> int:
        write(self, text[:9], **named)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(OSError, match="No space left"):
        Folder(tmp_path).ports({"valkey": {"port": None}, "envoy": {"door": None}})
    assert json.loads((tmp_path / "ports.json").read_text()) == before


def test_keys_are_made_once_and_are_for_their_owner_only(tmp_path) -> None:
    keys = Folder(tmp_path).s3_keys()
    assert Folder(tmp_path).s3_keys() == keys
    assert (tmp_path / "secrets" / "s3.json").stat().st_mode & 0o777 == 0o600


SMALL_STACK = """
import asyncio, sys
from pathlib import Path
from mediamesh.stack.programs import Program, valkey
from mediamesh.stack.supervisor import Supervisor
from mediamesh.stack.up import supervise

async def always(): pass

folder, port = Path(sys.argv[1]), int(sys.argv[2])
deaf = Program(name="deaf", argv=["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], probe=always, stop_seconds=60)
programs = [valkey(port=port, data=folder), *([deaf] if "deaf" in sys.argv else [])]
say = lambda name, line: print(name, line, flush=True)
asyncio.run(supervise(Supervisor(programs, folder, say), lambda: say("up", "READY"), say))
"""


@asynccontextmanager
async def small_stack(folder, *more: str):
    """A supervisor in a process of its own, ready; yields it with the processes that it started."""
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SMALL_STACK, str(folder), str(port), *more, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(30):
            assert process.stdout
            while "READY" not in (await process.stdout.readline()).decode():
                pass
        yield process, psutil.Process(process.pid).children(recursive=True)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def gone(processes) -> bool:
    """Wait until processes have ended, be it that nobody has reaped them."""
    _, alive = psutil.wait_procs(processes, timeout=5)
    return not any(map(runs, alive))


def runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_nothing_survives_when_the_supervisor_is_killed(tmp_path) -> None:
    async with small_stack(tmp_path) as (process, children):
        assert [child.name() for child in children] == ["valkey-server"]
        process.kill()
        await process.wait()
        assert gone(children)


async def test_nothing_survives_without_setpriv_either(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    async with small_stack(tmp_path) as (process, children):
        process.kill()
        await process.wait()
        assert gone(children)


async def test_a_signal_stops_all_and_the_supervisor_exits_with_0(tmp_path) -> None:
    async with small_stack(tmp_path) as (process, children):
        process.send_signal(signal.SIGINT)
        output, _ = await process.communicate()
        assert process.returncode == 0
        said = [line for line in output.decode().splitlines() if line.startswith("up ")]
        assert said == ["up stopping; once more kills", "up valkey has stopped"]
        assert gone(children)


async def test_a_second_signal_kills(tmp_path) -> None:
    async with small_stack(tmp_path, "deaf") as (process, children):
        process.send_signal(signal.SIGINT)
        assert process.stdout
        assert b"stopping" in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            await process.communicate()
        assert gone(children)
