"""Triton's trace settings, mapped on OpenTelemetry: which share of the traces that begin here is recorded.

``trace_level`` is TIMESTAMPS (spans are recorded) or OFF; ``trace_rate`` N records one in N. They hold for the whole
process, and only where spans have a place to go (``MEDIAMESH_OTLP_ENDPOINT``). All else is read-only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from mediamesh.kit.telemetry import AdjustableSampler
from mediamesh.wire.errors import FailedPrecondition, InvalidRequest, NotImplementedByServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["TraceSettings"]

_LEVEL, _RATE = "trace_level", "trace_rate"
_OFF, _ON = "OFF", "TIMESTAMPS"
# As Triton says them of traces that go to OpenTelemetry: without limit, not to a file.
_FIXED = {
    "trace_count": ("-1",),
    "log_frequency": ("0",),
    "trace_file": ("",),
    "trace_mode": ("opentelemetry",),
}
_MOST_RATE = 1 << 31


class TraceSettings:
    """What of the traces of this process is recorded."""

    def __init__(self) -> None:
        # What a setting without a value goes back to.
        sampler = _sampler()
        self._default = sampler.ratio if sampler is not None else 0.0

    def values(self) -> dict[str, Sequence[str]]:
        """Return all settings."""
        sampler = _sampler()
        ratio = sampler.ratio if sampler is not None else 0.0
        rate = str(round(1 / ratio)) if ratio else "0"
        return {_LEVEL: [_ON if ratio else _OFF], _RATE: [rate], **_FIXED}

    def change(self, given: Mapping[str, Sequence[str]], model: str = "") -> dict[str, Sequence[str]]:
        """Change settings, all or none, and return all.

        Args:
            given: New values by name; none of a setting takes it back to what it was at the start.
            model: The model to change it for; only the whole server can be changed.

        Raises:
            InvalidRequest: there is no such setting, or its value is none of it; names it.
            NotImplementedByServer: the setting cannot be changed here.
            FailedPrecondition: spans have nowhere to go.
        """
        if not given:
            return self.values()
        if model:
            raise NotImplementedByServer("Traces are set for the whole server, not for one model.", model=model)
        for name, values in given.items():
            _check(name, values)
        sampler = _sampler()
        if sampler is None:
            raise FailedPrecondition(
                "Nothing is traced, as spans have nowhere to go: start the server with MEDIAMESH_OTLP_ENDPOINT."
            )
        sampler.ratio = self._ratio(given, sampler.ratio)
        return self.values()

    def _ratio(self, given: Mapping[str, Sequence[str]], now: float) -> float:
        ratio = now or self._default or 1.0
        if _RATE in given:
            rate = given[_RATE]
            ratio = (1 / int(rate[0]) if int(rate[0]) else 0.0) if rate else self._default
        if _LEVEL in given:
            level = given[_LEVEL]
            return (ratio if level[0] == _ON else 0.0) if level else (ratio if self._default else 0.0)
        return ratio if now else 0.0


def _sampler() -> AdjustableSampler | None:
    provider = trace.get_tracer_provider()
    sampler = provider.sampler if isinstance(provider, TracerProvider) else None
    return sampler if isinstance(sampler, AdjustableSampler) else None


def _check(name: str, values: Sequence[str]) -> None:
    field = f"settings[{name!r}]"
    match name:
        case "trace_level":
            is_known = list(values) in ([], [_ON], [_OFF])
            expected = f"{_ON} or {_OFF}; tensors are not traced"
        case "trace_rate":
            is_known = not values or (
                len(values) == 1 and values[0].isascii() and values[0].isdecimal() and int(values[0][:20]) < _MOST_RATE
            )
            expected = f"one number from 0 to {_MOST_RATE - 1}"
        case _ if name in _FIXED:
            if values and tuple(values) != _FIXED[name]:
                raise NotImplementedByServer(f"{name} cannot be changed; it is {_FIXED[name][0]!r}.", setting=name)
            return
        case _:
            known = ", ".join((_LEVEL, _RATE, *_FIXED))
            raise InvalidRequest.of_field(field, f"is no trace setting; there are {known}")
    if not is_known:
        raise InvalidRequest.of_field(field, f"is {list(values)}, expected {expected}")
