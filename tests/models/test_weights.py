"""Files of weights are read without the framework that wrote them, and hostile ones end in a sentence."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest

from mediamesh.models.converters import dcgan, efficientnet_lite0, silero, whisper_transcriber
from mediamesh.models.converters.ctranslate2 import read_weights
from mediamesh.models.converters.torch_pickle import read_tensors
from mediamesh.models.errors import BadWeights

MAGIC = 0x1950A86A20F9469CFC6C
VALUES = np.arange(12, dtype=np.float32)


class Tensor(NamedTuple):
    """What a tensor of PyTorch is in a pickle; strides and offset in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    key: str = "0"


WEIGHTS = OrderedDict(plain=Tensor((3, 4), (4, 1)), turned=Tensor((4, 3), (1, 4)), part=Tensor((2,), (5,), 1))


@pytest.fixture
def torch_names(monkeypatch):
    """Stand in for the names of PyTorch that a pickle refers to."""
    modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}

    def rebuild() -> None:
        """Stand for the function that puts a tensor together."""

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    storage = type("FloatStorage", (), {"__module__": "torch"})
    vars(modules["torch._utils"])["_rebuild_tensor_v2"] = rebuild
    vars(modules["torch"])["FloatStorage"] = storage
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return rebuild, storage


class Storage(NamedTuple):
    """A reference to stored values."""

    key: str


@pytest.fixture
def pickled(torch_names):
    """Pickle a value as PyTorch does."""
    rebuild, kind = torch_names

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: Any) -> Any:
            return ("storage", kind, thing.key, "cpu", len(VALUES)) if isinstance(thing, Storage) else None

        def reducer_override(self, thing: Any) -> Any:
            if isinstance(thing, Tensor):
                return rebuild, (Storage(thing.key), thing.offset, thing.shape, thing.strides, False, OrderedDict())
            return NotImplemented

    def pickled(thing: Any) -> bytes:
        out = io.BytesIO()
        Pickler(out, 2).dump(thing)
        return out.getvalue()

    return pickled


@pytest.fixture
def legacy(pickled, tmp_path):
    """Write a legacy file of torch.save."""

    def legacy(whole: Any, *, magic: int = MAGIC, count: int = len(VALUES), cut: int = 0):
        header = [pickle.dumps(one, 2) for one in (magic, 1001, {"little_endian": True})]
        storages = pickle.dumps(["0"], 2) + struct.pack("<q", count) + VALUES.tobytes()
        content = b"".join([*header, pickled(whole), storages])
        (tmp_path / "weights.pth").write_bytes(content[: len(content) - cut])
        return tmp_path / "weights.pth"

    return legacy


def test_a_legacy_file_gives_its_tensors_views_of_one_storage_included(legacy) -> None:
    tensors = read_tensors(legacy(WEIGHTS))
    np.testing.assert_array_equal(tensors["plain"], VALUES.reshape(3, 4))
    np.testing.assert_array_equal(tensors["turned"], VALUES.reshape(3, 4).T)
    np.testing.assert_array_equal(tensors["part"], [1, 6])


def test_a_zip_file_gives_the_tensors_of_nested_dictionaries(pickled, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "weights.tar", "w") as archive:
        archive.writestr("archive/data.pkl", pickled({"epoch": 3, "net": {"a": WEIGHTS["plain"]}}))
        archive.writestr("archive/data/0", VALUES.tobytes())
    tensors = read_tensors(tmp_path / "weights.tar")
    assert list(tensors) == ["net.a"]
    np.testing.assert_array_equal(tensors["net.a"], VALUES.reshape(3, 4))


class Attack:
    """Runs a command when a careless unpickler loads it."""

    def __reduce__(self) -> Any:
        return print, ("run",)


def test_a_pickle_that_names_a_function_is_refused_and_nothing_runs(legacy, capsys) -> None:
    with pytest.raises(BadWeights, match=r"weights\.pth: it names (builtins|__builtin__)\.print, which is no part of"):
        read_tensors(legacy({"a": Attack()}))
    assert capsys.readouterr().out == ""


