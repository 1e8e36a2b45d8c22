"""What the generation of text reaches of a bare decode loop, and how long the first token takes under load.

SmolLM2 at 1 and 8 requests: the server, a loop over the same decoder with its cache in place (``raw``), and a loop that
hands the cache in and out of every run (``copying``: the usual way) take turns in every round, with the same session
settings; the figures are medians over the rounds. Rates are those of the running batch, prompts apart. "By CPU" is the
share that the CPU time of a token allows, load generator included: far less noisy than the share seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from mediamesh.client.inference import InferenceClient
from mediamesh.inference.generation.decoder import Decoder
from mediamesh.models.settings import Settings as ModelSettings
from mediamesh.models.store import open_store
from tests.benchmarks.inference.servers import ROOT, Server, serving

MODEL = "smollm2_135m"
CONTEXT = 8192
PROMPT = [1] + [200 + number for number in range(43)]  # 44 tokens, as a short question has in the chat template
RANDOM = np.random.default_rng(1)
Rounds = dict[str, list[dict[str, float]]]


class Loops:
    """The bare loops, on one session."""

    def __init__(self, file: Path) -> None:
        self._decoder = Decoder("raw", file, rows=8, context=CONTEXT, threads=len(os.sched_getaffinity(0)))
        self._process = psutil.Process()

    def in_place(self, batch: int, tokens: int) -> dict[str, float]:
        """Decode with the cache where it is, the best token each time."""
        logits = np.stack([self._decoder.prefill(row, PROMPT, 0).copy() for row in range(batch)])

        def step(number: int, logits: Any) -> Any:
            return self._decoder.step(logits.argmax(-1), np.full(batch, len(PROMPT) + number + 1))

        return self._timed(batch, tokens, logits, step)

    def copying(self, batch: int, tokens: int) -> dict[str, float]:
        """Decode with a cache that every run takes in and gives out anew."""
        session: Any = self._decoder._session
        outputs = [output.name for output in session.get_outputs()]
        past = {
            tensor.name: np.zeros((batch, tensor.shape[1], 0, tensor.shape[3]), np.float32)
            for tensor in session.get_inputs()
            if tensor.name.startswith("past")
        }

        def run(ids: Any, length: int) -> Any:
            feeds = {"input_ids": ids.astype(np.int64), "attention_mask": np.ones((batch, length), np.int64), **past}
            given = dict(zip(outputs, session.run(outputs, feeds), strict=True))
            logits = given.pop("logits")[:, -1]
            past.update({name.replace("present", "past_key_values"): value for name, value in given.items()})
            return logits

        logits = run(np.array([PROMPT] * batch), len(PROMPT))
        return self._timed(
            batch, tokens, logits, lambda number, logits: run(logits.argmax(-1)[:, None], len(PROMPT) + number + 1)
        )

    def _timed(self, batch: int, tokens: int, logits: Any, step: Callable[[int, Any], Any]) -> dict[str, float]:
        cpu, begun = _cpu(self._process), time.perf_counter()
        for number in range(tokens):
            logits = step(number, logits)
        seconds, made = time.perf_counter() - begun, batch * tokens
        return {"per_s": made / seconds, "cpu_ms": (_cpu(self._process) - cpu) / made * 1e3}


async def served(client: InferenceClient, server: Server, batch: int, tokens: int) -> dict[str, float]:
    """Generate over the network; the rate is that of the time in which all requests generate."""
    times: list[list[float]] = [[] for _ in range(batch)]
    begun, marks = time.perf_counter(), [psutil.Process(), server.process]
    all_run = asyncio.Event()
    start: dict[str, float] = {}

    async def one(own: list[float]) -> None:
        async for answer in _stream(client, tokens):
            own += [time.perf_counter()] * len(answer["token_ids"])
            if not start and all(times):
                start.update(at=time.perf_counter(), cpu=sum(map(_cpu, marks)), made=sum(map(len, times)))
                all_run.set()

    await asyncio.gather(*(one(own) for own in times))
    cpu = (sum(map(_cpu, marks)) - start["cpu"]) / (batch * tokens - start["made"]) * 1e3
    end = min(own[-1] for own in times)
    made = sum(start["at"] < moment <= end for own in times for moment in own)
    first = statistics.median(own[0] - begun for own in times)
    return {"per_s": made / (end - start["at"]), "cpu_ms": cpu, "first_ms": first * 1e3}


async def first_token(client: InferenceClient, running: int, tries: int) -> dict[str, float]:
    """Ask while others generate: how long the first token takes, and what the others feel of it."""
    gaps: list[float] = []
    done, all_run = asyncio.Event(), asyncio.Event()

    async def other() -> None:
        while not done.is_set():
            last = 0.0
            async for _ in _stream(client, 400):
                now = time.perf_counter()
                if last:
                    gaps.append(now - last)
                last = now
                if len(gaps) > 4 * running:
                    all_run.set()
                if done.is_set():
                    break

    others = [asyncio.create_task(other()) for _ in range(running)]
    if running:
        await all_run.wait()
    firsts = []
    for _ in range(tries):
        begun = time.perf_counter()
        async for _ in _stream(client, 2):
            firsts.append(time.perf_counter() - begun)
            break
    done.set()
    await asyncio.gather(*others)
    result = {f"first_p{share}_ms": float(np.percentile(firsts, share) * 1e3) for share in (50, 90)}
    if gaps:
        result |= {f"gap_p{share}_ms": float(np.percentile(gaps, share) * 1e3) for share in (50, 99)}
    return result


def _stream(client: InferenceClient, tokens: int) -> Any:
    parameters = {"stream": True, "max_tokens": tokens, "ignore_eos": True}
    # As with conversations, the first 24 tokens are the system's and all have them; the question is each one's own.
    own = [*PROMPT[:24], *(int(token) for token in RANDOM.integers(300, 40000, len(PROMPT) - 24))]
    return client.stream(MODEL, {"input_ids": np.array(own)}, outputs=["token_ids"], parameters=parameters)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(options: argparse.Namespace, repository: Path, server: Server) -> Rounds:
    """Return what was seen in every round."""
    seen: Rounds = defaultdict(list)
    loops = Loops(repository / MODEL / "1" / "model.onnx")
    async with InferenceClient(f"127.0.0.1:{server.port}") as client:
        await served(client, server, 1, 8)
        for _ in range(options.rounds):
            for batch in (1, 8):
                raw = loops.in_place(batch, options.tokens)
                copying = loops.copying(batch, options.tokens)
                one = await served(client, server, batch, options.tokens)
                after = loops.in_place(batch, options.tokens)
                for name in ("per_s", "cpu_ms"):
                    raw[name] = (raw[name] + after[name]) / 2  # before and after: the machine has other work too
                one |= {"ratio": one["per_s"] / raw["per_s"], "cpu_ratio": raw["cpu_ms"] / one["cpu_ms"]}
                copying["ratio"] = copying["per_s"] / raw["per_s"]
                for name, row in (("raw", raw), ("copying", copying), ("server", one)):
                    seen[f"{name}, {batch}"].append(row)
            for running in (0, 7):
                seen[f"first token, {running} others"].append(await first_token(client, running, options.tries))
    return seen


def report(options: argparse.Namespace, seen: Rounds) -> None:
    """Print a table and write JSON."""
    rows = {
        name: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]} for name, rounds in seen.items()
    }
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    table = Table(title=f"{MODEL}, {len(os.sched_getaffinity(0))} cores for all, {len(PROMPT)} prompt tokens")
    for heading in ("", *columns):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[key]:.3g}" if key in row else "" for key in columns))
    Console(width=140).print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "generation.json").write_text(json.dumps({"rounds": seen, "medians": rows}, indent=1))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="generated by each request")
    parser.add_argument("--tries", type=int, default=5, help="first tokens waited for in every round")
    parser.add_argument("--out", type=Path, default=ROOT / ".mediamesh" / "benchmarks")
    options = parser.parse_args()
    with open_store(ModelSettings()) as store:
        chosen = store.manifest.choose([MODEL])
        store.pull(chosen)
        repository = store.cache.directory(chosen[0]).parent
        wanted = options.out / "generation_repository"
        wanted.mkdir(parents=True, exist_ok=True)
        if not (wanted / MODEL).exists():
            (wanted / MODEL).symlink_to(repository / MODEL)
    with serving(wanted) as server:
        seen = asyncio.run(measure(options, wanted, server))
    report(options, seen)


if __name__ == "__main__":
    main()
