from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import pytest
from google.protobuf import json_format

from mediamesh.agent import Audio, FunctionAgent, Image, InvalidManifest, Run, agent
from mediamesh.agent.testing import gather, run_agent
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, PinChunk, PinEnd, RunRequest
from mediamesh.api.agent.v1.manifest_pb2 import CachePolicy, Manifest
from mediamesh.api.agent.v1.pin_pb2 import PinConstraints
from mediamesh.api.media.v1.media_pb2 import MediaType, MediaValue
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, TextContent
from mediamesh.wire.errors import AgentFailed, InvalidRequest

PICTURE = MediaValue(type=MediaType.MEDIA_TYPE_IMAGE, inline=b"picture")


@agent("test.greeter", version="1.2.3", output="greeting")
async def greeter(name: str, *, salutation: str = "Hello") -> str:
    """Greets whoever is named.

    This is more than a description has to say.
    """
    return f"{salutation}, {name}!"


class Counted(TypedDict):
    words: int
    first: NotRequired[str]


class Pair(NamedTuple):
    left: float
    right: str | None


@dataclass
class Found:
    label: str
    box: list[float]


async def test_a_function_is_an_agent_and_can_still_be_called() -> None:
    assert isinstance(greeter, FunctionAgent)
    assert await greeter("Ada") == "Hello, Ada!"
    assert await run_agent(greeter, {"name": "Ada"}, {"salutation": "Ahoy"}) == {"greeting": "Ahoy, Ada!"}


def test_its_signature_is_the_manifest() -> None:
    manifest = json_format.MessageToDict(greeter.describe())
    assert manifest == {
        "id": "test.greeter",
        "version": "1.2.3",
        "description": "Greets whoever is named.",
        "inputs": [{"name": "name", "type": "PIN_TYPE_STRING"}],
        "outputs": [{"name": "greeting", "type": "PIN_TYPE_STRING"}],
        "params": [{"name": "salutation", "type": "PIN_TYPE_STRING", "default": "Hello"}],
    }


def test_every_annotation_is_a_pin() -> None:
    @agent("test.every", manifest=Manifest(cache=CachePolicy(enabled=True)))
    async def every(
        text: Annotated[str, "What to say."],
        number: Annotated[float, PinConstraints(minimum=0, maximum=1)],
        whole: int,
        flag: bool,  # noqa: FBT001
        data: bytes,
        anything: dict[str, Any],
        kind: Literal["a", "b"],
        image: Image,
        sound: Annotated[bytes, Audio],
        words: AsyncIterator[str],
        run: Run,
        from_: str = "here",
        chunks: AsyncIterator[Chunk] | None = None,
        *,
        many: int = 3,
        maybe: Literal["x"] | None = None,
    ) -> None:
        """Takes everything."""

    manifest = every.describe()
    kinds = {pin.name: json_format.MessageToDict(pin)["type"].removeprefix("PIN_TYPE_") for pin in manifest.inputs}
    assert kinds == {
        "text": "STRING", "number": "NUMBER", "whole": "NUMBER", "flag": "BOOLEAN", "data": "BINARY",
        "anything": "JSON", "kind": "STRING", "image": "IMAGE", "sound": "AUDIO", "words": "STREAM",
        "from": "STRING", "chunks": "STREAM",
    }  # fmt: skip
    pins = {pin.name: pin for pin in [*manifest.inputs, *manifest.params]}
    assert pins["text"].description == "What to say."
    assert pins["number"].constraints.maximum == 1
    assert list(pins["kind"].constraints.enum_values) == ["a", "b"]
    assert {name for name, pin in pins.items() if pin.optional} == {"from", "chunks", "maybe"}
    assert pins["many"].default_value.number_value == 3
    assert manifest.cache.enabled
    assert not manifest.outputs


async def test_fields_are_outputs() -> None:
    @agent("test.counted")
    async def counted(text: str) -> Counted:
        return {"words": len(text.split())}

    @agent("test.pair")
    async def pair(text: str) -> Pair:
        return Pair(0.5, None)

    @agent("test.found")
    async def found(text: str) -> Found:
        return Found(text, [1, 2])

    assert await run_agent(counted, {"text": "a b"}) == {"words": 2}
    assert await run_agent(pair, {"text": "a"}) == {"left": 0.5}
    assert await run_agent(found, {"text": "a"}) == {"label": "a", "box": [1, 2]}
    assert [pin.name for pin in counted.describe().outputs if pin.optional] == ["first"]


