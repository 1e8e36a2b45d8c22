"""Runs models on inference servers, ours or Triton's: numpy in, numpy out.

Needs numpy, which ``pip install mediamesh`` alone does not bring.
"""

from __future__ import annotations

from mediamesh.client.inference.answers import Answer
from mediamesh.client.inference.classes import ScoredClass
from mediamesh.client.inference.client import InferenceClient
from mediamesh.client.inference.models import Models
from mediamesh.client.inference.sequence import Sequence
from mediamesh.client.inference.shared_memory import SharedTensor, SharedTensors

__all__ = ["Answer", "InferenceClient", "Models", "ScoredClass", "Sequence", "SharedTensor", "SharedTensors"]
