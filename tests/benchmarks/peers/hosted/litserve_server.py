"""A model behind LitServe: a file uploaded over HTTP, raw bytes back, batched for at most 2 ms."""

from __future__ import annotations

from typing import Any

import litserve  # type: ignore[import-not-found]
import numpy as np
import session  # type: ignore[import-not-found]
from fastapi import Response  # type: ignore[import-not-found]


class Hosted(litserve.LitAPI):  # type: ignore[misc]
    """Runs the model."""

    def setup(self, device: str) -> None:
        """Nothing: the session is there."""

    def decode_request(self, request):
        # Without types: what LitServe makes of a request it reads off them, and not off their names.
        return np.frombuffer(request["x"].file.read(), np.float32).reshape(session.SHAPE)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        answer: np.ndarray = session.run(x)
        return answer

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> Any:
        return Response(content=output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    api = Hosted(max_batch_size=session.MAX_BATCH, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=session.PORT, num_api_servers=1, generate_client_file=False, log_level="warning")
