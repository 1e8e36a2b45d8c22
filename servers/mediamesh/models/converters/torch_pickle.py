"""Weights out of files of ``torch.save``, without PyTorch and without running what a pickle may name.

Both forms are read: the legacy one (magic number, protocol, system, object, keys and storages one after the other) and
the zip archive of PyTorch 1.6 and later (``data.pkl`` and ``data/KEY``). The unpickler knows ordered dictionaries,
plain tensors and storages; anything else in a file ends the reading.
"""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mediamesh.models.errors import BadWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import IO

    Array = np.ndarray[Any, Any]

__all__ = ["read_tensors"]

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "DoubleStorage": np.dtype("<f8"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype[np.generic]


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int  # elements
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # elements


def read_tensors(path: Path) -> dict[str, Array]:
    """Return the tensors of a file by their dotted names.

    Raises:
        BadWeights: the file is of another form, names something beside tensors, or is damaged.
    """
    try:
        with path.open("rb") as file:
            read = _read_zip if zipfile.is_zipfile(file) else _read_legacy
            file.seek(0)
            whole, storages = read(file)
            return {name: _array(tensor, storages) for name, tensor in _flatten(whole).items()}
    except BadWeights as error:
        raise BadWeights(f"{path.name}: {error.text}") from error
    except (pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, KeyError, ValueError) as error:
        raise BadWeights(f"{path.name}: no file of torch.save: {error}") from error
    except (TypeError, AttributeError, IndexError) as error:  # a pickle that builds what no torch.save would write
        raise BadWeights(f"{path.name}: no file of torch.save: {error}") from error


class _Unpickler(pickle.Unpickler):
    """Builds dictionaries and descriptions of tensors, and nothing else."""

    def find_class(self, module: str, name: str) -> Callable[..., Any] | str:
        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                return _tensor
            case "torch", storage if storage in _DTYPES:
                return name
            case _:
                raise BadWeights(f"it names {module}.{name}, which is no part of weights.")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key = pid[:3]
        if kind != "storage" or dtype not in _DTYPES:
            raise BadWeights(f"it refers to {kind!r} of {dtype!r}, expected a storage.")
        return _Storage(str(key), _DTYPES[str(dtype)])


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _read_legacy(file: IO[bytes]) -> tuple[Any, dict[str, bytes]]:
    if _Unpickler(file).load() != _MAGIC:
        raise BadWeights("no magic number of torch.save.")
    _Unpickler(file).load()  # version of the protocol
    _Unpickler(file).load()  # endianness and sizes of integers of the machine that wrote it
    whole = _Unpickler(file).load()
    sizes = {tensor.storage.key: tensor.storage.dtype.itemsize for tensor in _flatten(whole).values()}
    length = os.fstat(file.fileno()).st_size
    storages = {}
    for key in _Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        wanted, left = count * sizes[key], length - file.tell()
        if not 0 <= wanted <= left:  # asked before reading, as a read makes room for all that it is asked for
            raise BadWeights(f"storage {key} should have {wanted} bytes, {left} are left.")
        storages[key] = file.read(wanted)
    return whole, storages


def _read_zip(file: IO[bytes]) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        (index,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        with archive.open(index) as pickled:
            whole = _Unpickler(pickled).load()
        folder = index.removesuffix("data.pkl")
        keys = {tensor.storage.key for tensor in _flatten(whole).values()}
        return whole, {key: archive.read(f"{folder}data/{key}") for key in keys}


def _flatten(whole: Any, prefix: str = "") -> dict[str, _Tensor]:
    """Return the tensors of nested dictionaries, by names joined with dots; numbers and texts beside them are left."""
    if not isinstance(whole, dict):
        raise BadWeights(f"{prefix or 'the file'} is {type(whole).__name__}, expected a dictionary of tensors.")
    flat: dict[str, _Tensor] = {}
    for name, value in whole.items():
        if isinstance(value, _Tensor):
            flat[f"{prefix}{name}"] = value
        elif isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
    return flat


def _array(tensor: _Tensor, storages: Mapping[str, bytes]) -> Array:
    flat = np.frombuffer(storages[tensor.storage.key], tensor.storage.dtype)
    if len(tensor.shape) != len(tensor.strides) or min((tensor.offset, *tensor.shape, *tensor.strides)) < 0:
        raise BadWeights(f"a tensor of shape {tensor.shape} has strides {tensor.strides} from {tensor.offset}.")
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True))
    if 0 not in tensor.shape and last >= len(flat):
        raise BadWeights(f"a tensor of shape {tensor.shape} reaches beyond its storage of {len(flat)} elements.")
    strides = [step * flat.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides).copy()
