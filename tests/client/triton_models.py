"""Models for Triton's Python backend: one that doubles, one that gives many answers, and one that adds up."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_models"]

_HEAD = "import numpy as np\nimport triton_python_backend_utils as triton\n\n\nclass TritonPythonModel:\n"
_TENSORS = """
backend: "python"
input { name: "x" data_type: TYPE_FP32 dims: [2] }
output { name: "y" data_type: TYPE_FP32 dims: [2] }
"""
DOUBLE = """
    def execute(self, requests):
        given = [triton.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [triton.InferenceResponse([triton.Tensor("y", x + x)]) for x in given]
"""
# Answers with its input times 1, 2, ..., as often as the first element says.
REPEAT = """
    def execute(self, requests):
        for request in requests:
            x, sender = triton.get_input_tensor_by_name(request, "x").as_numpy(), request.get_response_sender()
            for number in range(int(x[0, 0])):
                sender.send(triton.InferenceResponse([triton.Tensor("y", x * (number + 1))]))
            sender.send(flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
# Adds up what came in the sequence.
ADD = """
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        return [self.add(request) for request in requests]

    def add(self, request):
        x = triton.get_input_tensor_by_name(request, "x").as_numpy()
        key, start = (
            int(triton.get_input_tensor_by_name(request, name).as_numpy().ravel()[0]) for name in ("KEY", "START")
        )
        self.sums[key] = x if start else self.sums[key] + x
        return triton.InferenceResponse([triton.Tensor("y", self.sums[key].astype(np.float32))])
"""
_SEQUENCES = """
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  oldest { max_candidate_sequences: 4 }
  control_input {
    name: "START"
    control { kind: CONTROL_SEQUENCE_START fp32_false_true: [0, 1] }
  }
  control_input {
    name: "KEY"
    control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }
  }
}
"""
_MODELS = {
    "double": (DOUBLE, "max_batch_size: 8 dynamic_batching {}"),
    "repeat": (REPEAT, "max_batch_size: 8 model_transaction_policy { decoupled: true }"),
    "add": (ADD, "max_batch_size: 8" + _SEQUENCES),
}


def write_models(repository: Path) -> None:
    """Write a repository of them."""
    for name, (code, config) in _MODELS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(_HEAD + code)
        (repository / name / "config.pbtxt").write_text(_TENSORS + config)
