"""The onnxruntime session of a peer, the same for each; told by variables of the environment."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime

__all__ = ["INPUT", "MAX_BATCH", "NAME", "OUTPUT", "PORT", "SHAPE", "run"]

NAME = os.environ["PEER_MODEL"]
INPUT, OUTPUT = os.environ["PEER_INPUT"], os.environ["PEER_OUTPUT"]
# Without the batch dimension.
SHAPE = tuple(int(size) for size in os.environ["PEER_SHAPE"].split(","))
PORT = int(os.environ["PEER_PORT"])
MAX_BATCH = 16


def _session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # Kernels of INT8 that do not saturate: the same sums, and so the same answers, for all.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(os.environ["PEER_FILE"], options, ["CPUExecutionProvider"])


_SESSION = _session()


def run(batch: np.ndarray) -> np.ndarray:
    """Return the output for a batch."""
    (output,) = _SESSION.run([OUTPUT], {INPUT: batch})
    return np.asarray(output)
