"""What lines of text say: batches for PP-OCR's models, and what their outputs mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mediamesh.agents.document_reader.crops import LINE_HEIGHT
from mediamesh.agents.document_reader.detection import tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    FloatArray = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["by_width", "decoded", "line_batch", "orientation_batch", "upside_down"]

_LEAST_WIDTH = 320  # narrower lines were padded so far in training
_STEP = 64  # widths of batches are multiples of it, so that requests of many runs make batches of one shape
_MOST_COLUMNS = 12_800  # of a batch, all its lines together: 7 MB of float32
_ORIENTATION_SIZE = (192, LINE_HEIGHT)
_SURE = 0.9  # a line is turned only where the model is


def by_width(widths: Sequence[int], *, most: int) -> Iterator[tuple[list[int], int]]:
    """Yield batches: the numbers of lines of about the same width, and the width to pad them to.

    Args:
        widths: Of the lines.
        most: Most lines in a batch.
    """
    batch: list[int] = []
    padded = 0
    for number in sorted(range(len(widths)), key=widths.__getitem__):
        wanted = max(_LEAST_WIDTH, -(-widths[number] // _STEP) * _STEP)
        if batch and (wanted != padded or len(batch) == most or (len(batch) + 1) * wanted > _MOST_COLUMNS):
            yield batch, padded
            batch = []
        padded = wanted
        batch.append(number)
    if batch:
        yield batch, padded


def line_batch(lines: Sequence[Image.Image], width: int) -> FloatArray:
    """Return lines as the recogniser takes them, [lines, 3, 48, width]; padding is 0, a middle grey."""
    values = np.zeros((len(lines), 3, LINE_HEIGHT, width), np.float32)
    for number, line in enumerate(lines):
        values[number, :, :, : line.width] = tensor(line)
    return values


def orientation_batch(lines: Sequence[Image.Image]) -> FloatArray:
    """Return lines as the model of orientation takes them, [lines, 3, 48, 192], long ones squeezed."""
    width, height = _ORIENTATION_SIZE
    values = np.zeros((len(lines), 3, height, width), np.float32)
    for number, line in enumerate(lines):
        narrow = line if line.width <= width else line.resize(_ORIENTATION_SIZE, Image.Resampling.BILINEAR)
        values[number, :, :, : narrow.width] = tensor(narrow)
    return values


def upside_down(probabilities: FloatArray) -> list[bool]:
    """Return which lines are, from the probabilities of 0 and of 180 degrees, [lines, 2]."""
    return [bool(turned > _SURE) for turned in probabilities[:, 1]]


def decoded(
    classes: np.ndarray[Any, Any], probabilities: FloatArray, characters: np.ndarray[Any, Any]
) -> tuple[str, float]:
    """Return text and mean probability of a line by the best path of CTC (Graves et al. 2006).

    Args:
        classes: Likeliest class at each place, [places]; 0 is the blank.
        probabilities: Its probability, [places].
        characters: Its character in UTF-8, [places].
    """
    kept = np.concatenate([[True], classes[1:] != classes[:-1]]) & (classes != 0)
    if not kept.any():
        return "", 0.0
    return b"".join(characters[kept]).decode(), float(probabilities[kept].mean())
