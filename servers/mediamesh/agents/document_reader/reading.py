"""Reads the text in a picture with the models of PP-OCR on an inference server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mediamesh.agents.document_reader.crops import crop, lengthwise, line_width
from mediamesh.agents.document_reader.detection import boxes, detector_input
from mediamesh.agents.document_reader.layout import Line, along_most
from mediamesh.agents.document_reader.recognition import (
    by_width,
    decoded,
    line_batch,
    orientation_batch,
    upside_down,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mediamesh.agents.document_reader.rectangles import Points
    from mediamesh.client.inference import InferenceClient

__all__ = ["Reading", "TextModels"]

_MOST_LINES = 16  # of a batch: what the models take
_IN_FLIGHT = 3  # batches of a page at once: one is cut out while one is read and one waits at the server
_SURE = 0.5  # what is read with less is no text
_RECOGNISED = ("class", "probability", "character")
_ORIENTATION = "save_infer_model/scale_0.tmp_1"


@dataclass(frozen=True, slots=True)
class TextModels:
    """Names of the models on the inference server: where text is, what it says, whether it is upside down."""

    detector: str
    recogniser: str
    orientation: str


class Reading:
    """Reads one picture.

    Args:
        inference: The server that has the models.
        models: Their names there.
        picture: In RGB.
        time_left: Tells the seconds that are left.
    """

    def __init__(
        self,
        inference: InferenceClient,
        models: TextModels,
        picture: Image.Image,
        time_left: Callable[[], float | None],
    ) -> None:
        self._inference, self._models, self._picture = inference, models, picture
        self._time_left = time_left

    async def lines(self) -> list[Line]:
        """Return the lines in no particular order.

        A line that is found to point otherwise than most of the page is read both ways: the model of orientation errs
        more often than pages have such lines.
        """
        lines = await self._read_all(await self._boxes(), turning=True)
        if lines:
            usual = along_most([line.box for line in lines])
            doubtful = [number for number, same in enumerate(usual) if not same]
            others = await self._read_all([_turned(lines[number].box) for number in doubtful], turning=False)
            for number, other in zip(doubtful, others, strict=True):
                lines[number] = max(lines[number], other, key=lambda line: line.score)
        return [line for line in lines if line.score >= _SURE and line.text.strip()]

    async def _boxes(self) -> list[Points]:
        values = await asyncio.to_thread(detector_input, self._picture)
        likely = await self._infer(self._models.detector, values)
        found = await asyncio.to_thread(boxes, likely["fetch_name_0"][0, 0], self._picture.size)
        return [lengthwise(box) for box in found]

    async def _read_all(self, found: Sequence[Points], *, turning: bool) -> list[Line]:
        """Return what is in each box; with ``turning``, of those that are upside down what they say turned round."""
        batches = by_width([line_width(box) for box in found], most=_MOST_LINES)
        lines: dict[int, Line] = {}
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_IN_FLIGHT):
                tasks.create_task(self._take(batches, found, lines, turning=turning))
        return [lines[number] for number in range(len(found))]

    async def _take(
        self,
        batches: Iterator[tuple[list[int], int]],
        found: Sequence[Points],
        lines: dict[int, Line],
        *,
        turning: bool,
    ) -> None:
        for numbers, width in batches:
            chosen = [found[number] for number in numbers]
            cut = await asyncio.to_thread(self._cut, chosen)
            if turning:
                chosen, cut = await self._upright(chosen, cut)
            lines.update(zip(numbers, await self._recognise(chosen, cut, width), strict=True))

    def _cut(self, found: Sequence[Points]) -> list[Image.Image]:
        return [crop(self._picture, box) for box in found]

    async def _upright(
        self, found: Sequence[Points], cut: Sequence[Image.Image]
    ) -> tuple[list[Points], list[Image.Image]]:
        values = await asyncio.to_thread(orientation_batch, cut)
        flags = upside_down((await self._infer(self._models.orientation, values))[_ORIENTATION])
        return (
            [_turned(box) if flag else box for box, flag in zip(found, flags, strict=True)],
            [
                line.transpose(Image.Transpose.ROTATE_180) if flag else line
                for line, flag in zip(cut, flags, strict=True)
            ],
        )

    async def _recognise(self, found: Sequence[Points], cut: Sequence[Image.Image], width: int) -> list[Line]:
        values = await asyncio.to_thread(line_batch, cut, width)
        outputs = await self._infer(self._models.recogniser, values, _RECOGNISED)
        places = zip(*(outputs[name] for name in _RECOGNISED), strict=True)
        return [Line(*decoded(*line), box) for line, box in zip(places, found, strict=True)]

    async def _infer(self, model: str, values: np.ndarray[Any, Any], outputs: Sequence[str] = ()) -> Any:
        return await self._inference.infer(model, {"x": values}, outputs=outputs, timeout=self._time_left())


def _turned(box: Points) -> Points:
    return np.roll(box, 2, axis=0)
