"""Triton's log settings, applied to the log of the whole process: which severities are written."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self, TypeAlias

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.wire.errors import InvalidRequest, NotImplementedByServer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LogSettings", "Value", "log_response", "log_values"]

Value: TypeAlias = bool | int | str
# Where and how lines are written is decided at start (MEDIAMESH_LOG_FORMAT), to standard error.
_FIXED: Mapping[str, Value] = {"log_file": "", "log_format": "default"}
_SWITCHES = {"log_error": logging.ERROR, "log_warning": logging.WARNING, "log_info": logging.INFO}
_VERBOSE = "log_verbose_level"
_KINDS = {bool: "true or false", int: "a number", str: "a text"}


class LogSettings:
    """What is written to the log, by everything in the process; a context manager that puts back what it found."""

    def __init__(self) -> None:
        self._off: frozenset[int] = frozenset()
        self._found = logging.getLogger().level

    def __enter__(self) -> Self:
        self._found = logging.getLogger().level
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.setLevel(self._found)
        for handler in root.handlers:
            handler.removeFilter(self._passes)

    def values(self) -> dict[str, Value]:
        """Return all settings."""
        level = logging.getLogger().level
        switches = {name: level <= severity and severity not in self._off for name, severity in _SWITCHES.items()}
        return {**_FIXED, **switches, _VERBOSE: int(level <= logging.DEBUG)}

    def change(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Change settings, all or none, and return all.

        Raises:
            InvalidRequest: there is no such setting, or its value is of another type; names it.
            NotImplementedByServer: the setting cannot be changed while the server runs.
        """
        wanted = self.values()
        for name, value in given.items():
            wanted[name] = _checked(name, value, wanted)
        if given:
            self._apply(wanted)
        return self.values()

    def _apply(self, wanted: Mapping[str, Value]) -> None:
        severities = [severity for name, severity in _SWITCHES.items() if wanted[name]]
        root = logging.getLogger()
        # A record more severe than one that is wanted passes the level, and is held back by the filter.
        root.setLevel(logging.DEBUG if wanted[_VERBOSE] else min(severities, default=logging.CRITICAL))
        self._off = frozenset(_SWITCHES.values()).difference(severities)
        for handler in root.handlers:
            handler.removeFilter(self._passes)
            handler.addFilter(self._passes)

    def _passes(self, record: logging.LogRecord) -> bool:
        return record.levelno not in self._off


def _checked(name: str, value: Value, known: Mapping[str, Value]) -> Value:
    if name not in known:
        raise InvalidRequest.of_field(f"settings[{name!r}]", f"is no log setting; there are {', '.join(sorted(known))}")
    if type(value) is not type(known[name]):
        raise InvalidRequest.of_field(f"settings[{name!r}]", f"is {value!r}, expected {_KINDS[type(known[name])]}")
    if name in _FIXED and value != _FIXED[name]:
        raise NotImplementedByServer(
            f"{name} cannot be changed while the server runs; it is {_FIXED[name]!r}: lines go to standard error, in "
            "the form that MEDIAMESH_LOG_FORMAT says.",
            setting=name,
        )
    return value


def log_values(settings: pb.LogSettingsRequest) -> dict[str, Value]:
    """Return the settings of a request as plain values.

    Raises:
        InvalidRequest: a setting has no value.
    """
    plain: dict[str, Value] = {}
    for name, value in settings.settings.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is None:
            raise InvalidRequest.of_field(f"settings[{name!r}]", "has no value")
        plain[name] = getattr(value, kind)
    return plain


def log_response(values: Mapping[str, Value]) -> pb.LogSettingsResponse:
    """Return settings as the answer to a request."""
    response = pb.LogSettingsResponse()
    for name, value in values.items():
        entry = response.settings[name]
        if isinstance(value, bool):
            entry.bool_param = value
        elif isinstance(value, int):
            entry.uint32_param = value
        else:
            entry.string_param = value
    return response