async def test_a_function_that_is_not_async_runs_in_a_thread() -> None:
    @agent("test.thread")
    def thread(image: Annotated[bytes, Image]) -> dict[str, Any]:
        return {"thread": threading.current_thread() is not threading.main_thread(), "size": len(image)}

    @agent("test.pieces")
    def pieces(text: str) -> Iterator[str]:
        for word in text.split():
            time.sleep(0.001)
            yield word

    assert await run_agent(thread, {"image": PICTURE}) == {"result": {"thread": True, "size": 7}}
    chunks = (await run_agent(pieces, {"text": "a b c"}))["result"]
    assert [chunk.content.text for chunk in chunks] == ["a", "b", "c"]


async def test_media_are_read_on_demand_and_bytes_given_are_media() -> None:
    @agent("test.reader", output="copy")
    async def reader(image: Image) -> Annotated[bytes, Image]:
        async with image.open() as file:
            half = await asyncio.to_thread(file.read, 3)
        assert not image.facts.width
        rest: bytes = (await image.download())[3:]
        return half + rest + b"".join([piece async for piece in image.read()])

    assert await run_agent(reader, {"image": PICTURE}) == {"copy": b"picturepicture"}


async def test_streams_go_through_a_function(serve) -> None:
    @agent("test.upper", output="upper")
    async def upper(words: AsyncIterator[str]) -> AsyncIterator[str]:
        async for word in words:
            yield word.upper()

    frames = [
        RunRequest(chunk=PinChunk(pin="words", chunk=Chunk(sequence_number=number, content=TextContent(text=text))))
        for number, text in enumerate("ab", 1)
    ]
    async with serve(upper) as client:
        opening = OpenRun(agent_id="test.upper", stream_inputs=["words"])
        outputs = await gather(client.run(opening, [*frames, RunRequest(end=PinEnd(pin="words"))]))
    assert [chunk.content.text for chunk in outputs["upper"]] == ["A", "B"]


async def test_whole_numbers_are_ints_and_fractions_are_refused() -> None:
    @agent("test.whole")
    async def whole(count: int, *, step: int = 1) -> str:
        return repr((count, step))

    assert await run_agent(whole, {"count": 3}, {"step": 2}) == {"result": "(3, 2)"}
    for inputs, params, field in (({"count": 2.5}, {}, "inputs.count"), ({"count": 2}, {"step": 0.5}, "params.step")):
        with pytest.raises(InvalidRequest, match=rf"{field}: must be a whole number"):
            await run_agent(whole, inputs, params)


async def test_a_wrong_return_value_is_the_agents_failure() -> None:
    @agent("test.wrong")
    async def wrong() -> str:
        return 3  # type: ignore[return-value]

    with pytest.raises(AgentFailed, match="output 'result' takes string, got number"):
        await run_agent(wrong, {})


def _positional(text: str, /) -> str:
    return text


def _bare(text) -> str:
    return str(text)


def _silent(text: str):
    return text


def _several(value: str | int) -> str:
    return str(value)


def _object(value: threading.Thread) -> str:
    return str(value)


def _reads(image: Image) -> str:
    return str(image)


def _streams(words: AsyncIterator[str]) -> str:
    return str(words)


def _none(text: str | None) -> str:
    return str(text)


def _nothing() -> None:
    return None


def _numbers(kind: Literal[1, 2]) -> str:
    return str(kind)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (_positional, "_positional: parameter text is positional only"),
        (_bare, "_bare: parameter text has no annotation"),
        (_silent, "_silent: what it returns has no annotation"),
        (_several, "_several: parameter value is str | int, one of several types"),
        (_object, "_object: parameter value is Thread, and no pin carries that"),
        (_reads, r"_reads: parameter image is read by an `async def`; annotate it Annotated\[bytes, Image\]"),
        (_streams, "_streams: parameter words is a stream, which an `async def` takes"),
        (_none, "_none: parameter text may be None and has no default"),
        (_numbers, "_numbers: parameter kind is a Literal of something else"),
    ],
)
def test_a_signature_that_no_manifest_says_is_refused_where_it_is_written(function, text) -> None:
    with pytest.raises(TypeError, match=text):
        agent("test.refused")(function)


def test_an_id_that_is_none_is_refused_where_it_is_written() -> None:
    with pytest.raises(InvalidManifest, match=r"Greeter: id: does not match"):
        agent("Greeter")(_nothing)
