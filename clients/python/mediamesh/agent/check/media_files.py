"""Small media made of nothing but the standard library, valid for every decoder."""

from __future__ import annotations

import io
import math
import struct
import wave
import zlib

__all__ = ["pdf", "png", "wav"]

_TONE_HZ, _AMPLITUDE = 440.0, 8000


def png(width: int, height: int) -> bytes:
    """Return a PNG of RGB pixels that shade from corner to corner."""
    rows = bytearray()
    for y in range(height):
        rows.append(0)  # a row without a filter
        rows += bytes(value for x in range(width) for value in (x * 255 // width, y * 255 // height, 128))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def wav(rate: int, channels: int, seconds: float) -> bytes:
    """Return a WAV of a 440 Hz tone, 16 bits a sample.

    Args:
        rate: Samples a second.
        channels: Number of channels, all alike.
        seconds: Length.
    """
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        for index in range(int(rate * seconds)):
            sample = round(_AMPLITUDE * math.sin(2 * math.pi * _TONE_HZ * index / rate))
            writer.writeframesraw(struct.pack("<h", sample) * channels)
    return file.getvalue()


def pdf(text: str) -> bytes:
    """Return a PDF with one page and one line of plain ASCII text."""
    drawn = f"BT /F1 24 Tf 72 720 Td ({text}) Tj ET".encode("ascii")
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources 6 0 R >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(drawn), drawn),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Font << /F1 5 0 R >> >>",
    )
    content, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = len(content)
    content += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    content += b"".join(b"%010d 00000 n \n" % place for place in places)
    content += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(content)
