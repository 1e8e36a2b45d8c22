from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from mediamesh.stack.log import Log
from mediamesh.stack.probes import NotReady, bucket_exists, http_status, pong
from mediamesh.stack.process import ProgramFailed, running
from mediamesh.stack.programs import Program


async def never() -> None:
    raise NotReady("not today")


async def always() -> None:
    pass


async def test_valkey_answers_and_keeps_what_it_is_given(valkey_url) -> None:
    await pong(int(valkey_url.split(":")[2].split("/")[0]))


async def test_the_store_has_its_bucket(s3) -> None:
    await bucket_exists(s3.endpoint_url, s3.bucket, access_key=s3.access_key, secret_key=s3.secret_key)


async def test_the_store_has_no_other_bucket(s3) -> None:
    with pytest.raises(NotReady, match="bucket other answers 404"):
        await bucket_exists(s3.endpoint_url, "other", access_key=s3.access_key, secret_key=s3.secret_key)


async def test_the_store_refuses_a_wrong_secret(s3) -> None:
    with pytest.raises(NotReady, match="403"):
        await bucket_exists(s3.endpoint_url, s3.bucket, access_key=s3.access_key, secret_key="wrong")


async def test_a_program_that_ends_early_is_reported_with_its_log(tmp_path) -> None:
    program = Program(name="brief", argv=[sys.executable, "-c", "print('no disk'); exit(3)"], probe=never)
    with pytest.raises(ProgramFailed, match=r"brief exited with 3 before it was ready; see .*brief\.log"):
        async with running(program, tmp_path / "brief.log"):
            pass
    assert (tmp_path / "brief.log").read_text() == "no disk\n"


async def test_a_program_that_never_answers_is_stopped(tmp_path) -> None:
    program = Program(name="mute", argv=["sleep", "60"], probe=never, ready_seconds=0.2)
    with pytest.raises(ProgramFailed, match=r"mute was not ready after 0\.2 s \(not today\)"):
        async with running(program, tmp_path / "mute.log"):
            pass


async def test_a_program_deaf_to_sigterm_is_killed_with_all_that_it_started(tmp_path) -> None:
    script = "trap '' TERM; sleep 61 & echo $!; wait; wait"
    ready = tmp_path / "deaf.log"

    async def said_something() -> None:
        if "\n" not in ready.read_text():
            raise NotReady("silent")

    program = Program(name="deaf", argv=["sh", "-c", script], probe=said_something, stop_seconds=0.2)
    async with running(program, ready) as process:
        child = int(ready.read_text())
        os.kill(child, 0)
    assert process.returncode == -signal.SIGKILL
    async with asyncio.timeout(10):  # the signal is sent; the kernel delivers it when it comes to it
        while _runs(child):  # noqa: ASYNC110 - nobody tells when a grandchild dies
            await asyncio.sleep(0.01)


def test_a_log_that_is_full_keeps_the_one_before(tmp_path) -> None:
    lines: list[str] = []
    with Log(tmp_path / "echo.log", echo=lines.append, max_bytes=10) as log:
        for part in (b"first\nsec", b"ond\n", b"third\n"):
            log.write(part)
    assert lines == ["first", "second", "third"]
    assert (tmp_path / "echo.log.1").read_bytes() == b"first\nsec"
    assert (tmp_path / "echo.log").read_bytes() == b"ond\nthird\n"


async def test_a_page_that_is_not_there_is_not_ready(s3) -> None:
    with pytest.raises(NotReady, match="answers 403"):
        await http_status(s3.endpoint_url)


def _runs(pid: int) -> bool:
    """Whether a process is there and does not only wait to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
