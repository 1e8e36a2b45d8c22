from __future__ import annotations

import json

import pytest
from google.protobuf import json_format, struct_pb2

from mediamesh.api.agent.v1.pin_pb2 import Pin, PinConstraints, PinType
from mediamesh.api.agent.v1.value_pb2 import StreamReference, Value
from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaReference, MediaType, MediaValue
from mediamesh.wire.errors import InvalidRequest, MediaTooLarge, UnsupportedMediaType
from mediamesh.wire.pins import MEDIA_TYPES, Violation, accepts, check_value, listed, plain_value, type_name

INFINITE = struct_pb2.Value(number_value=float("inf"))


def pin(kind: str, **constraints) -> Pin:
    return Pin(name="pin", type=PinType.Value(f"PIN_TYPE_{kind}"), constraints=PinConstraints(**constraints))


def media(kind: str = "IMAGE", **source) -> Value:
    return Value(media=MediaValue(type=MediaType.Value(f"MEDIA_TYPE_{kind}"), **source))


def stored(kind: str = "IMAGE", size: int = 0, **facts) -> Value:
    return media(kind, ref=MediaReference(url="s3://media/x", size_bytes=size, metadata=MediaFacts(**facts)))


def plain(value: object) -> struct_pb2.Value:
    return json_format.Parse(json.dumps(value), struct_pb2.Value())


FITTING = {
    "one of the texts": (pin("STRING", enum_values=["a", "b"], max_size_bytes=1), Value(text="a")),
    "bytes as UTF-8 count": (pin("STRING", max_size_bytes=2), Value(text="é")),
    "the smallest number": (pin("NUMBER", minimum=1, maximum=3), Value(number=1)),
    "the largest number": (pin("NUMBER", minimum=1, maximum=3), Value(number=3)),
    "any number": (pin("NUMBER"), Value(number=float("nan"))),
    "a boolean": (pin("BOOLEAN"), Value(boolean=False)),
    "JSON with null": (pin("JSON"), Value(json=plain({"list": [1, None, "x"]}))),
    "bytes": (pin("BINARY", max_size_bytes=3), Value(binary=b"123")),
    "a stream": (pin("STREAM"), Value(stream=StreamReference(stream_id="x"))),
    "media as bytes": (pin("BINARY", max_size_bytes=3), media("AUDIO", inline=b"123")),
    "a file as bytes": (pin("BINARY"), stored("FILE")),
    "all that is asked": (
        pin("IMAGE", max_size_bytes=10, width=640),
        stored(size=10, mime_type="image/png", width=640, height=480),
    ),
    "one of the patterns": (
        pin("IMAGE", mime_types=["image/png", "image/*"]),
        stored(mime_type="image/webp", width=1, height=1),
    ),
    "the longest sound": (
        pin("AUDIO", max_duration_seconds=60),
        stored("AUDIO", mime_type="audio/wav", sample_rate_hz=8000, duration_seconds=60),
    ),
    "inline media without facts": (
        pin("IMAGE", max_size_bytes=3, width=640, mime_types=["image/png"]),
        media(inline=b"123"),
    ),
    "media elsewhere": (
        pin("IMAGE", max_size_bytes=3, width=640, mime_types=["image/png"]),
        media(url="https://elsewhere/x.png"),
    ),
}


@pytest.mark.parametrize(("of", "value"), FITTING.values(), ids=FITTING.keys())
def test_what_fits_is_let_through(of, value) -> None:
    assert not list(check_value(of, value))


