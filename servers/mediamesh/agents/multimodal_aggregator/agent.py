"""The agent: reads its inputs side by side, merges them, and emits in order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import struct_pb2

from mediamesh.agent import Agent
from mediamesh.agents.multimodal_aggregator.merge import Merge
from mediamesh.agents.multimodal_aggregator.results import images, result_of
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
        # Held while results go out: they stay in order, and while the reader is slow nothing is taken in.
        self._turn = asyncio.Lock()

    async def all(self) -> dict[str, Any]:
        pictures = images(self._run.inputs["image_results"]) if "image_results" in self._run.inputs else []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_images(pictures))
            for source, pin in _STREAMS.items():
                tasks.create_task(self._take_stream(source, pin))
        told = self._told.values()
        return {
            "items": sum(source.items for source in told),
            "late": sum(source.late for source in told),
            "held_most": self._merge.held_most,
            "sources": {name: source.as_json() for name, source in self._told.items() if source.items},
        }

    async def _take_images(self, pictures: Sequence[struct_pb2.Struct]) -> None:
        async with self._turn:
            for data in pictures:
                await self._emit(self._merge.add(_IMAGE, data.fields["time"].number_value, data))
            await self._emit(self._merge.end(_IMAGE))

    async def _take_stream(self, source: str, pin: str) -> None:
        partials = self._run.params["partials"]
        async for chunk in self._run.stream(pin):
            result = result_of(pin, chunk)
            if result is None:
                continue
            async with self._turn:
                if result.partial and not partials:
                    await self._emit(self._merge.advance(source, result.watermark))
                else:
                    await self._emit(self._merge.add(source, result.time, result.data, watermark=result.watermark))
        async with self._turn:
            await self._emit(self._merge.end(source))

    async def _emit(self, released: Sequence[Merged[struct_pb2.Struct]]) -> None:
        for merged in released:
            self._told[merged.source].count(merged)
            await self._run.emit(_OUT, _combined(merged))


def _combined(merged: Merged[struct_pb2.Struct]) -> Chunk:
    told = struct_pb2.Struct()
    told.update({"type": "combined", "time": merged.time, "source": merged.source, "late": merged.late})
    told.fields["result"].struct_value.CopyFrom(merged.item)
    return Chunk(snapshot=Snapshot(data=struct_pb2.Value(struct_value=told)))
