"""Activity recognition: a rule of thumb over motion and objects, no model that was trained for it.

Motion is the share of the picture, in blocks, that changed since the frame analysed before. What is seen and how much
moves, on the average over the last two seconds, is held against a table; the entry with the most evidence wins.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.agents.video_analyzer.analysis import Analysis, Picture
from mediamesh.agents.video_analyzer.coco import ANIMALS, VEHICLES
from mediamesh.agents.video_analyzer.detection import ObjectDetection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.agents.video_analyzer.analysis import Array, Facts
    from mediamesh.agents.video_analyzer.video import Frame

__all__ = ["ActivityRecognition", "likeliest", "motion_between"]

_WINDOW_SECONDS = 2.0
_MOST_FRAMES = 256  # of a window
_MOST_SPANS = 500  # of a summary
_BLOCK = 8  # pixels of the small picture
_CHANGE = 10.0  # levels of 255 by which a block that changed differs
_LIVELY = 0.1  # share of the picture that changes where things move for certain

_PERSON = frozenset({"person"})
_BALLS = frozenset({"sports ball", "baseball bat", "baseball glove", "tennis racket", "frisbee"})
_MEALS = frozenset({"fork", "knife", "spoon", "bowl", "wine glass", "cup", "pizza", "sandwich", "cake", "hot dog"})


@dataclass(frozen=True, slots=True)
class _Rule:
    """An activity, and what speaks for it.

    Attributes:
        label: Its name.
        kinds: Sets of objects; of each, one must be there.
        moving: Whether it needs motion (True), rest (False) or neither.
        weight: How much its evidence counts beside that of others: what says less weighs less.
    """

    label: str
    kinds: tuple[frozenset[str], ...] = ()
    moving: bool | None = None
    weight: float = 1.0


_RULES = (
    _Rule("cycling", (_PERSON, frozenset({"bicycle"})), moving=True),
    _Rule("motorcycling", (_PERSON, frozenset({"motorcycle"})), moving=True),
    _Rule("horse riding", (_PERSON, frozenset({"horse"})), moving=True),
    _Rule("skateboarding", (_PERSON, frozenset({"skateboard"})), moving=True),
    _Rule("surfing", (_PERSON, frozenset({"surfboard"})), moving=True),
    _Rule("skiing", (_PERSON, frozenset({"skis", "snowboard"})), moving=True),
    _Rule("playing with a ball", (_PERSON, _BALLS), moving=True),
    _Rule("working at a computer", (_PERSON, frozenset({"laptop", "keyboard", "mouse"}))),
    _Rule("using a phone", (_PERSON, frozenset({"cell phone"}))),
    _Rule("reading", (_PERSON, frozenset({"book"})), moving=False),
    _Rule("eating or drinking", (_PERSON, _MEALS)),
    _Rule("sitting", (_PERSON, frozenset({"chair", "couch", "bench"})), moving=False),
    _Rule("traffic", (VEHICLES,), moving=True, weight=0.8),
    _Rule("animal moving", (ANIMALS,), moving=True, weight=0.8),
    _Rule("person moving", (_PERSON,), moving=True, weight=0.6),
    _Rule("person at rest", (_PERSON,), moving=False, weight=0.6),
    _Rule("something moving", moving=True, weight=0.2),
    _Rule("nothing happening", moving=False, weight=0.2),
)


class ActivityRecognition(Analysis):
    """What goes on, guessed.

    Args:
        objects: Finds what is seen.
    """

    def __init__(self, objects: ObjectDetection) -> None:
        self._objects = objects
        self.model, self.input_name = objects.model, objects.input_name
        self._before: Array | None = None
        self._window: deque[tuple[float, float, Mapping[str, float]]] = deque(maxlen=_MOST_FRAMES)
        self._spans: list[dict[str, Any]] = []
        self._motions = 0.0
        self._frames = 0

    def prepare(self, frame: Frame) -> Picture:
        """Prepare the frame as the detection of objects does, and keep its outline."""
        picture = self._objects.prepare(frame)
        picture.outline = _outline(picture.tensor[0, 1])
        return picture

    def tell(self, picture: Picture, outputs: Mapping[str, Array]) -> Facts:
        """Return ``objects``, ``motion``, and the likeliest ``activity`` of the last two seconds."""
        facts = self._objects.tell(picture, outputs)
        motion = motion_between(self._before, picture.outline)
        self._before = picture.outline
        scores: dict[str, float] = {}
        for one in reversed(facts["objects"]):  # best first, so the best of a kind stays
            scores[one["label"]] = one["score"]
        self._window.append((picture.time, motion, scores))
        while self._window[0][0] < picture.time - _WINDOW_SECONDS:
            self._window.popleft()
        label, score = likeliest([(motion, scores) for _, motion, scores in self._window])
        self._note(picture.time, label, score)
        self._motions, self._frames = self._motions + motion, self._frames + 1
        return {**facts, "motion": round(motion, 4), "activity": {"label": label, "score": round(score, 4)}}

    def summary(self) -> Facts:
        """Return what went on when: ``activities`` one after the other, and the average ``motion``."""
        motion = round(self._motions / max(1, self._frames), 4)
        return {"activities": self._spans, "motion": motion, **self._objects.summary()}

    def _note(self, time: float, label: str, score: float) -> None:
        last = self._spans[-1] if self._spans else None
        if last is None or (last["label"] != label and len(self._spans) < _MOST_SPANS):
            self._spans.append({"label": label, "start": time, "end": time, "score": round(score, 4)})
        elif last["label"] == label:
            last["end"], last["score"] = time, max(last["score"], round(score, 4))


def motion_between(before: Array | None, after: Array | None) -> float:
    """Return which share of the blocks of a picture changed, 0 to 1; 0 for the first of a video."""
    if before is None or after is None or before.shape != after.shape:
        return 0.0
    return float((np.abs(after - before) > _CHANGE).mean())


def likeliest(window: list[tuple[float, Mapping[str, float]]]) -> tuple[str, float]:
    """Return the activity with the most evidence, and the evidence, 0 to 1.

    Args:
        window: Motion and best score of each kind of object, for each frame of the last seconds.
    """
    lively = min(1.0, sum(motion for motion, _ in window) / len(window) / _LIVELY)

    def evidence(rule: _Rule) -> float:
        seen = [
            sum(max((scores.get(kind, 0.0) for kind in kinds), default=0.0) for _, scores in window) / len(window)
            for kinds in rule.kinds
        ]
        moves = {True: lively, False: 1 - lively, None: 1.0}[rule.moving]
        return min([*seen, 1.0]) * moves

    rule = max(_RULES, key=lambda rule: rule.weight * evidence(rule))
    return rule.label, evidence(rule)


def _outline(pixels: Array) -> Array:
    """Return the means of the blocks of a picture, float32."""
    rows, columns = (side // _BLOCK for side in pixels.shape)
    blocks = pixels.reshape(rows, _BLOCK, columns, _BLOCK)
    means: Array = blocks.mean(axis=(1, 3), dtype=np.float32)
    return means
