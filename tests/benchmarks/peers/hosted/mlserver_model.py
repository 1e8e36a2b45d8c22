"""A model behind MLServer, in the server's own process: the protocol of Triton over gRPC."""

from __future__ import annotations

from typing import Any

import session  # type: ignore[import-not-found]
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceResponse  # type: ignore[import-not-found]


class Hosted(MLModel):  # type: ignore[misc]
    """Runs the model."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: Any) -> Any:
        answer = session.run(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(session.OUTPUT, answer)])