HOSTILE = {
    "beyond the storage": ({"a": Tensor((3, 5), (5, 1))}, {}, "reaches beyond its storage of 12 elements"),
    "far strides": ({"a": Tensor((2,), (1 << 60,))}, {}, "reaches beyond its storage"),
    "backwards": ({"a": Tensor((3,), (-1,), 5)}, {}, r"has strides \(-1,\)"),
    "before the storage": ({"a": Tensor((3,), (1,), -1)}, {}, "from -1"),
    "strides that do not fit": ({"a": Tensor((3, 4), (1,))}, {}, "has strides"),
    "an unknown storage": ({"a": Tensor((1,), (1,), 0, "9")}, {}, "no file of torch.save"),
    "no dictionary": ([1, 2], {}, "is list, expected a dictionary of tensors"),
    "another magic number": (WEIGHTS, {"magic": 7}, "no magic number"),
    "cut short": (WEIGHTS, {"cut": 4}, "storage 0 should have 48 bytes, 44 are left"),
    "cut in the pickle": (WEIGHTS, {"cut": 90}, "no file of torch.save"),
    "more than there is": (WEIGHTS, {"count": 1 << 60}, "storage 0 should have"),
    "less than nothing": (WEIGHTS, {"count": -1}, "storage 0 should have -4 bytes"),
}


@pytest.mark.parametrize(("whole", "flaws", "told"), HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_lies_is_refused(legacy, whole, flaws, told) -> None:
    with pytest.raises(BadWeights, match=told):
        read_tensors(legacy(whole, **flaws))


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x05\x06" + bytes(18), pickle.dumps(MAGIC, 2)])
def test_a_file_of_another_kind_is_refused(tmp_path, content) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(BadWeights, match=r"weights\.pth: "):
        read_tensors(tmp_path / "weights.pth")


@pytest.mark.parametrize("converter", [efficientnet_lite0, dcgan])
def test_the_weights_of_another_net_are_refused(legacy, tmp_path, converter) -> None:
    with pytest.raises(BadWeights, match=r"no tensor|no generator"):
        converter.convert({"weights": legacy(WEIGHTS)}, tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def ctranslate2(*, version: int = 6, kind: str = "WhisperSpec", shape=(3, 4), dtype: int = 0, aliases=()) -> bytes:
    """Return a file of one variable."""
    variable = text("a") + struct.pack("<B", len(shape)) + struct.pack(f"<{len(shape)}I", *shape)
    variable += struct.pack("<BI", dtype, VALUES.nbytes) + VALUES.tobytes()
    named = struct.pack("<I", len(aliases)) + b"".join(text(one) + text(other) for one, other in aliases)
    return struct.pack("<I", version) + text(kind) + struct.pack("<II", 3, 1) + variable + named


@pytest.fixture
def written(tmp_path):
    def written(content: bytes):
        (tmp_path / "model.bin").write_bytes(content)
        return tmp_path / "model.bin"

    return written


def test_variables_of_ctranslate2_are_read_and_names_may_share_one(written) -> None:
    weights = read_weights(written(ctranslate2(aliases=[("b", "a")])), "WhisperSpec")
    np.testing.assert_array_equal(weights["a"], VALUES.reshape(3, 4))
    assert weights["b"] is weights["a"]


WRONG = {
    "another version": (ctranslate2(version=9), "binary version 9, expected 6"),
    "another model": (ctranslate2(kind="TransformerSpec"), "a TransformerSpec, expected a WhisperSpec"),
    "another shape": (ctranslate2(shape=(3, 5)), "damaged near byte"),
    "a huge shape": (ctranslate2(shape=(0xFFFFFFFF,) * 3), "damaged near byte"),
    "many dimensions": (ctranslate2(shape=(1,) * 9), "a has 9 dimensions"),
    "another type": (ctranslate2(dtype=77), "damaged near byte"),
    "an alias of nothing": (ctranslate2(aliases=[("b", "c")]), "damaged near byte"),
    "nothing": (b"", "4 bytes are announced, 0 are left"),
    "cut short": (ctranslate2()[:60], "bytes are announced"),
}


@pytest.mark.parametrize(("content", "told"), WRONG.values(), ids=WRONG)
def test_a_damaged_file_of_ctranslate2_is_refused(written, content, told) -> None:
    with pytest.raises(BadWeights, match=told):
        read_weights(written(content), "WhisperSpec")


def test_a_whisper_without_its_parts_is_refused(written, tmp_path) -> None:
    with pytest.raises(BadWeights, match="there is no encoder/conv1/weight in it"):
        whisper_transcriber.convert({"weights": written(ctranslate2())}, tmp_path)


def test_another_onnx_file_than_silero_s_is_refused(tmp_path) -> None:
    from tests.inference.models import double  # noqa: PLC0415 - needs onnx's helpers only here

    (tmp_path / "other.onnx").write_bytes(double())
    with pytest.raises(BadWeights, match=r"other\.onnx: it has inputs and outputs \[\['x'\], \['y'\]\]"):
        silero.convert({"model": tmp_path / "other.onnx"}, tmp_path)
