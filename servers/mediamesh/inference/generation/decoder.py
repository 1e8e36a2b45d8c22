"""A decoder's ONNX session, bound to its cache: tokens go in, logits come out, and nothing else moves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from mediamesh.inference.configuration.config import LoadError
from mediamesh.inference.generation.cache import Cache, CacheTensor
from mediamesh.inference.onnx.providers import CPU
from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Array = np.ndarray[Any, Any]

__all__ = ["Decoder"]

_PAST = re.compile(r"past_key_values\.(\d+\.(?:key|value))")
_DTYPES: Mapping[str, np.dtype[Any]] = {"tensor(float)": np.dtype(np.float32), "tensor(float16)": np.dtype(np.float16)}
_HERE = ("cpu", 0)


class Decoder:
    """A model with its cache; used by one thread at a time.

    Args:
        label: What errors call the model.
        file: The ONNX file; its tensors are named as onnxruntime-genai names them.
        rows: Rows of the cache.
        context: Most tokens of a row.
        threads: Threads that a run uses.

    Attributes:
        cache: The cache.
        vocabulary: Tokens there are.

    Raises:
        LoadError: onnxruntime refuses the file, or it is no such decoder.
    """

    def __init__(self, label: str, file: Path, *, rows: int, context: int, threads: int) -> None:
        self._label = label
        self._session: Any = _session(file, threads)
        tensors = _cache_tensors(file, self._session)
        self.cache = Cache(tensors, rows=rows, context=context)
        logits = next(tensor for tensor in self._session.get_outputs() if tensor.name == "logits")
        self._last_only = logits.shape[1] == 1
        self._names = tuple(tensors)
        self._bindings: dict[tuple[int, int], Any] = {}
        try:
            probe = self._run(np.zeros((1, 1), np.int64), np.array([1]), 0)
            self._run(np.zeros((1, 1), np.int64), np.array([2]), 0)
        except MeshError as error:
            raise LoadError(f"{file}: does not run as a decoder that keeps its cache in place: {error}") from error
        self.cache.release(0)
        self.vocabulary: int = probe.shape[1]
        self._logits = np.empty((rows, 1, self.vocabulary), np.float32)
        self._bindings.clear()

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> Array:
        """Take some tokens of a prompt in.

        Args:
            row: Whose.
            tokens: The tokens.
            start: How many came before them.

        Returns:
            Logits of the last one [vocabulary]; valid until the next run.
        """
        logits: Array = self._run(np.array([tokens], np.int64), np.array([start + len(tokens)]), row)[0]
        return logits

    def step(self, tokens: Array, lengths: Array) -> Array:
        """Take one token in for each of the first rows.

        Args:
            tokens: One for each row [rows].
            lengths: Tokens of each row, this one included [rows].

        Returns:
            Logits [rows, vocabulary]; valid until the next run.
        """
        return self._run(tokens[:, np.newaxis].astype(np.int64), lengths, 0)

    def close(self) -> None:
        """Give the memory back."""
        self._bindings.clear()
        self.cache.close()
        self._session = None

    def _run(self, tokens: Array, lengths: Array, first: int) -> Array:
        binding = self._binding(first, len(tokens))
        mask = (np.arange(lengths.max()) < lengths[:, np.newaxis]).astype(np.int64)
        try:
            binding.bind_cpu_input("input_ids", tokens)
            binding.bind_cpu_input("attention_mask", mask)
            self._session.run_with_iobinding(binding)
            if self._own_logits:
                return self._logits[: len(tokens), 0]
            logits: Array = binding.get_outputs()[0].numpy()
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise MeshError(f"Model {self._label} failed: {error}") from error
        return logits[:, -1].astype(np.float32, copy=False)

    @property
    def _own_logits(self) -> bool:
        return self._last_only and hasattr(self, "_logits")

    def _binding(self, first: int, count: int) -> Any:
        """Return the binding of some rows; made once, as it names every tensor of the cache twice."""
        binding = self._bindings.get((first, count))
        if binding is None:
            binding = self._bindings[first, count] = self._session.io_binding()
            if self._own_logits:
                logits = self._logits[:count]
                binding.bind_output("logits", *_HERE, np.float32, logits.shape, logits.ctypes.data)
            else:
                binding.bind_output("logits")
            for name in self._names:
                view = self.cache.rows(name, first, count)
                place = (*_HERE, view.dtype.type, view.shape, view.ctypes.data)
                binding.bind_input(f"past_key_values.{name}", *place)
                binding.bind_output(f"present.{name}", *place)
        return binding


def _session(file: Path, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Hundreds of short parallel sections make a step: threads that sleep between them cost a quarter of the speed.
    # They stop spinning when the run ends.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(file, options, providers=[CPU])
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise LoadError(f"{file}: {error}") from error


def _cache_tensors(file: Path, session: Any) -> dict[str, CacheTensor]:
    inputs, outputs = session.get_inputs(), {tensor.name for tensor in session.get_outputs()}
    tensors: dict[str, CacheTensor] = {}
    for tensor in inputs:
        if match := _PAST.fullmatch(tensor.name):
            shape, dtype = tensor.shape, _DTYPES.get(tensor.type)
            if len(shape) != 4 or dtype is None or not all(isinstance(shape[axis], int) for axis in (1, 3)):
                raise LoadError(
                    f"{file}: {tensor.name} is a {tensor.type} {shape}, expected FP32 or FP16 [batch, heads, any, "
                    "head]."
                )
            tensors[match[1]] = CacheTensor(shape[1], shape[3], dtype)
    names = {tensor.name for tensor in inputs}
    wanted = {"input_ids", "attention_mask", *(f"past_key_values.{name}" for name in tensors)}
    if not tensors or names != wanted or outputs != {"logits", *(f"present.{name}" for name in tensors)}:
        raise LoadError(
            f"{file}: is no decoder with a cache: expected inputs input_ids, attention_mask, past_key_values.N.key and "
            f".value and outputs logits, present.N.key and .value; it takes {', '.join(sorted(names))[:500]}."
        )
    return tensors
