"""``mediamesh bench``: load on a server, and what came of it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from mediamesh.cli.door import errors_as_sentences
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from mediamesh.bench.inference import Plan, Subject
    from mediamesh.bench.load import Level, Seen

__all__ = ["inference"]

_MOST = 1_000_000


def inference(
    target: Annotated[str, typer.Argument(help="host:port of any server that speaks the protocol of Triton.")],
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    version: Annotated[str, typer.Option(help="Version of the model; the server chooses when empty.")] = "",
    concurrency: Annotated[
        str, typer.Option(help="Requests in flight, level by level; 1,8,32 unless --rate is given.")
    ] = "",
    rate: Annotated[
        str, typer.Option(help="Requests a second, at the times of a Poisson process, level by level.")
    ] = "",
    stream: Annotated[bool, typer.Option("--stream", help="All over one ModelStreamInfer.")] = False,
    shape: Annotated[
        list[str] | None, typer.Option(help="Shape of an input, NAME:1,3,224,224; may be given again.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Size of the batch dimension.")] = 1,
    zero: Annotated[bool, typer.Option("--zero", help="Send zeros and not random numbers.")] = False,
    seed: Annotated[int, typer.Option(help="Of the random numbers.")] = 0,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds of load before each level is measured.")] = 1.0,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds for which each level is measured.")] = 5.0,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds after which a request is given up.")] = 30.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for all figures.")] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", help="PNG file for latency over throughput; needs mediamesh[bench].")
    ] = None,
) -> None:
    """Measure a model on an inference server: throughput and latency by load.

    With --concurrency each of so many callers sends its next request when it has its answer. With --rate requests are
    due whatever the server does, and their latency counts from then.
    """
    with errors_as_sentences():
        if importlib.util.find_spec("numpy") is None:
            raise InvalidRequest("Measuring needs numpy; pip install 'mediamesh[bench]' brings it.")
        from mediamesh.bench.inference import Plan  # noqa: PLC0415 - brought by an extra
        from mediamesh.bench.inputs import parse_shapes  # noqa: PLC0415

        plan = Plan(
            target=target.removeprefix("http://").rstrip("/"),
            model=model,
            version=version,
            is_stream=stream,
            levels=_levels(concurrency or ("" if rate else "1,8,32"), rate),
            shapes=parse_shapes(shape or ()),
            batch=batch,
            zero=zero,
            seed=seed,
            warm_up=warm_up,
            seconds=duration,
            timeout=timeout,
        )
        if plot_file is not None:
            from mediamesh.bench.report import require_plot  # noqa: PLC0415

            require_plot()
        _require_folder("--json", json_file)
        _require_folder("--plot", plot_file)
        _report(plan, *asyncio.run(_run(plan)), json_file=json_file, plot_file=plot_file)


def _require_folder(option: str, file: Path | None) -> None:
    """See that a file can be written where it is wanted, before anything is measured.

    Raises:
        InvalidRequest: there is no such folder.
    """
    if file is not None and not file.parent.is_dir():
        raise InvalidRequest.of_field(option, f"there is no folder {file.parent}")


def _levels(concurrency: str, rate: str) -> list[Level]:
    """Return the levels of both options, each a list of numbers.

    Raises:
        InvalidRequest: one is no such list.
    """
    from mediamesh.bench.load import Level  # noqa: PLC0415 - with numpy, see above

    levels = []
    try:
        levels += [Level("concurrency", int(number)) for number in concurrency.split(",") if number]
    except ValueError:
        raise InvalidRequest.of_field("--concurrency", f"{concurrency!r} is no list such as 1,8,32") from None
    try:
        levels += [Level("rate", float(number)) for number in rate.split(",") if number]
    except ValueError:
        raise InvalidRequest.of_field("--rate", f"{rate!r} is no list such as 100,200.5") from None
    for level in levels:
        if not 0 < level.value < _MOST:
            raise InvalidRequest.of_field(f"--{level.kind}", f"{level.value:g} lies outside of 1 to {_MOST - 1}")
    return levels


async def _run(plan: Plan) -> tuple[Subject, list[Seen]]:
    from mediamesh.bench.inference import examine, measure  # noqa: PLC0415 - with numpy, see above

    subject = await examine(plan)
    results: list[Seen] = []
    with _Live(plan) as live:
        async for seen in measure(plan, subject, live.tell):
            results.append(seen)
            live.next()
    return subject, results


def _report(
    plan: Plan, subject: Subject, results: list[Seen], *, json_file: Path | None, plot_file: Path | None
) -> None:
    """Print and write what was seen.

    Raises:
        FailedPrecondition: a level had no answer at all.
    """
    from mediamesh.bench.inference import failure_of  # noqa: PLC0415 - with numpy, see above
    from mediamesh.bench.report import notes, plot, table  # noqa: PLC0415

    way = "ModelStreamInfer" if plan.is_stream else "ModelInfer"
    title = f"{plan.model} on {subject.server} at {plan.target}\n{way}, {len(subject.body):,} bytes a request"
    console = Console()
    console.print(table(title, results))
    for note in notes(results):
        console.print(note, soft_wrap=True, highlight=False, markup=False)
    if json_file is not None:
        json_file.write_text(json.dumps(_figures(plan, subject, results), indent=1) + "\n")
        console.print(f"written: {json_file}", soft_wrap=True, markup=False)
    if plot_file is not None:
        plot(plot_file, title, results)
        console.print(f"written: {plot_file}", soft_wrap=True, markup=False)
    for seen in results:
        if (failure := failure_of(seen)) is not None:
            raise failure


def _figures(plan: Plan, subject: Subject, results: list[Seen]) -> dict[str, Any]:
    from mediamesh.bench.report import as_json  # noqa: PLC0415 - with numpy, see above

    settings = {
        "target": plan.target,
        "model": plan.model,
        "version": plan.version,
        "method": "stream" if plan.is_stream else "unary",
        "seed": plan.seed,
        "data": "zeros" if plan.zero else "random",
        "warm_up_s": plan.warm_up,
        "duration_s": plan.seconds,
    }
    return as_json({**settings, **subject.about()}, results)


class _Live:
    """Shows how far it is, and what is seen, while it runs; nothing where there is no terminal."""

    def __init__(self, plan: Plan) -> None:
        self._levels = iter(plan.levels)
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[seen]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._total = plan.seconds
        self._task = self._progress.add_task("", total=self._total, seen="")

    def __enter__(self) -> Self:
        self._progress.start()
        self.next()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._progress.stop()

    def next(self) -> None:
        """Go to the next level."""
        if (level := next(self._levels, None)) is not None:
            self._progress.reset(self._task, total=self._total, description=str(level), seen="warming up")

    def tell(self, seen: Seen) -> None:
        """Show what was seen of a level so far."""
        done = time.perf_counter() - seen.begin
        failed = f", {seen.errors.total()} failed" if seen.errors else ""
        self._progress.update(self._task, completed=done, seen=f"{seen.done / max(done, 0.01):,.0f}/s{failed}")
