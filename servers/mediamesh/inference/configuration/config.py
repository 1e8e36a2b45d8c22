"""config.pbtxt: read, and held against what this server supports.

Nothing in it is ignored: a field that this server does not act on makes the load fail with a sentence that names file
and field. What needs the ONNX file as well is checked in completion.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import json_format, text_format

from mediamesh.api.inference.v2 import model_config_pb2 as pb
from mediamesh.inference.configuration.fields import ONNXRUNTIME, SUPPORTED, unsupported
from mediamesh.wire.errors import FailedPrecondition, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["CONFIG_FILE", "LoadError", "file_beside", "read_config", "read_override"]

CONFIG_FILE = "config.pbtxt"
PLATFORM = "onnxruntime_onnx"
_LARGEST_CONFIG = 4 << 20
_MOST_GROUPS = 64
_MOST_ELEMENTS = 1 << 31  # as many bytes as a message can have
_MOST_INSTANCES = 1024


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
            if path.stat().st_size > _LARGEST_CONFIG:
                raise LoadError(f"{path}: has {path.stat().st_size} bytes, at most {_LARGEST_CONFIG} are read.")
            text_format.Parse(path.read_text(encoding="utf-8"), config)
        except (text_format.ParseError, UnicodeDecodeError, OSError, RecursionError) as error:
            raise LoadError(f"{path}: {error}") from error
    _check(path, config)
    return config


def read_override(path: Path, text: str) -> pb.ModelConfig:
    """Return a configuration given as JSON in place of the file at ``path``.

    Raises:
        InvalidRequest: it is no JSON, or no configuration.
        LoadError: it asks for something that this server does not do.
    """
    config = pb.ModelConfig()
    try:
        json_format.Parse(text, config)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest.of_field("parameters[config]", f"is no model configuration in JSON: {error}") from error
    _check(path, config)
    return config


def file_beside(where: str, name: str) -> str:
    """Return the name of a file that lies in one directory with others.

    Raises:
        LoadError: it would lie somewhere else.
    """
    if not name or "/" in name or "\\" in name or "\0" in name or name in {".", ".."}:
        raise LoadError(f"{where}: {name!r} is not the name of a file beside others of the model.")
    return name


def _check(path: Path, config: pb.ModelConfig) -> None:
    backend = config.backend or ONNXRUNTIME
    _require(path, "name", config.name, [path.parent.name])
    _require(path, "backend", config.backend, list(SUPPORTED))
    if fields := unsupported(config, backend):
        raise LoadError(f"{path}: {', '.join(fields)}: not supported by this server.")
    _require(path, "platform", config.platform, [PLATFORM] if backend == ONNXRUNTIME else [])
    if config.max_batch_size < 0:
        raise LoadError(f"{path}: max_batch_size: {config.max_batch_size} is below 0.")
    if config.HasField("dynamic_batching") and not config.max_batch_size:
        raise LoadError(f"{path}: dynamic_batching: needs a max_batch_size above 0.")
    if config.response_cache.enable:
        raise LoadError(f"{path}: response_cache.enable: true is not supported by this server.")
    if config.default_model_filename:
        file_beside(f"{path}: default_model_filename", config.default_model_filename)
    _check_tensors(path, config)
    _check_groups(path, config.instance_group)


def _check_tensors(path: Path, config: pb.ModelConfig) -> None:
    for field, tensors in (("input", config.input), ("output", config.output)):
        names = [tensor.name for tensor in tensors]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise LoadError(f"{path}: {field}: {', '.join(twice)} is described twice.")
        for tensor in tensors:
            where = f"{path}: {field} {tensor.name!r}"
            shapes = {"dims": tensor.dims, "reshape.shape": tensor.reshape.shape}
            for name, shape in shapes.items():
                if any(size < -1 or size == 0 for size in shape):
                    raise LoadError(f"{where}: {name}: {list(shape)}, expected sizes of 1 or more, -1 for any.")
                if _fixed(shape) > _MOST_ELEMENTS:
                    raise LoadError(f"{where}: {name}: {list(shape)} hold more elements than any request can.")
            if tensor.HasField("reshape"):
                _check_reshape(where, tensor.dims, tensor.reshape.shape)
    for output in config.output:
        if output.label_filename:
            file_beside(f"{path}: output {output.name!r}: label_filename", output.label_filename)
    for tensor in config.input:
        if tensor.format and len(tensor.dims) != 3:
            raise LoadError(
                f"{path}: input {tensor.name!r}: format: is for three dimensions, dims has {len(tensor.dims)}."
            )


def _check_reshape(where: str, dims: Sequence[int], shape: Sequence[int]) -> None:
    """Hold a reshape against its dims: as many elements, and as many variable sizes, as Triton has it."""
    if list(dims).count(-1) != list(shape).count(-1) or _fixed(dims) != _fixed(shape):
        raise LoadError(f"{where}: reshape: {list(dims)} and {list(shape)} do not hold the same number of elements.")


def _fixed(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size if size > 0 else 1
    return product


def _check_groups(path: Path, groups: Sequence[pb.ModelInstanceGroup]) -> None:
    if len(groups) > _MOST_GROUPS or sum(max(1, group.count) for group in groups) > _MOST_INSTANCES:
        raise LoadError(f"{path}: instance_group: at most {_MOST_GROUPS} groups of {_MOST_INSTANCES} instances in all.")
    kinds = pb.ModelInstanceGroup
    for group in groups:
        where = f"{path}: instance_group {group.name!r}" if group.name else f"{path}: instance_group"
        if group.kind not in {kinds.KIND_AUTO, kinds.KIND_CPU, kinds.KIND_GPU} or group.count < 0:
            raise LoadError(f"{where}: expected KIND_AUTO, KIND_CPU or KIND_GPU, and a count of 0 or more.")
        if any(gpu < 0 for gpu in group.gpus) or len(set(group.gpus)) < len(group.gpus):
            raise LoadError(f"{where}: gpus: {list(group.gpus)}, expected numbers of devices, each once.")
        if group.gpus and group.kind == kinds.KIND_CPU:
            raise LoadError(f"{where}: gpus: {list(group.gpus)}, but its kind is KIND_CPU.")


def _require(path: Path, field: str, value: str, allowed: Sequence[str]) -> None:
    if value and value not in allowed:
        expected = "".join(f"{name!r} or " for name in allowed)
        raise LoadError(f"{path}: {field}: {value!r}, expected {expected}nothing.")
