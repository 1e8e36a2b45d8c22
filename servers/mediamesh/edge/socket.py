"""One WebSocket: objects go out as frames, frames come in as objects, and it ends with a code that says why."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocketDisconnect

from mediamesh.edge.metrics import COUNTS
from mediamesh.wire.binary_frames import unpack
from mediamesh.wire.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MeshError,
    Overloaded,
    StreamInterrupted,
    Unavailable,
)
from mediamesh.wire.strict_json import dumps, loads

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

__all__ = ["GOING_AWAY", "NORMAL", "BadFrame", "Socket", "code_of"]

NORMAL, NO_JSON, AGAINST_RULES, FAILED, GOING_AWAY, LATER = 1000, 1007, 1008, 1011, 1012, 1013
_GOODBYE_SECONDS = 2.0
_PASSING = (Unavailable, StreamInterrupted, Overloaded, DeadlineExceeded)


class BadFrame(Exception):
    """A frame that is no JSON, or breaks the rules: an error of the tree, and the code that closes the socket."""

    def __init__(self, error: InvalidRequest, code: int) -> None:
        super().__init__(error.text)
        self.error = error
        self.code = code


def code_of(error: MeshError) -> int:
    """Return the code that closes a socket because of an error: 1013 where coming back later helps."""
    if isinstance(error, _PASSING):
        return LATER
    return FAILED if type(error) is MeshError else AGAINST_RULES


class Socket:
    """A WebSocket that was accepted.

    Attributes:
        is_gone: Whether the other side has closed it, or cannot be reached.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self.is_gone = False

    async def send(self, spelled: Any) -> None:
        """Send an object in a frame of text; waits as `send_frame` does."""
        await self.send_frame(dumps(spelled))

    async def send_frame(self, frame: str | bytes) -> None:
        """Send a frame; wait while the other side reads too slowly. Nothing happens once it is gone."""
        if self.is_gone:
            return
        try:
            if isinstance(frame, str):
                await self._websocket.send_text(frame)
            else:
                await self._websocket.send_bytes(frame)
        except (WebSocketDisconnect, RuntimeError):
            # Starlette says so by one, or when it was told already by the other.
            self.is_gone = True
            return
        COUNTS.frames_out += 1
        COUNTS.bytes_out += len(frame)

    async def receive(self) -> tuple[Any, bytes | None] | None:
        """Return the next object and the bytes beside it; None when the other side is gone.

        Raises:
            BadFrame: the frame is no JSON.
        """
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            self.is_gone = True
            COUNTS.closed[message.get("code", 1005)] += 1
            return None
        text, frame = message.get("text"), message.get("bytes")
        COUNTS.frames_in += 1
        COUNTS.bytes_in += len(text or frame or b"")
        try:
            return unpack(frame) if frame is not None else (loads(text or ""), None)
        except InvalidRequest as error:
            raise BadFrame(error, NO_JSON) from None

    async def close(self, code: int, last: Any = None) -> None:
        """Send a last object, if there is one, and close; a side that does not read is left after two seconds."""
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                if last is not None:
                    await self.send(last)
                if not self.is_gone:
                    COUNTS.closed[code] += 1
                    await self._websocket.close(code)
        self.is_gone = True
