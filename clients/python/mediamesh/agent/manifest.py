"""Manifests: ``manifest.yaml`` read into the contract's message, every fault named with its line.

Keys are the message's fields, as in JSON (``longRunning``, ``maxSize``) or as in the proto file. Amounts may have
units: ``maxSize: 10MB``, ``ttl: 1h``; ``mimeType: image/jpeg,image/png`` lists media types; a resource profile of which
only the name is given is one of the built-in ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import protovalidate
import yaml

from mediamesh.agent.document import Document
from mediamesh.agent.profiles import built_in_profiles
from mediamesh.api.agent.v1.manifest_pb2 import Manifest, ResourceProfile, ResponseMode
from mediamesh.api.agent.v1.pin_pb2 import PinType
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.modalities import MODALITIES
from mediamesh.wire.pins import MEDIA_TYPES, check_value, plain_value, type_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from mediamesh.api.agent.v1.pin_pb2 import Pin

__all__ = ["InvalidManifest", "load_manifest", "manifest_problems", "parse_manifest"]

Problem = tuple[str, str]  # the path of a field in the message, and what is wrong with it
_LIMIT_BYTES = 1024 * 1024


class InvalidManifest(InvalidRequest):
    """A manifest is not what the contract says; one violation for each fault."""


def load_manifest(path: Path) -> Manifest:
    """Read, check and return a manifest.

    Raises:
        InvalidManifest: it is missing or wrong.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT_BYTES + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidManifest.of_field(str(path), f"cannot be read: {error}") from None
    if len(content) > _LIMIT_BYTES:
        raise InvalidManifest.of_field(str(path), f"is larger than {_LIMIT_BYTES} bytes")
    return parse_manifest(text, source=str(path))


def parse_manifest(text: str, source: str = "manifest.yaml") -> Manifest:
    """Return the manifest that the YAML text spells, checked.

    Args:
        text: The content of a ``manifest.yaml``.
        source: What errors call the text.

    Raises:
        InvalidManifest: all faults at once; the field of each is ``file:line: path``.
    """
    try:
        document = Document.of(text)
    except yaml.YAMLError as error:
        raise InvalidManifest.of_field(source, f"is no YAML: {error}") from None
    manifest = Manifest()
    problems = document.read_into(manifest)
    if not problems:
        _fill_profiles(manifest)
        problems = manifest_problems(manifest)
    if problems:
        raise InvalidManifest.of_fields((f"{source}:{document.place(path)}", text) for path, text in problems)
    return manifest


def manifest_problems(manifest: Manifest) -> list[Problem]:
    """Return what is wrong with a manifest, wherever it came from: pairs of a field's path and what it must be."""
    return [*_broken_rules(manifest), *_contradictions(manifest)]


def _fill_profiles(manifest: Manifest) -> None:
    built_in = built_in_profiles()
    for profile in manifest.resources.profiles:
        if profile == ResourceProfile(name=profile.name) and profile.name in built_in:
            profile.CopyFrom(built_in[profile.name])


def _broken_rules(manifest: Manifest) -> Iterator[Problem]:
    try:
        protovalidate.validate(manifest)
    except protovalidate.ValidationError as error:
        for violation in error.violations:
            yield _path(violation.proto), violation.proto.message


def _path(violation: Any) -> str:
    elements = violation.field.elements if violation.field is not None else ()
    return ".".join(
        f"{element.field_name}[{element.subscript.value}]" if element.subscript else element.field_name
        for element in elements
    )


def _contradictions(manifest: Manifest) -> Iterator[Problem]:
    for field in ("inputs", "outputs", "params"):
        yield from _twice(field, getattr(manifest, field))
    for field in ("inputs", "outputs"):
        for index, pin in enumerate(getattr(manifest, field)):
            if pin.HasField("default_value"):
                yield f"{field}[{index}].default_value", "only parameters have defaults"
    for index, pin in enumerate(manifest.params):
        yield from ((f"params[{index}]{path}", text) for path, text in _param_problems(pin))
    yield from _declarations(manifest)
    for index, profile in enumerate(manifest.resources.profiles):
        if not (profile.cpu and profile.memory):
            known = ", ".join(built_in_profiles())
            yield f"resources.profiles[{index}]", f"needs cpu and memory, or to be a built-in profile: {known}"


def _declarations(manifest: Manifest) -> Iterator[Problem]:
    streams = any(pin.type == PinType.PIN_TYPE_STREAM for pin in manifest.outputs)
    at_once = {ResponseMode.RESPONSE_MODE_UNSPECIFIED, ResponseMode.RESPONSE_MODE_SYNC}
    if manifest.response.mode not in at_once and not streams:
        yield "response.mode", "needs an output pin of the type stream"
    for field in ("input", "output"):
        for index, name in enumerate(getattr(manifest.modalities, field)):
            if name not in MODALITIES:
                yield f"modalities.{field}[{index}]", f"must be one of {', '.join(MODALITIES)}; is {name!r}"


def _twice(field: str, pins: Iterable[Pin]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, pin in enumerate(pins):
        if pin.name in seen:
            yield f"{field}[{index}].name", f"{pin.name} is there twice"
        seen.add(pin.name)


def _param_problems(pin: Pin) -> Iterator[Problem]:
    if pin.type in {*MEDIA_TYPES, PinType.PIN_TYPE_STREAM, PinType.PIN_TYPE_BINARY}:
        yield ".type", f"a parameter is string, number, boolean or json, not {type_name(pin.type)}"
        return
    if pin.HasField("default_value"):
        value = plain_value(pin, pin.default_value)
        yield from ((".default_value", violation.text) for violation in check_value(pin, value))
