"""Compares this inference server with others: ``python -m tests.benchmarks.peers [--servers mediamesh,triton]``.

Same model, same request, same load generator, on the same cores; servers take turns in every round, in an order drawn
anew, and raw onnxruntime takes its turn among them. A peer's environment is made when it is first wanted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import psutil
from rich.console import Console

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.stack.ports import free_ports
from tests.benchmarks.peers.load import METHOD
from tests.benchmarks.peers.meter import Noise, cpu_seconds, processes, resident_bytes
from tests.benchmarks.peers.peers import PEERS, Peer
from tests.benchmarks.peers.report import RAW, medians, plot, show
from tests.benchmarks.peers.subjects import Subject, subjects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[3]
_READY_SECONDS = 60
_BOUNDARY = b"peer-boundary"
_UPLOAD = f"multipart/form-data; boundary={_BOUNDARY.decode()}"


def http_body(peer: Peer, subject: Subject) -> tuple[str, bytes]:
    """Return media type and content of a request over HTTP."""
    raw = subject.item.tobytes()
    if peer.wire == "raw":
        return "application/octet-stream", raw
    head = b'--%b\r\nContent-Disposition: form-data; name="x"; filename="x"\r\n\r\n' % _BOUNDARY
    return _UPLOAD, head + raw + b"\r\n--%b--\r\n" % _BOUNDARY


def answer(peer: Peer, subject: Subject, port: int) -> np.ndarray[Any, Any]:
    """Ask once."""
    if peer.wire != "grpc":
        media_type, body = http_body(peer, subject)
        headers = {"Content-Type": media_type}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{peer.path}", body, headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            return np.frombuffer(response.read(), np.float32)
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call: Any = channel.unary_unary(METHOD, response_deserializer=pb.ModelInferResponse.FromString)
        response = call(subject.grpc_body, timeout=10)
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], np.float32)
    return np.array(response.outputs[0].contents.fp32_contents, np.float32)


@contextmanager
def running(name: str, peer: Peer, subject: Subject, folder: Path) -> Iterator[tuple[int, psutil.Process, float]]:
    """Run a server; yield its port, it, and the seconds until it first answered.

    Raises:
        RuntimeError: it does not answer, or not as the model does.
    """
    (port,) = free_ports(1)
    command = peer.command(subject, port, folder)
    log = folder / f"{name}.log"
    begin = time.perf_counter()
    with log.open("wb") as out:
        started = subprocess.Popen(
            [str(word) for word in command.argv],
            env={**os.environ, **command.env},
            cwd=command.folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = psutil.Process(started.pid)
    try:
        while True:
            try:
                given = answer(peer, subject, port)
                break
            except Exception as error:  # whatever it meets means: not yet
                if started.poll() is not None or time.perf_counter() > begin + _READY_SECONDS:
                    tail = log.read_text(errors="replace")[-600:]
                    raise RuntimeError(f"{name} does not answer ({error}): {tail}") from error
                time.sleep(0.02)
        ready = time.perf_counter() - begin
        if not subject.is_right(given):
            raise RuntimeError(f"{name} answers something else than the model")
        yield port, process, ready
    finally:
        own = processes(process)
        started.send_signal(signal.SIGINT if peer.interrupt else signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            started.wait(8)
        for one in own:
            with suppress(psutil.Error):
                one.kill()
        started.wait(10)


def generated(*arguments: str | Path) -> dict[str, Any]:
    """Run a load generator in a process of its own and return what it saw."""
    words = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, cwd=ROOT, timeout=120)
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def figures(seen: dict[str, Any], own_seconds: float, noise: Noise) -> dict[str, Any]:
    """Return what one run gave; the generator's own CPU time is no noise."""
    latencies = np.array(seen["latencies"]) * 1e3
    return {
        "per_s": seen["per_s"],
        "p50_ms": float(np.percentile(latencies, 50)) if len(latencies) else 0.0,
        "p99_ms": float(np.percentile(latencies, 99)) if len(latencies) else 0.0,
        "failed": sum(seen["failed"].values()),
        "cpu_ms": own_seconds / max(1, len(latencies)) * 1e3,
        "client_cores": seen.get("client_cores", 0.0),
        "foreign": noise.foreign,
        "stolen": noise.stolen,
    }


