"""onnxruntime without a server around it: what the server is held against."""

from __future__ import annotations

import os
import statistics
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from tests.benchmarks.inference.models import input_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["WAYS", "raw"]

# Threads of a session, workers that run it, items in a run; 0 means one for each core. A worker is a thread.
WAYS: Mapping[str, tuple[int, int, int]] = {
    "a session of all cores": (0, 1, 1),
    "a worker per core": (1, 0, 1),
    "a worker per core, batch 8": (1, 0, 8),
}


def raw(repository: Path, model: str, way: tuple[int, int, int], seconds: float) -> dict[str, float]:
    """Run a model for so long; return items a second, CPU microseconds an item and the median run in ms."""
    threads, workers, batch = way
    cores = len(os.sched_getaffinity(0))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(repository / model / "1" / "model.onnx", options, ["CPUExecutionProvider"])
    inputs = {"input": np.repeat(input_of(model), batch, 0)}
    session.run(None, inputs)
    taken: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()

    def work() -> None:
        while (start := time.perf_counter()) < begin + seconds:
            session.run(None, inputs)
            taken.append(time.perf_counter() - start)

    running = [threading.Thread(target=work) for _ in range(workers or cores)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    items = len(taken) * batch
    return {
        "per_s": items / (time.perf_counter() - begin),
        "server_cpu_us": (time.process_time() - cpu) / items * 1e6,
        "p50_ms": statistics.median(taken) * 1e3,
    }
