"""config.pbtxt: read, held against what this server supports, and completed from the ONNX file.

Nothing in it is ignored: a field that this server does not act on makes the load fail with a sentence that names file
and field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from google.protobuf import text_format

from mediamesh.api.inference.v2 import model_config_pb2 as pb
from mediamesh.inference.datatypes import TO_CONFIG, TensorSpec
from mediamesh.wire.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from google.protobuf.message import Message

__all__ = ["CONFIG_FILE", "LoadError", "complete", "read_config"]

CONFIG_FILE = "config.pbtxt"
BACKEND = "onnxruntime"
PLATFORM = "onnxruntime_onnx"
THREADS_PARAMETER = "intra_op_thread_count"
# What Triton sets for a model without a config that can be batched: its backend option default-max-batch-size.
_DEFAULT_BATCH = 4
_SUPPORTED = frozenset({
    "name", "platform", "backend", "default_model_filename", "max_batch_size",
    "input.name", "input.data_type", "input.format", "input.dims",
    "output.name", "output.data_type", "output.dims",
    "version_policy.latest", "version_policy.latest.num_versions", "version_policy.all",
    "version_policy.specific.versions",
    "instance_group.name", "instance_group.count", "instance_group.kind", "instance_group.gpus",
    "dynamic_batching", "dynamic_batching.default_queue_policy",
    "dynamic_batching.default_queue_policy.max_queue_size",
    "dynamic_batching.default_queue_policy.default_timeout_microseconds",
    "dynamic_batching.default_queue_policy.allow_timeout_override",
    f"parameters[{THREADS_PARAMETER}].string_value",
})  # fmt: skip
Tensor: TypeAlias = pb.ModelInput | pb.ModelOutput


class LoadError(FailedPrecondition):
    """A model cannot be loaded; the text names the file and what in it is wrong."""


def read_config(path: Path) -> pb.ModelConfig:
    """Return what a config.pbtxt says; an empty configuration when there is no such file.

    Raises:
        LoadError: the file is no configuration, or asks for something that this server does not do.
    """
    config = pb.ModelConfig()
    if path.is_file():
        try:
            text_format.Parse(path.read_text(encoding="utf-8"), config)
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise LoadError(f"{path}: {error}") from error
    if unsupported := [field for field in _fields_set(config) if field not in _SUPPORTED]:
        raise LoadError(f"{path}: {', '.join(unsupported)}: not supported by this server.")
    _require(path, "name", config.name, {"", path.parent.name})
    _require(path, "platform", config.platform, {"", PLATFORM})
    _require(path, "backend", config.backend, {"", BACKEND})
    if config.max_batch_size < 0:
        raise LoadError(f"{path}: max_batch_size: {config.max_batch_size} is below 0.")
    if config.HasField("dynamic_batching") and not config.max_batch_size:
        raise LoadError(f"{path}: dynamic_batching: needs a max_batch_size above 0.")
    if len(config.instance_group) > 1:
        raise LoadError(f"{path}: instance_group: {len(config.instance_group)} groups, this server runs one.")
    _file_within_version(path, config.default_model_filename)
    return config


def complete(
    path: Path, config: pb.ModelConfig, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> pb.ModelConfig:
    """Return the configuration with what it leaves open taken from the ONNX file, whose tensors are given.

    Raises:
        LoadError: the two contradict each other.
    """
    full = pb.ModelConfig()
    full.CopyFrom(config)
    full.name, full.platform, full.backend = path.parent.name, PLATFORM, BACKEND
    full.default_model_filename = config.default_model_filename or "model.onnx"
    described = bool(config.input or config.output or config.max_batch_size)
    if not described and all(spec.shape and spec.shape[0] < 0 for spec in (*inputs, *outputs)):
        full.max_batch_size = _DEFAULT_BATCH
        full.dynamic_batching.SetInParent()
    batched = full.max_batch_size > 0
    _match(path, "input", config.input, inputs, batched=batched)
    _match(path, "output", config.output, outputs, batched=batched)
    if not config.input:
        for spec in inputs:
            full.input.add(name=spec.name, data_type=TO_CONFIG[spec.datatype], dims=spec.shape[batched:])
    if not config.output:
        for spec in outputs:
            full.output.add(name=spec.name, data_type=TO_CONFIG[spec.datatype], dims=spec.shape[batched:])
    return full


def _fields_set(message: Message, prefix: str = "") -> Iterator[str]:
    """Yield the path of every leaf that is set; an empty message counts as one."""
    for field, value in message.ListFields():
        path = prefix + field.name
        if field.message_type is None:
            yield path
        elif field.message_type.GetOptions().map_entry:
            for key in value:
                nested = value[key]
                yield from _fields_set(nested, f"{path}[{key}].") if hasattr(nested, "ListFields") else [path]
        else:
            for item in value if field.is_repeated else [value]:
                yield from _fields_set(item, f"{path}.") if item.ListFields() else [path]


def _require(path: Path, field: str, value: str, allowed: set[str]) -> None:
    if value not in allowed:
        raise LoadError(f"{path}: {field}: {value!r}, expected {max(allowed)!r} or nothing.")


def _file_within_version(path: Path, name: str) -> None:
    if "/" in name or "\\" in name or name in {".", ".."}:
        raise LoadError(
            f"{path}: default_model_filename: {name!r} is not the name of a file beside others of a version."
        )


def _match(path: Path, field: str, described: Sequence[Tensor], specs: Sequence[TensorSpec], *, batched: bool) -> None:
    known = {spec.name: spec for spec in specs}
    for tensor in described:
        where, spec = f"{path}: {field} {tensor.name!r}", known.get(tensor.name)
        if spec is None:
            raise LoadError(f"{where}: the ONNX file has no such {field}; it has {', '.join(known) or 'none'}.")
        if tensor.data_type != TO_CONFIG[spec.datatype]:
            given, own = (pb.DataType.Name(kind) for kind in (tensor.data_type, TO_CONFIG[spec.datatype]))
            raise LoadError(f"{where}: data_type: {given}, the ONNX file has {own}.")
        shape = (-1, *tensor.dims) if batched else tuple(tensor.dims)
        if len(shape) != len(spec.shape) or any(
            given != own and min(given, own) >= 0 for given, own in zip(shape, spec.shape, strict=True)
        ):
            note = ", the first being the batch" if batched else ""
            raise LoadError(f"{where}: dims: {list(tensor.dims)}, the ONNX file has {list(spec.shape)}{note}.")
    if field == "input" and described and len(described) < len(known):
        missing = set(known).difference(tensor.name for tensor in described)
        raise LoadError(f"{path}: input: does not list {', '.join(sorted(missing))}, which the ONNX file takes.")
    if batched and (fixed := [spec for spec in specs if not spec.shape or spec.shape[0] >= 0]):
        raise LoadError(
            f"{path}: max_batch_size: needs a variable first dimension, {field} {fixed[0].name!r} has "
            f"{list(fixed[0].shape)}."
        )