PLAIN = [
    (pin("STRING"), Value(number=1), "takes string, got number"),
    (pin("NUMBER"), Value(text="1"), "takes number, got string"),
    (pin("JSON"), Value(), "takes json, got nothing"),
    (pin("STRING"), media(inline=b"x"), "takes string, got image"),
    (pin("BINARY"), Value(text="x"), "takes binary, got string"),
    (pin("STRING"), Value(stream=StreamReference(stream_id="x")), "takes string, got stream"),
    (pin("STRING", enum_values=["a", "b"]), Value(text="c"), "must be one of a, b; is 'c'"),
    (pin("STRING", max_size_bytes=1), Value(text="é"), "must be at most 1 bytes, is 2"),
    (pin("NUMBER", maximum=3), Value(number=4), "must be at most 3, is 4"),
    (pin("NUMBER", minimum=0), Value(number=-0.5), "must be at least 0, is -0.5"),
    (pin("NUMBER", minimum=1), Value(number=float("nan")), "must be at least 1, is nan"),
    (pin("BINARY", max_size_bytes=3), Value(binary=b"1234"), "must be at most 3 bytes, is 4"),
    (pin("JSON"), Value(json=INFINITE), "has a number that JSON has not: infinity or NaN"),
]


@pytest.mark.parametrize(("of", "value", "text"), PLAIN, ids=[case[-1] for case in PLAIN])
def test_a_value_that_does_not_fit_is_told_with_what_would(of, value, text) -> None:
    assert list(check_value(of, value)) == [Violation(InvalidRequest, text)]


MEDIA = [
    (pin("IMAGE"), Value(text="x"), UnsupportedMediaType, "takes image, got string"),
    (pin("IMAGE"), Value(binary=b"x"), UnsupportedMediaType, "takes image, got binary"),
    (pin("IMAGE"), Value(), UnsupportedMediaType, "takes image, got nothing"),
    (pin("IMAGE"), media("AUDIO", inline=b"x"), UnsupportedMediaType, "takes image, got audio"),
    (pin("IMAGE", width=1), stored("VIDEO"), UnsupportedMediaType, "takes image, got video"),
    (pin("IMAGE"), media("FILE", url="https://elsewhere/x"), UnsupportedMediaType, "takes image, got file"),
    (
        pin("IMAGE", mime_types=["image/jpeg", "image/png"]), stored(mime_type="image/webp"),
        UnsupportedMediaType, "mimeType must be image/jpeg, image/png; is image/webp",
    ),
    (
        pin("IMAGE", mime_types=["image/png"]), stored(mime_type="*"),
        UnsupportedMediaType, "mimeType must be image/png; is *",
    ),
    (pin("IMAGE", max_size_bytes=10), stored(size=12), MediaTooLarge, "must be at most 10 bytes, is 12"),
    (pin("IMAGE", max_size_bytes=3), media(inline=b"1234"), MediaTooLarge, "must be at most 3 bytes, is 4"),
    (pin("BINARY", max_size_bytes=3), media(inline=b"12345"), MediaTooLarge, "must be at most 3 bytes, is 5"),
    (
        pin("AUDIO", max_duration_seconds=60), stored("AUDIO", duration_seconds=61),
        MediaTooLarge, "must last at most 60 s, lasts 61 s",
    ),
    (pin("IMAGE", width=640), stored(width=641), InvalidRequest, "width must be 640 px, is 641"),
    (pin("IMAGE", height=480), stored(height=481), InvalidRequest, "height must be 480 px, is 481"),
    (
        pin("AUDIO", sample_rate_hz=16000), stored("AUDIO", sample_rate_hz=44100),
        InvalidRequest, "sampleRate must be 16000 Hz, is 44100",
    ),
    (pin("AUDIO", channels=1), stored("AUDIO", channels=2), InvalidRequest, "channels must be 1, is 2"),
    (pin("VIDEO", fps=12.5), stored("VIDEO", fps=25), InvalidRequest, "fps must be 12.5 frames/s, is 25.0"),
    (pin("VIDEO", encoding="h264"), stored("VIDEO", encoding="av1"), InvalidRequest, "encoding must be h264, is av1"),
]  # fmt: skip


