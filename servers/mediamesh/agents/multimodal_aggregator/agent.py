"""The agent: reads its inputs side by side, merges them, and emits in order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import struct_pb2

from mediamesh.agent import Agent
from mediamesh.agents.multimodal_aggregator.merge import Merge
from mediamesh.agents.multimodal_aggregator.patience import Patience
from mediamesh.agents.multimodal_aggregator.results import Result, images, result_of
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mediamesh.agent import Output, Run
    from mediamesh.agents.multimodal_aggregator.merge import Merged

__all__ = ["MultimodalAggregator"]

_OUT = "combined_stream"
_STREAMS = {"audio": "audio_stream", "video": "video_stream"}
_IMAGE = "image"


class MultimodalAggregator(Agent):
    """Merges what images, audio and video gave."""

    async def process(self, run: Run) -> Mapping[str, Output]:
        """Emit ``combined_stream`` while the inputs come; give ``summary`` when all have ended."""
        return {"summary": await _Merging(run).all()}


@dataclass(slots=True)
class _Told:
    """What the summary says of a source."""

    items: int = 0
    late: int = 0
    first: float | None = None
    last: float | None = None

    def count(self, merged: Merged[struct_pb2.Struct]) -> None:
        self.items += 1
        self.late += merged.late
        self.first = merged.time if self.first is None else min(self.first, merged.time)
        self.last = merged.time if self.last is None else max(self.last, merged.time)

    def as_json(self) -> dict[str, Any]:
        return {"items": self.items, "late": self.late, "first": self.first, "last": self.last}


class _Merging:
    """The merge of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._merge: Merge[struct_pb2.Struct] = Merge(
            (_IMAGE, *_STREAMS), max_delay=run.params["max_delay"], max_items=run.whole("max_items")
        )
        self._told = {source: _Told() for source in (_IMAGE, *_STREAMS)}
        # Room for one: while the reader of what goes out is slow, nothing more is taken in.
        self._news: asyncio.Queue[tuple[str, Result | None]] = asyncio.Queue(1)
        self._patience = Patience(_STREAMS, run.params["patience"])

    async def all(self) -> dict[str, Any]:
        pictures = images(self._run.inputs["image_results"]) if "image_results" in self._run.inputs else []
        for data in pictures:
            await self._emit(self._merge.add(_IMAGE, data.fields["time"].number_value, data))
        await self._emit(self._merge.end(_IMAGE))
        async with asyncio.TaskGroup() as tasks:
            for source, pin in _STREAMS.items():
                tasks.create_task(self._read(source, pin))
            await self._take_all()
        told = self._told.values()
        return {
            "items": sum(source.items for source in told),
            "late": sum(source.late for source in told),
            "held_most": self._merge.held_most,
            "sources": {name: source.as_json() for name, source in self._told.items() if source.items},
        }

    async def _read(self, source: str, pin: str) -> None:
        async for chunk in self._run.stream(pin):
            if (result := result_of(pin, chunk)) is not None:
                await self._news.put((source, result))
        await self._news.put((source, None))

    async def _take_all(self) -> None:
        ended = 0
        while ended < len(_STREAMS):
            with self._patience.waiting() as limit:
                try:
                    async with asyncio.timeout(limit):
                        source, result = await self._news.get()
                except TimeoutError:
                    source, result = "", None
            if not source:
                for silent in self._patience.silent():
                    await self._emit(self._merge.idle(silent))
            elif result is None:
                ended += 1
                self._patience.ended(source)
                await self._emit(self._merge.end(source))
            else:
                self._patience.heard(source)
                await self._emit(self._taken(source, result))

    def _taken(self, source: str, result: Result) -> list[Merged[struct_pb2.Struct]]:
        if result.partial and not self._run.params["partials"]:
            return self._merge.advance(source, result.watermark)
        return self._merge.add(source, result.time, result.data, watermark=result.watermark)

    async def _emit(self, released: Sequence[Merged[struct_pb2.Struct]]) -> None:
        for merged in released:
            self._told[merged.source].count(merged)
            await self._run.emit(_OUT, _combined(merged))


def _combined(merged: Merged[struct_pb2.Struct]) -> Chunk:
    told = struct_pb2.Struct()
    told.update({"type": "combined", "time": merged.time, "source": merged.source, "late": merged.late})
    told.fields["result"].struct_value.CopyFrom(merged.item)
    return Chunk(snapshot=Snapshot(data=struct_pb2.Value(struct_value=told)))
