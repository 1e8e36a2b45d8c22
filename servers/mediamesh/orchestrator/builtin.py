"""The nodes that the orchestrator knows by itself: the client's ends of a flow."""

from __future__ import annotations

from mediamesh.api.agent.v1 import manifest_pb2, pin_pb2

__all__ = ["AUDIO_RECORDER", "BUILTIN", "OPEN_END", "OPEN_PINS", "SINKS", "SOURCES"]

_VERSION = "1.0.0"
_RUNTIME = "mediamesh-client"
FILE_UPLOAD, AUDIO_RECORDER = "ui.file-upload", "ui.audio-recorder"
STREAM_CONSOLE, STREAM_VIEWER = "ui.stream-console", "ui.stream-viewer"

# What the client fills, and what it shows.
SOURCES = frozenset({FILE_UPLOAD, AUDIO_RECORDER})
SINKS = frozenset({STREAM_CONSOLE, STREAM_VIEWER})
# The one pin of each.
OPEN_END = {FILE_UPLOAD: "file", AUDIO_RECORDER: "audio", STREAM_CONSOLE: "input", STREAM_VIEWER: "input"}
# Pins that take the type and the constraints of the pin at the other end of their first edge.
OPEN_PINS = frozenset({(FILE_UPLOAD, "file"), (STREAM_CONSOLE, "input"), (STREAM_VIEWER, "input")})


def _source(agent_id: str, pin: str, kind: pin_pb2.PinType.ValueType, description: str) -> manifest_pb2.Manifest:
    return manifest_pb2.Manifest(
        id=agent_id,
        version=_VERSION,
        runtime=_RUNTIME,
        description=description,
        outputs=[pin_pb2.Pin(name=pin, type=kind, description="What the client gave.")],
    )


def _sink(agent_id: str, description: str) -> manifest_pb2.Manifest:
    shown = pin_pb2.Pin(
        name="input", type=pin_pb2.PIN_TYPE_JSON, description="What is shown; of the type of the pin that feeds it."
    )
    return manifest_pb2.Manifest(
        id=agent_id, version=_VERSION, runtime=_RUNTIME, description=description, inputs=[shown]
    )


BUILTIN = {
    manifest.id: manifest
    for manifest in (
        _source(
            FILE_UPLOAD,
            "file",
            pin_pb2.PIN_TYPE_BINARY,
            "A file from the client, of the type of the pin it feeds.",
        ),
        _source(AUDIO_RECORDER, "audio", pin_pb2.PIN_TYPE_AUDIO, "A recording from the client's microphone."),
        _sink(STREAM_CONSOLE, "Shows values and streams as text at the client."),
        _sink(STREAM_VIEWER, "Shows values and streams as pictures at the client."),
    )
}
