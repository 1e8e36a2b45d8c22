"""A model behind Triton's binary, in its Python backend; the only one that the package on PyPI has."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import triton_python_backend_utils as triton  # type: ignore[import-not-found]

sys.path.insert(0, os.environ["PEER_FOLDER"])


class TritonPythonModel:
    """Runs the model."""

    def initialize(self, _: Any) -> None:
        import session  # type: ignore[import-not-found]  # noqa: PLC0415 - the folder was just named

        self._hosted = session

    def execute(self, requests: list[Any]) -> list[Any]:
        given = [triton.get_input_tensor_by_name(request, self._hosted.INPUT).as_numpy() for request in requests]
        answers = self._hosted.run(given[0] if len(given) == 1 else np.concatenate(given))
        ends = np.cumsum([len(batch) for batch in given])[:-1]
        return [
            triton.InferenceResponse(output_tensors=[triton.Tensor(self._hosted.OUTPUT, answer)])
            for answer in np.split(answers, ends)
        ]
