"""A configuration and the ONNX file it describes, held against each other, and each completed from the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from mediamesh.api.inference.v2 import model_config_pb2 as pb
from mediamesh.inference.configuration.config import PLATFORM, LoadError
from mediamesh.inference.configuration.fields import ONNXRUNTIME
from mediamesh.inference.datatypes import TO_CONFIG, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["complete", "offered"]

# What Triton sets for a model without a config that can be batched: its backend option default-max-batch-size.
_DEFAULT_BATCH = 4
_Tensor: TypeAlias = pb.ModelInput | pb.ModelOutput


def complete(
    path: Path, config: pb.ModelConfig, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> pb.ModelConfig:
    """Return the configuration with what it leaves open taken from the ONNX file, whose tensors are given.

    Raises:
        LoadError: the two contradict each other.
    """
    full = pb.ModelConfig()
    full.CopyFrom(config)
    full.name, full.platform, full.backend = path.parent.name, PLATFORM, ONNXRUNTIME
    full.default_model_filename = config.default_model_filename or "model.onnx"
    # The server feeds these by itself; a caller sees none but the states that the configuration lists as outputs.
    batching = config.sequence_batching
    fed = {control.name for control in batching.control_input}.union(state.input_name for state in batching.state)
    kept = {state.output_name for state in batching.state}.difference(tensor.name for tensor in config.output)
    inputs = [spec for spec in inputs if spec.name not in fed]
    outputs = [spec for spec in outputs if spec.name not in kept]
    needed = [spec for spec in inputs if not spec.optional]
    described = bool(config.input or config.output or config.max_batch_size)
    if not described and all(spec.shape and spec.shape[0] < 0 for spec in (*needed, *outputs)):
        full.max_batch_size = _DEFAULT_BATCH
        if not config.HasField("sequence_batching"):
            full.dynamic_batching.SetInParent()
    batched = full.max_batch_size > 0
    _match(path, "input", config.input, inputs, batched=batched)
    _match(path, "output", config.output, outputs, batched=batched)
    _match_optional(path, config.input, inputs)
    if not config.input:
        for spec in needed:
            full.input.add(name=spec.name, data_type=TO_CONFIG[spec.datatype], dims=spec.shape[batched:])
    if not config.output:
        for spec in outputs:
            full.output.add(name=spec.name, data_type=TO_CONFIG[spec.datatype], dims=spec.shape[batched:])
    return full


def offered(config: pb.ModelConfig, specs: Sequence[TensorSpec], tensors: Iterable[_Tensor]) -> list[TensorSpec]:
    """Return the tensors of the ONNX file that a configuration offers, in the shapes that callers see."""
    own = {spec.name: spec for spec in specs}
    batch = [-1] if config.max_batch_size else []
    seen = []
    for tensor in tensors:
        spec = own[tensor.name]
        shape = (*batch, *tensor.dims)
        if not tensor.HasField("reshape"):
            shape = tuple(max(pair) for pair in zip(shape, spec.shape, strict=True))
        seen.append(TensorSpec(spec.name, spec.datatype, shape, optional=spec.optional))
    return seen


def _match(path: Path, field: str, described: Sequence[_Tensor], specs: Sequence[TensorSpec], *, batched: bool) -> None:
    known = {spec.name: spec for spec in specs}
    for tensor in described:
        where, spec = f"{path}: {field} {tensor.name!r}", known.get(tensor.name)
        if spec is None:
            raise LoadError(f"{where}: the ONNX file has no such {field}; it has {', '.join(known) or 'none'}.")
        if tensor.data_type != TO_CONFIG[spec.datatype]:
            given, own = (pb.DataType.Name(kind) for kind in (tensor.data_type, TO_CONFIG[spec.datatype]))
            raise LoadError(f"{where}: data_type: {given}, the ONNX file has {own}.")
        name, dims = ("reshape", tensor.reshape.shape) if tensor.HasField("reshape") else ("dims", tensor.dims)
        shape = (-1, *dims) if batched else tuple(dims)
        if len(shape) != len(spec.shape) or any(
            given != own and min(given, own) >= 0 for given, own in zip(shape, spec.shape, strict=True)
        ):
            note = ", the first being the batch" if batched else ""
            raise LoadError(f"{where}: {name}: {list(dims)}, the ONNX file has {list(spec.shape)}{note}.")
    needed = {spec.name for spec in specs if not spec.optional}
    if field == "input" and described and (missing := needed.difference(tensor.name for tensor in described)):
        raise LoadError(f"{path}: input: does not list {', '.join(sorted(missing))}, which the ONNX file takes.")
    listed = {tensor.name for tensor in described}
    if batched and (fixed := [spec for spec in specs if _fixed(spec) and (not spec.optional or spec.name in listed)]):
        raise LoadError(
            f"{path}: max_batch_size: needs a variable first dimension, {field} {fixed[0].name!r} has "
            f"{list(fixed[0].shape)}."
        )


def _match_optional(path: Path, described: Sequence[pb.ModelInput], specs: Sequence[TensorSpec]) -> None:
    """Hold the inputs that a request may leave out against those that have a value in the ONNX file."""
    optional = {spec.name for spec in specs if spec.optional}
    for tensor in described:
        if tensor.optional != (tensor.name in optional):
            kind = "has a value for it" if tensor.name in optional else "has no value for it, so it is needed"
            raise LoadError(f"{path}: input {tensor.name!r}: optional: {tensor.optional}, but the ONNX file {kind}.")


def _fixed(spec: TensorSpec) -> bool:
    return not spec.shape or spec.shape[0] >= 0
