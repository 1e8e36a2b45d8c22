"""The frames that follow a run's opening, sorted by pin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mediamesh.agent.pipe import Pipe
from mediamesh.api.agent.v1.pin_pb2 import PinType
from mediamesh.wire.chunks import media_of
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.modalities import refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from mediamesh.api.agent.v1.agent_service_pb2 import PinChunk, RunRequest
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.stream.v1.chunk_pb2 import Chunk

__all__ = ["Inbox"]

_CHUNKS, _BYTES = 64, 2 * 1024 * 1024


class Inbox:
    """The stream inputs of one run: a bounded queue each, so that a slow agent slows its caller.

    Attributes:
        connected: Pins that the caller feeds.
    """

    def __init__(self, manifest: Manifest, connected: Collection[str]) -> None:
        self._manifest = manifest
        self._pins = {pin.name: pin for pin in manifest.inputs if pin.type == PinType.PIN_TYPE_STREAM}
        self._pipes: dict[str, Pipe[Chunk]] = {pin: Pipe(messages=_CHUNKS, size_bytes=_BYTES) for pin in self._pins}
        self._sequences = dict.fromkeys(self._pipes, 0)
        self.connected = frozenset(connected)
        for pin in self._pipes.keys() - set(connected):
            self._pipes[pin].close()

    def stream(self, pin: str) -> AsyncIterator[Chunk]:
        """Return the chunks of a pin; none where an optional pin is not connected."""
        return self._pipes[pin]

    async def fill(self, frames: AsyncIterator[RunRequest]) -> None:
        """Take the frames until the caller is done.

        Raises:
            InvalidRequest: a frame is not what the contract has at its place.
            MultimodalNotSupported: a chunk carries media that the module does not take.
        """
        async for frame in frames:
            match frame.WhichOneof("message"):
                case "chunk":
                    await self._take(frame.chunk)
                case "end":
                    self._open(frame.end.pin, "end").close()
                case _:
                    raise InvalidRequest.of_field("open", "comes first and only once")
        if missing := [pin for pin, pipe in self._pipes.items() if not pipe.closed]:
            raise InvalidRequest.of_fields((f"end.{pin}", "never came: the stream broke off") for pin in missing)

    async def _take(self, frame: PinChunk) -> None:
        pipe = self._open(frame.pin, "chunk")
        expected = self._sequences[frame.pin] + 1
        if frame.chunk.sequence_number != expected:
            raise InvalidRequest.of_field(
                "chunk.chunk.sequence_number",
                f"must be {expected} on pin {frame.pin}, is {frame.chunk.sequence_number}",
            )
        media = media_of(frame.chunk)
        if media is not None and (error := refusal(self._manifest, self._pins[frame.pin], media.media_type)):
            raise error
        self._sequences[frame.pin] = expected
        await pipe.put(frame.chunk)

    def _open(self, pin: str, frame: str) -> Pipe[Chunk]:
        pipe = self._pipes.get(pin)
        if pipe is None or pipe.closed:
            raise InvalidRequest.of_field(f"{frame}.pin", f"{pin} is none of the run's stream_inputs, or has ended")
        return pipe
