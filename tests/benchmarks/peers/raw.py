"""Raw onnxruntime, without any server: what a model gives on this machine; prints JSON as the load generator does."""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime

__all__: list[str] = []


def main() -> None:
    """Run a model from as many threads as there are cores, or one session on all of them where one run is in flight."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--item", type=Path, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    workers = min(options.in_flight, len(os.sched_getaffinity(0)))
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.x64quantprecision", "1")
    if workers > 1:
        settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(options.file, settings, ["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: np.load(options.item)}
    session.run(None, inputs)
    latencies: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()

    def work() -> None:
        while (start := time.perf_counter()) < begin + options.seconds:
            session.run(None, inputs)
            latencies.append(time.perf_counter() - start)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begin
    cores = (time.process_time() - cpu) / took
    print(json.dumps({"latencies": latencies, "per_s": len(latencies) / took, "failed": {}, "cores": cores}))


if __name__ == "__main__":
    main()
