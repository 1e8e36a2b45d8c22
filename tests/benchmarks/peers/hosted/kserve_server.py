"""A model behind KServe's Python server: the protocol of Triton over gRPC; it has no batcher."""

from __future__ import annotations

from typing import Any

import session  # type: ignore[import-not-found]
from kserve import InferOutput, InferResponse, Model, ModelServer  # type: ignore[import-not-found]


class Hosted(Model):  # type: ignore[misc]
    """Runs the model."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        answer = session.run(payload.inputs[0].as_numpy())
        output = InferOutput(session.OUTPUT, list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=True)
        return InferResponse(payload.id or "-", self.name, [output])


if __name__ == "__main__":
    server = ModelServer(http_port=session.PORT + 1, grpc_port=session.PORT, enable_latency_logging=False, workers=1)
    server.start([Hosted(session.NAME)])
