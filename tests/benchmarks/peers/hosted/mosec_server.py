"""A model behind mosec: raw bytes over HTTP, batched for at most 2 ms."""

from __future__ import annotations

import sys

import numpy as np
import session  # type: ignore[import-not-found]

sys.argv = [sys.argv[0], "--address", "127.0.0.1", "--port", str(session.PORT), "--timeout", "30000"]
sys.argv += ["--log-level", "warning"]

from mosec import Server, Worker  # type: ignore[import-not-found]  # noqa: E402 - reads the command line


class Model(Worker):  # type: ignore[misc]
    """Runs the model."""

    def deserialize(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, np.float32).reshape(session.SHAPE)

    def serialize(self, data: np.ndarray) -> bytes:
        return data.tobytes()

    def forward(self, data: list[np.ndarray]) -> list[np.ndarray]:
        return list(session.run(np.stack(data)))


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=1, max_batch_size=session.MAX_BATCH, max_wait_time=2)
    server.run()
