"""``mediamesh bench inference``: what it sends, what it counts, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.bench.inference import Plan, examine, failure_of, measure
from mediamesh.bench.inputs import inputs_of, parse_shapes
from mediamesh.bench.load import Level, Seen, closed_loop, open_loop
from mediamesh.bench.report import as_json, notes, plot, require_plot, summary, table
from mediamesh.cli.main import app
from mediamesh.wire.errors import FailedPrecondition, InvalidRequest, MeshError, NotFound
from tests.client.fake_inference import Break, answer, fake_server, refusal

pytestmark = pytest.mark.slow


def metadata(**inputs: tuple[str, list[int]]) -> pb.ModelMetadataResponse:
    made = pb.ModelMetadataResponse(name="m")
    for name, (datatype, shape) in inputs.items():
        made.inputs.add(name=name, datatype=datatype, shape=shape)
    return made


def ignore(seen: Seen) -> None:
    pass


@pytest.fixture
def _time_of_looks(monkeypatch) -> None:
    """Let the time of a load go on with each look at the clock alone: however slow the machine, enough is sent."""
    looks = itertools.count()
    clock = SimpleNamespace(
        perf_counter=lambda: next(looks) / 512, process_time=time.process_time, sleep=lambda seconds: None
    )
    monkeypatch.setattr("mediamesh.bench.load.time", clock)


def test_tensors_have_the_shapes_of_the_model_or_those_given() -> None:
    model = metadata(a=("FP32", [-1, 3, 4]), b=("INT64", [-1, -1]), c=("BYTES", [-1, 1]))
    made = inputs_of(model, batches=True, batch=2, shapes={"b": (5, 6)}, seed=1)
    assert {name: (array.dtype, array.shape) for name, array in made.items()} == {
        "a": (np.float32, (2, 3, 4)),
        "b": (np.int64, (5, 6)),
        "c": (np.object_, (2, 1)),
    }
    again = inputs_of(model, batches=True, batch=2, shapes={"b": (5, 6)}, seed=1)
    assert all((made[name] == again[name]).all() for name in made)
    zeros = inputs_of(model, batches=True, shapes={"b": (1,)}, zero=True)
    assert not zeros["a"].any()
    assert zeros["c"].tolist() == [[b""]]


@pytest.mark.parametrize("datatype", ["BOOL", "UINT8", "INT8", "FP16", "BF16", "FP64", "UINT64"])
def test_random_tensors_have_the_type_of_the_input(datatype) -> None:
    made = inputs_of(metadata(a=(datatype, [300])), batches=False, shapes={}, seed=0)["a"]
    assert made.shape == (300,)
    assert len(set(made.tolist())) > 1


def test_a_dimension_that_nobody_gave_is_named() -> None:
    with pytest.raises(InvalidRequest, match="--shape a:8,3"):
        inputs_of(metadata(a=("FP32", [-1, 3])), batches=False, shapes={})
    with pytest.raises(InvalidRequest, match="no input 'b'"):
        inputs_of(metadata(a=("FP32", [1])), batches=False, shapes={"b": (1,)})
    with pytest.raises(InvalidRequest, match="'FP8'"):
        inputs_of(metadata(a=("FP8", [1])), batches=False, shapes={})


def test_shapes_are_read() -> None:
    assert parse_shapes(["a:1,2", "b:c:", "d:7"]) == {"a": (1, 2), "b:c": (), "d": (7,)}
    for wrong in ("a", "a:x", "a:1,-2", ":1"):
        with pytest.raises(InvalidRequest, match="is no shape"):
            parse_shapes([wrong])


@pytest.mark.usefixtures("_time_of_looks")
async def test_a_closed_loop_keeps_so_many_in_flight() -> None:
    running = most = 0

    async def send() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return "OK"

    seen = await closed_loop(send, 4, warm_up=0.02, seconds=0.1, tell=ignore)
    assert most == 4
    assert seen.done > 0
    assert min(seen.latencies) >= 0.001


def due_times(rate: float, *, seed: int, seconds: float) -> list[float]:
    """Return when requests of an open loop are due, in seconds from its start."""
    times = random.Random(seed)
    whens = itertools.accumulate(iter(lambda: times.expovariate(rate), None))
    return list(itertools.takewhile(lambda when: when < seconds, whens))


async def test_an_open_loop_counts_the_wait_of_requests_that_a_stalled_server_kept_waiting() -> None:
    begin, answered = asyncio.get_running_loop().time(), []

    async def stalls() -> str:
        await asyncio.sleep(max(0.0, begin + 0.3 - asyncio.get_running_loop().time()))
        answered.append(time.perf_counter())
        return "OK"

    seen = await open_loop(stalls, 200, seed=1, warm_up=0.0, seconds=0.3, tell=ignore)
    # All that were due in the stall waited for its end, each from when it was due.
    waited_from = sorted(at - latency - seen.begin for at, latency in zip(answered, seen.latencies, strict=True))
    assert waited_from == pytest.approx(due_times(200, seed=1, seconds=0.3), abs=0.02)
    assert max(seen.latencies) >= 0.25
    assert min(seen.late) >= 0
    assert as_json({"target": "t"}, [seen])["levels"][0]["sent_late_p99_ms"] >= 0


async def test_an_open_loop_sends_whatever_the_server_does() -> None:
    sent = 0

    async def never() -> str:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.25)
        return "UNAVAILABLE" if sent % 2 else "OK"

    seen = await open_loop(never, 300, seed=3, warm_up=0.0, seconds=0.2, tell=ignore)
    assert sent == len(due_times(300, seed=3, seconds=0.2)) > 20
    assert sum(seen.errors.values()) + len(seen.latencies) == sent


@pytest.mark.usefixtures("_time_of_looks")
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_server_is_measured(is_stream) -> None:
    async with fake_server() as server:
        levels = [Level("concurrency", 2), Level("rate", 100)]
        plan = Plan(
            target=server.address,
            model="m",
            is_stream=is_stream,
            levels=levels,
            shapes={"x": (1, 2)},
            warm_up=0.02,
            seconds=0.1,
        )
        subject = await examine(plan)
        assert subject.server == "fake 1"
        results = [seen async for seen in measure(plan, subject, ignore)]
    assert [seen.level for seen in results] == levels
    assert all(seen.done and not seen.errors and failure_of(seen) is None for seen in results)
    assert "sent_late_p99_ms" in as_json({"target": "t"}, results)["levels"][1]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_what_a_server_refuses_is_told_before_any_load(is_stream) -> None:
    async def refuses(request):
        yield refusal(request, "x: expected [3]")

    async with fake_server(refuses) as server:
        plan = Plan(target=server.address, model="m", is_stream=is_stream, shapes={})
        with pytest.raises(MeshError, match="expected \\[3\\]"):
            await examine(plan)
        assert len(server.asked) == 1


@pytest.mark.usefixtures("_time_of_looks")
@pytest.mark.parametrize("is_stream", [False, True])
async def test_errors_are_counted_by_status(is_stream) -> None:
    async with fake_server() as server:
        plan = Plan(target=server.address, model="m", is_stream=is_stream, shapes={}, warm_up=0, seconds=0.1)
        subject = await examine(plan)

        async def refuses(request):
            yield refusal(request, "no")

        server.behave = refuses
        (seen,) = [seen async for seen in measure(plan, subject, ignore)]
    status = "UNKNOWN" if is_stream else "INVALID_ARGUMENT"
    assert set(seen.errors) == {status}
    with pytest.raises(FailedPrecondition, match=f"1 in flight no request was answered; .* ended as {status}"):
        raise failure_of(seen) or AssertionError


@pytest.mark.usefixtures("_time_of_looks")
async def test_a_stream_that_breaks_is_counted_and_opened_again() -> None:
    async with fake_server() as server:
        plan = Plan(target=server.address, model="m", is_stream=True, shapes={}, warm_up=0, seconds=0.3)
        subject = await examine(plan)
        before = server.streams

        async def breaks_once(request):
            if server.streams == before + 1:
                raise Break
            yield answer(request, 1)

        server.behave = breaks_once
        (seen,) = [seen async for seen in measure(plan, subject, ignore)]
    assert seen.errors == {"UNAVAILABLE": 1}
    assert seen.done > 0


@pytest.mark.usefixtures("_time_of_looks")
async def test_a_decoupled_model_is_done_with_its_last_answer() -> None:
    async def many(request):
        for number in range(3):
            yield answer(request, number, final=False)
        yield answer(request, final=True)

    async with fake_server(many) as server:
        plan = Plan(target=server.address, model="m", is_stream=True, shapes={}, warm_up=0, seconds=0.1)
        (seen,) = [seen async for seen in measure(plan, await examine(plan), ignore)]
        assert abs(seen.done - len(server.asked)) <= 2


def _seen(kind, value: float, latencies: list[float]) -> Seen:
    made = Seen(Level(kind, value), 0.0, 2.0, latencies=latencies, done=len(latencies), client_cores=0.95)
    made.errors["UNAVAILABLE"] = 3
    return made


def test_figures_are_percentiles_in_milliseconds() -> None:
    seen = _seen("concurrency", 8, [number / 1000 for number in range(1, 101)])
    row = summary(seen)
    assert row["throughput"] == 50
    assert row["p50_ms"] == pytest.approx(50.5)
    assert row["p99_ms"] == pytest.approx(99.01)
    assert row["max_ms"] == pytest.approx(100)
    assert row["client_is_the_limit"]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table("t", [seen, _seen("rate", 9, [])]))
    assert "…" not in console.export_text()
    failed, busy, *_ = notes([seen])
    assert failed == "8 in flight: failed were 3 UNAVAILABLE."
    assert "load generator was busy" in busy


@pytest.mark.stack  # matplotlib takes seconds to be imported
def test_a_plot_is_drawn(tmp_path) -> None:
    require_plot()
    path = tmp_path / "p.png"
    plot(path, "t", [_seen("concurrency", 1, [0.001]), _seen("rate", 9, [0.1]), _seen("rate", 99, [])])
    assert path.read_bytes().startswith(b"\x89PNG")


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["bench", "inference", "127.0.0.1:1", "m", *arguments])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--concurrency", "a"], "--concurrency"),
        (["--rate", "1,x"], "--rate"),
        (["--concurrency", "0"], "outside of 1"),
        (["--shape", "x"], "is no shape"),
        (["--json", "/nowhere/b.json"], "--json: there is no folder /nowhere"),
        (["--plot", "/nowhere/b.png"], "--plot: there is no folder /nowhere"),
    ],
)
def test_what_is_wrong_with_the_command_is_said(arguments, says) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 1
    assert says in done.stderr


def test_a_plot_without_matplotlib_says_what_brings_it(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = invoke("--plot", str(tmp_path / "p.png"))
    assert done.exit_code == 1
    assert "mediamesh[bench]" in done.stderr


async def test_a_server_that_is_not_there_and_a_model_that_it_lacks_are_named() -> None:
    with pytest.raises(FailedPrecondition, match=r"No inference server answers at 127\.0\.0\.1:1"):
        await examine(Plan(target="127.0.0.1:1", model="m", shapes={}))
    async with fake_server() as server:
        server.has_models = False
        with pytest.raises(NotFound, match="unknown model"):
            await examine(Plan(target=server.address, model="m", shapes={}))


@pytest.mark.stack
async def test_the_command_measures_and_writes(tmp_path) -> None:
    async with fake_server() as server:
        command = [
            str(Path(sys.executable).with_name("mediamesh")), "bench", "inference", server.address, "m",
            "--duration", "0.3", "--warm-up", "0.1", "--concurrency", "1,4", "--rate", "50",
            "--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "b.png"),
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert "4 in flight" in out.decode()
    written = json.loads((tmp_path / "b.json").read_text())
    assert [level.get("concurrency", level.get("rate")) for level in written["levels"]] == [1, 4, 50]
    assert (tmp_path / "b.png").stat().st_size > 10_000
