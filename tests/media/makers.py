"""Sounds, films and documents with something in them, made where a test needs them."""

from __future__ import annotations

import io
import math
from array import array
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import pypdfium2

from mediamesh.kit.pdfium import PDFIUM


class Unsought(io.RawIOBase):
    """Takes bytes and cannot go back, as what a browser records to: whoever writes fills no header in later."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.data += data
        return len(data)


def sound(container="wav", codec="pcm_s16le", *, rate=16_000, seconds=1.0, layout="mono", live=False, **options):
    """Return a tone of 440 Hz."""
    with _written(container, live, options) as (file, out):
        track: Any = file.add_stream(codec, rate=rate, layout=layout)
        _write_tone(file, track, rate, seconds)
    return bytes(out)


@contextmanager
def _written(container, live, options):
    """Open a file to write to; yield what it holds, too, when the block has ended."""
    if live:
        to = Unsought()
        with av.open(to, "w", format=container, options=options) as file:
            yield file, to.data
        return
    out = bytearray()
    with TemporaryDirectory() as folder:  # some options need to read again what was written, by its name
        path = Path(folder) / "file"
        with av.open(str(path), "w", format=container, options=options) as file:
            yield file, out
        out += path.read_bytes()


def _write_tone(file, track, rate, seconds) -> None:
    channels = 2 if track.layout.name == "stereo" else 1
    count = int(rate * seconds)
    for begin in range(0, count, 1024):
        times = range(begin, min(begin + 1024, count))
        tone = array("h", [int(8000 * math.sin(2 * math.pi * 440 * t / rate)) for t in times for _ in range(channels)])
        frame = av.AudioFrame.from_ndarray(np.array(tone, np.int16)[None, :], format="s16", layout=track.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
        file.mux(track.encode(frame))
    file.mux(track.encode(None))


def film(
    container="mp4",
    codec="libx264",
    *,
    size=(64, 48),
    fps: Fraction | int = 25,
    frames=25,
    with_sound="",
    live=False,
    times=None,
    **options,
):
    """Return a film in which a column runs across; ``times`` are those of its frames in milliseconds."""
    with _written(container, live, options) as (file, out):
        track: Any = file.add_stream(codec, rate=fps)
        (track.width, track.height), track.pix_fmt = size, "yuv420p"
        if times:
            track.codec_context.time_base = Fraction(1, 1000)
        heard: Any = file.add_stream(with_sound, rate=48_000, layout="mono") if with_sound else None
        for index in range(frames):
            picture = np.zeros((size[1], size[0], 3), np.uint8)
            picture[:, index * 3 % size[0]] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
        if heard is not None:
            _write_tone(file, heard, 48_000, frames / float(fps))
    return bytes(out)


def document(pages=1, *, size=(200, 100)) -> bytes:
    """Return a PDF of empty pages."""

    def made() -> bytes:
        out = io.BytesIO()
        with pypdfium2.PdfDocument.new() as document:
            for _ in range(pages):
                document.new_page(*size).close()
            document.save(out)
        return out.getvalue()

    return PDFIUM.submit(made).result()


def locked_document() -> bytes:
    """Return a PDF that opens with a password only: its keys are those of none that is empty (ISO 32000-1, 7.6.3)."""
    parts = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] >>",
        f"<< /Filter /Standard /V 1 /R 2 /O <{'5a' * 32}> /U <{'3c' * 32}> /P -4 >>",
    ]
    text, offsets = "%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        offsets.append(len(text))
        text += f"{number} 0 obj\n{part}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"<< /Size 5 /Root 1 0 R /Encrypt 4 0 R /ID [<{'00' * 16}> <{'00' * 16}>] >>"
    return (f"{text}xref\n0 5\n0000000000 65535 f \n{table}trailer\n{end}\nstartxref\n{len(text)}\n%%EOF\n").encode()
