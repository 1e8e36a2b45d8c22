"""The manifest that ships is whole, and one that is wrong is refused with file, entry and key."""

from __future__ import annotations

import hashlib
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from google.protobuf import text_format

from mediamesh.api.inference.v2 import model_config_pb2
from mediamesh.models.converters import converter
from mediamesh.models.errors import ManifestError
from mediamesh.models.manifest import ShippedFile, UrlFile, read_manifest
from mediamesh.wire.errors import NotFound

SHIPPED = Path(__file__).parents[2] / "deploy" / "models" / "models.toml"
DIGEST = "0" * 64
PACKAGE = f"""
[package.tiny]
version = "1.0"
sha256 = "{DIGEST}"
size = 5
"""
MODEL = f"""
[[model]]
name = "net"
set = "things"
backend = "onnxruntime"
converter = "plain_copy"
licence = "MIT"
purpose = "Tests"
sources = {{ "model.onnx" = {{ package = "tiny", file = "tiny/model.onnx" }} }}
files = {{ "model.onnx" = "{DIGEST}" }}
"""


@pytest.fixture(scope="module")
def shipped():
    return read_manifest(SHIPPED)


@pytest.fixture
def read(tmp_path):
    def read(text: str):
        (tmp_path / "models.toml").write_text(text)
        return read_manifest(tmp_path / "models.toml")

    return read


def test_it_has_the_sets_that_the_documents_name(shipped) -> None:
    assert shipped.sets == ("vision", "speech", "text", "documents", "generate", "samples")
    assert all(model.purpose and model.licence for model in shipped.models)


def test_every_converter_is_there_and_every_config_describes_its_model(shipped) -> None:
    for model in shipped.models:
        assert callable(converter(model.converter))
        if model.backend:
            config = model_config_pb2.ModelConfig()
            text_format.Parse((shipped.root / model.config).read_text(), config)
            assert (config.name, config.backend) == (model.name, model.backend)
            assert "model.onnx" in model.files


def test_shipped_files_are_those_of_the_manifest_and_of_the_notice(shipped) -> None:
    notice = (shipped.root / "NOTICE.md").read_text()
    files = {source for model in shipped.models for source in model.sources.values() if isinstance(source, ShippedFile)}
    for file in files:
        assert hashlib.sha256((shipped.root / file.path).read_bytes()).hexdigest() == file.sha256
        assert file.sha256 in notice
        assert file.path in notice
    weights = {path.relative_to(shipped.root).as_posix() for path in shipped.root.rglob("*.onnx")}
    assert weights <= {file.path for file in files}


def test_no_host_of_a_registry_is_in_it(shipped) -> None:
    assert not any(isinstance(item, UrlFile) for model in shipped.models for item in model.downloads)
    assert "://" not in SHIPPED.read_text()


def test_the_documents_list_every_model(shipped) -> None:
    page = (SHIPPED.parents[2] / "docs" / "models.md").read_text()
    assert not [model.name for model in shipped.models if f"`{model.name}`" not in page]


def test_names_of_models_and_sets_choose_each_model_once(shipped) -> None:
    chosen = shipped.choose(["nanodet_int8", "vision", "dcgan_faces"])
    names = ["nanodet_int8", "efficientnet_lite0", "efficientnet_lite0_int8", "dcgan_faces"]
    assert [model.name for model in chosen] == names


def test_a_name_that_is_not_there_is_answered_with_those_that_are(shipped) -> None:
    with pytest.raises(
        NotFound, match=r"no model and no set 'vison'; there are models .*nanodet_int8.*; sets vision, sp"
    ):
        shipped.choose(["vison"])


def test_entries_are_frozen(read) -> None:
    (model,) = read(PACKAGE + MODEL).models
    with pytest.raises(FrozenInstanceError):
        model.name = "other"


def test_a_file_on_the_web_and_one_beside_the_manifest_are_sources_too(read) -> None:
    sources = f"""sources.a = {{ url = "https://example.com/a", sha256 = "{DIGEST}", size = 3 }}
sources.b = {{ path = "files/b", sha256 = "{DIGEST}" }}"""
    (model,) = read(MODEL.replace(_line("sources"), sources)).models
    assert model.sources == {"a": UrlFile("https://example.com/a", DIGEST, 3), "b": ShippedFile("files/b", DIGEST)}


def _line(key: str) -> str:
    return next(line for line in MODEL.splitlines() if line.startswith(key))


WRONG = {
    "no TOML": ("[[model", "models.toml: "),
    "no models": ("", "models.toml: model: missing"),
    "a key that is unknown": (PACKAGE + MODEL + 'colour = "red"', "model net: colour: unknown here"),
    "a key that is missing": (PACKAGE + MODEL.replace(_line("licence"), ""), "model net: licence: missing"),
    "a key of another type": (PACKAGE.replace("= 5", '= "5"') + MODEL, "package tiny: size: '5', expected an integer"),
    "a size of nothing": (PACKAGE.replace("= 5", "= 0") + MODEL, "package tiny: size: 0, expected an integer above 0"),
    "no digest": (PACKAGE.replace(DIGEST, "abc") + MODEL, "package tiny: sha256: 'abc', expected"),
    "a package that is not listed": (MODEL, r"model net: sources model.onnx: package: there is no \[package.tiny\]"),
    "a package that nobody uses": (
        PACKAGE + PACKAGE.replace("tiny", "idle") + MODEL,
        "package idle: no model uses it",
    ),
    "a file above the folder": (PACKAGE + MODEL.replace("tiny/model.onnx", "../x"), "file: '../x', expected"),
    "an absolute file": (PACKAGE + MODEL.replace("tiny/model.onnx", "/etc/x"), "file: '/etc/x', expected"),
    "a result in a folder": (
        PACKAGE + MODEL.replace('files = { "model.onnx"', 'files = { "a/model.onnx"'),
        "model net: files: 'a/model.onnx', expected",
    ),
    "two models of a name": (PACKAGE + MODEL + MODEL, "net: named twice"),
    "a model with the name of a set": (PACKAGE + MODEL.replace('"things"', '"net"'), "net: named twice"),
    "a name with a slash": (PACKAGE + MODEL.replace('"net"', '"a/b"'), "model number 1: name: 'a/b', expected"),
    "no sources": (MODEL.replace(_line("sources"), "sources = {}"), "model net: sources: none"),
    "no files": (PACKAGE + MODEL.replace(_line("files"), ""), "model net: files: none"),
    "another protocol": (
        MODEL.replace(_line("sources"), f'sources.a = {{ url = "ftp://x/a", sha256 = "{DIGEST}", size = 3 }}'),
        "sources a: url: 'ftp://x/a', expected",
    ),
}


@pytest.mark.parametrize(("text", "told"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_with_its_place(read, text, told) -> None:
    with pytest.raises(ManifestError, match=told):
        read(text)


def test_a_manifest_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(ManifestError, match=r"gone\.toml"):
        read_manifest(tmp_path / "gone.toml")


@pytest.mark.parametrize("name", ["nothing", "graph"])
def test_what_is_no_converter_is_refused(name) -> None:
    with pytest.raises(ManifestError, match=f"'{name}'"):
        converter(name)