@pytest.mark.parametrize(("of", "value", "kind", "text"), MEDIA, ids=[case[-1] for case in MEDIA])
def test_media_that_does_not_fit_is_told_with_its_class_of_error(of, value, kind, text) -> None:
    assert list(check_value(of, value)) == [Violation(kind, text)]


@pytest.mark.parametrize(
    ("limits", "kind", "text"),
    [
        ({"mime_types": ["*"]}, UnsupportedMediaType, "mimeType must be *; is unknown"),
        ({"max_size_bytes": 10}, InvalidRequest, "must be at most 10 bytes, is of unknown size"),
        ({"max_duration_seconds": 60}, InvalidRequest, "must last at most 60 s, lasts for an unknown time"),
        ({"sample_rate_hz": 16000}, InvalidRequest, "sampleRate must be 16000 Hz, is unknown"),
        ({"encoding": "pcm_s16le"}, InvalidRequest, "encoding must be pcm_s16le, is unknown"),
    ],
)
def test_a_reference_must_show_what_its_pin_restricts(limits, kind, text) -> None:
    assert list(check_value(pin("AUDIO", **limits), stored("AUDIO"))) == [Violation(kind, text)]


def test_everything_that_is_wrong_with_media_is_told_at_once() -> None:
    of = pin("IMAGE", max_size_bytes=10, mime_types=["image/png"], width=1, height=2)
    found = check_value(of, stored(size=12, mime_type="image/gif", width=3, height=2))
    assert [violation.kind for violation in found] == [MediaTooLarge, UnsupportedMediaType, InvalidRequest]


@pytest.mark.parametrize(
    ("of", "given", "value"),
    [
        ("STRING", "a", Value(text="a")),
        ("NUMBER", 3, Value(number=3)),
        ("BOOLEAN", True, Value(boolean=True)),
        ("JSON", "a", Value(json=plain("a"))),
        ("JSON", None, Value(json=plain(None))),
        ("NUMBER", None, Value()),
        ("NUMBER", True, Value(boolean=True)),
        ("STRING", [1], Value(json=plain([1]))),
        ("IMAGE", "a", Value(text="a")),
    ],
)
def test_json_becomes_the_value_that_it_is_for_a_pin(of, given, value) -> None:
    assert plain_value(pin(of), plain(given)) == value


@pytest.mark.parametrize(
    ("pattern", "mime_type", "accepted"),
    [
        ("image/*", "image/png", True),
        ("image/*", "imagery/png", False),
        ("image/png", "image/png", True),
        ("image/png", "image/*", False),
        ("*/*", "audio/wav", True),
        ("image/*", "", False),
    ],
)
def test_a_pattern_accepts_the_media_types_that_it_covers(pattern, mime_type, accepted) -> None:
    assert accepts(pattern, mime_type) is accepted


def test_names_are_those_of_manifests_and_long_lists_are_cut() -> None:
    assert [type_name(kind) for kind in MEDIA_TYPES] == ["image", "audio", "video", "document"]
    assert listed(["a"] * 16) == ", ".join("a" * 16)
    assert listed(["a"] * 17) == ", ".join([*"a" * 16, "…"])


@pytest.mark.parametrize(
    ("kind", "facts", "missing"),
    [
        ("AUDIO", {"mime_type": "audio/wav"}, "sampleRate"),
        ("IMAGE", {"mime_type": "image/png"}, "width and height"),
        ("VIDEO", {"mime_type": "video/mp4", "width": 1, "height": 1}, "fps"),
        ("DOCUMENT", {"mime_type": "application/pdf"}, "pages"),
    ],
)
def test_media_that_was_never_looked_at_fits_no_pin_of_its_kind(kind, facts, missing) -> None:
    """As an object that was written through a signed address: the store knows what its writer called it."""
    text = f"is media whose {missing} nobody has read from its bytes"
    assert list(check_value(pin(kind), stored(kind, **facts))) == [Violation(InvalidRequest, text)]
    assert not list(check_value(pin("BINARY"), stored(kind, **facts)))