def measure_raw(subject: Subject, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure onnxruntime alone."""
    item = folder / "item.npy"
    np.save(item, subject.item)
    for in_flight in options.in_flight:
        with Noise() as noise:
            seen = generated(
                "tests.benchmarks.peers.raw",
                *("--file", subject.file, "--item", item),
                *("--in-flight", str(in_flight), "--seconds", str(options.seconds)),
            )
        own = seen["cores"] * options.seconds
        yield {"in_flight": in_flight, **figures(seen, own, noise.without(own))}


def measure(name: str, subject: Subject, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure a server at every number of requests in flight."""
    peer = PEERS[name]
    media_type, body = ("", subject.grpc_body) if peer.wire == "grpc" else http_body(peer, subject)
    file = folder / "body"
    file.write_bytes(body)
    how = ["--wire", "grpc"] if peer.wire == "grpc" else ["--wire", "http", "--path", peer.path]
    with running(name, peer, subject, folder) as (port, process, ready):
        time.sleep(1)
        idle = resident_bytes(process)
        generator = ["tests.benchmarks.peers.load", *how, "--target", f"127.0.0.1:{port}", "--body", str(file)]
        generator += ["--media-type", media_type or "application/grpc"]
        generated(*generator, "--in-flight", "8", "--seconds", "1")
        for in_flight in options.in_flight:
            before = cpu_seconds(process)
            with Noise() as noise:
                seen = generated(
                    *generator, "--in-flight", str(in_flight), "--seconds", str(options.seconds), "--warm-up", "0"
                )
            own = cpu_seconds(process) - before
            row = figures(seen, own, noise.without(own + seen["client_cores"] * options.seconds))
            memory = {"idle_mb": idle / 1e6, "loaded_mb": resident_bytes(process) / 1e6, "ready_s": ready}
            yield {"in_flight": in_flight, **row, **memory}


def rounds(options: argparse.Namespace, chosen: Sequence[Subject]) -> Iterator[dict[str, Any]]:
    """Let raw onnxruntime and the servers take turns; one that fails is told of and left out of its turn."""
    order = [RAW, *options.servers]
    for number in range(options.rounds):
        for subject in chosen:
            random.shuffle(order)
            for name in order:
                sys.stderr.write(f"round {number + 1}, {subject.name}, {name}\n")
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        run = (
                            measure_raw(subject, Path(folder), options)
                            if name == RAW
                            else measure(name, subject, Path(folder), options)
                        )
                        for row in run:
                            yield {"model": subject.name, "server": name, "round": number, **row}
                    except (RuntimeError, subprocess.SubprocessError, psutil.Error) as error:
                        sys.stderr.write(f"{name} failed: {error}\n")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=lambda text: text.split(","), default=list(PEERS))
    parser.add_argument("--models", type=lambda text: text.split(","), default=[])
    parser.add_argument("--in-flight", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--out", type=Path, default=ROOT / ".mediamesh" / "benchmarks")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server outlives it
    if unknown := set(options.servers) - set(PEERS):
        parser.error(f"no peer {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        chosen = [one for one in subjects(Path(folder)) if not options.models or one.name in options.models]
        rows = list(rounds(options, chosen))
    found = medians(rows)
    console = Console(width=max(Console().width, 130))
    show(console, found, options.in_flight)
    console.print(
        "CPU ms is the server's for each answer, at the most in flight. Noise is the most cores that others used, or "
        "that were stolen; the load generator shares the cores and is none."
    )
    (options.out / "peers.json").write_text(json.dumps(rows, indent=1) + "\n")
    plot(options.out / "peers.png", found, options.in_flight)
    console.print(f"written: {options.out / 'peers.json'}, {options.out / 'peers.png'}", soft_wrap=True)


if __name__ == "__main__":
    main()
