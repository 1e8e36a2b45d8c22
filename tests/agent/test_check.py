from __future__ import annotations

import asyncio
import json
import sys

import pytest

from mediamesh.agent.check import Verdict, check_names, check_server
from tests.agent.broken import servers

pytestmark = pytest.mark.stack

WAITING = {"cancellation", "deadline", "recovery", "unread-outputs", "unread-answers"}
AT_ONCE = set(check_names()) - WAITING
REFUSED = {
    "unknown-agent", "open-first", "no-frames", "missing-inputs", "unknown-input", "input-types", "input-limits",
    "params", "addresses", "unwanted-media", "response-mode", "input-sequences", "chunks-in-place", "broken-off",
}  # fmt: skip

# What each breaks, and the checks that must find it: those and no others.
BROKEN = {
    servers.InvalidManifest: {"manifests"},
    servers.DescribesAnything: {"describe-unknown"},
    servers.AnotherManifestAlone: {"describe-one"},
    servers.WrongType: {"output-types"},
    servers.ValueOnStream: {"output-types"},
    servers.UndeclaredOutput: {"declared-outputs"},
    servers.OutputTwice: {"whole-outputs"},
    servers.MissingOutput: {"whole-outputs"},
    servers.NoEnd: {"whole-outputs"},
    servers.NoFinish: {"finished"},
    servers.OutputAfterFinish: {"finished", "sequences"},
    servers.Gaps: {"sequences"},
    servers.LongSource: {"frame-rules"},
    servers.NeverTheSame: {"cacheable"},
    servers.AnyAgentId: {"unknown-agent"},
    servers.AnyInput: REFUSED
    - {"unknown-agent", "open-first", "no-frames", "response-mode", "input-sequences", "chunks-in-place", "broken-off"},
    servers.AnySequence: {"input-sequences"},
    servers.EndsWhatBrokeOff: {"broken-off"},
    servers.NeverEnds: {"run"},
    servers.OneAtATime: {"side-by-side", "error-form"},
    servers.StackTraces: {"no-stack-traces"},
    servers.DebugInfos: {"no-stack-traces"},
    servers.BareErrors: {"error-form", "unwanted-media", "response-mode"},
    servers.AllInternal: REFUSED,
    servers.SaysFinishedAndFails: REFUSED,
}
# The same for what takes its time, each with the checks that are asked.
LASTING = [
    (servers.Right, set(check_names()), set()),
    (servers.NoHealth, {"health", "recovery"}, {"health", "recovery"}),
    (servers.IgnoresCancellation, {"cancellation"}, {"cancellation"}),
    (servers.IgnoresDeadline, {"cancellation", "deadline"}, {"deadline"}),
    (servers.Deaf, {"unread-answers"}, {"unread-answers"}),
    (servers.Floods, {"unread-outputs"}, {"unread-outputs"}),
    (servers.Talks, {"unread-outputs"}, set()),
]


async def findings(kind, only, seconds=30.0):
    async with servers.serving(kind) as address:
        return {finding.check: finding async for finding in check_server(address, only=only, seconds=seconds)}


def failed(found) -> dict[str, str]:
    return {check: finding.text for check, finding in found.items() if finding.verdict is Verdict.FAILED}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
async def test_what_is_broken_is_found_and_nothing_else(kind) -> None:
    found = failed(await findings(kind, AT_ONCE))
    assert found.keys() == BROKEN[kind], found


@pytest.mark.parametrize(("kind", "asked", "wrong"), LASTING, ids=[kind.__name__ for kind, *_ in LASTING])
async def test_what_shows_only_in_time_is_found(kind, asked, wrong) -> None:
    found = await findings(kind, asked)
    assert failed(found).keys() == wrong, failed(found)
    assert all(found[check].verdict is not Verdict.SKIPPED for check in wrong)


async def test_an_agent_that_waits_for_ever_after_a_half_close_is_found() -> None:
    found = failed(
        await findings(servers.WaitsAfterHalfClose, {"no-frames", "broken-off", "unknown-agent"}, seconds=3.0)
    )
    assert found.keys() == {"no-frames", "broken-off"}
    assert "did not end within" in found["no-frames"]


@pytest.mark.parametrize(
    ("kind", "check", "text"),
    [
        (servers.NoReflection, "reflection", "Reflection ended with UNIMPLEMENTED"),
        (servers.TellsNoActiveRuns, "capabilities", "active_runs"),
        (servers.TellsNoActiveRuns, "cancellation", "nobody sees whether the run ends"),
    ],
)
async def test_what_is_only_advised_is_a_warning(kind, check, text) -> None:
    found = await findings(kind, {check})
    assert found[check].verdict is Verdict.WARNED
    assert text in found[check].text


async def test_nothing_listening_is_a_failed_check() -> None:
    (finding,) = [finding async for finding in check_server("127.0.0.1:1", seconds=0.3)]
    assert finding.check == "reachable"
    assert finding.verdict is Verdict.FAILED


async def command(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mediamesh.cli.main", "agent", "check", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    printed, _ = await process.communicate()
    return process.returncode, printed.decode()


async def test_the_command_says_what_is_broken_and_fails() -> None:
    asked = ("--only", "output-types", "--only", "sequences")
    async with servers.serving(servers.WrongType) as address:
        code, printed = await command(address, *asked)
        assert code == 1, printed
        assert "count takes number, got string." in printed
        assert "2 passed, 1 failed." in printed
        code, printed = await command(address, "--json", "--only", "sequences", "--input", "name=b", "--param", "top=2")
    assert code == 0, printed
    assert [json.loads(line)["verdict"] for line in printed.splitlines()] == ["passed", "passed"]


async def test_the_command_refuses_what_it_does_not_know() -> None:
    code, printed = await command("127.0.0.1:1", "--only", "everything")
    assert code == 1
    assert "there is no check everything" in printed
