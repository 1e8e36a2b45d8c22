"""What is given of a segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from mediamesh.agents.audio_transcriber.activity import FRAME_SECONDS
from mediamesh.agents.audio_transcriber.sound import RATE
from mediamesh.api.stream.v1.chunk_pb2 import Chunk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mediamesh.agents.audio_transcriber.segments import Segment
    from mediamesh.agents.audio_transcriber.words import Word

__all__ = ["LANGUAGE", "placed", "segment_of", "transcript_chunk"]

LANGUAGE = "en"


def placed(segment: Segment, words: Sequence[Word], begin: int) -> list[Word]:
    """Return words with their times in the whole sound, and no longer than there is speech.

    Args:
        segment: Where they are.
        words: With times from where they were heard.
        begin: Where that is, in samples.
    """
    moved = [word._replace(start=word.start + begin / RATE, end=word.end + begin / RATE) for word in words]
    return [_within_speech(segment, word) for word in moved]


def _within_speech(segment: Segment, word: Word) -> Word:
    """Leave out the silence at both ends: a step looks on at where it was until the next one moves."""
    origin = segment.start / RATE
    first = max(0, int((word.start - origin) / FRAME_SECONDS))
    beyond = min(len(segment.voiced), int((word.end - origin) / FRAME_SECONDS) + 1)
    voiced = [number for number in range(first, beyond) if segment.voiced[number]]
    if not voiced:
        return word
    start = max(word.start, origin + voiced[0] * FRAME_SECONDS)
    end = min(word.end, origin + (voiced[-1] + 1) * FRAME_SECONDS)
    return word._replace(start=start, end=max(start, end))


def segment_of(segment: Segment, words: Sequence[Word], *, final: bool) -> dict[str, Any]:
    """Return a segment as JSON has it; times in seconds from the start of the sound.

    Args:
        segment: Which.
        words: What was said in it.
        final: Whether it ends where it ends, or where it was heard until.
    """
    end = segment.end if final and segment.end is not None else segment.heard_until
    return {
        "segment": segment.index,
        "start": round(segment.start / RATE, 3),
        "end": round(end / RATE, 3),
        "text": " ".join(word.text for word in words),
        "words": [
            {
                "text": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "probability": round(word.probability, 3),
            }
            for word in words
        ],
        "language": LANGUAGE,
    }


def transcript_chunk(result: dict[str, Any], *, final: bool) -> Chunk:
    """Return a snapshot of a segment."""
    chunk = Chunk()
    json_format.ParseDict({"type": "transcript", "final": final} | result, chunk.snapshot.data)
    return chunk
