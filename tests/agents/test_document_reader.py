"""The document reader's run, with models that see text where it is dark and read the same in it everywhere."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

import numpy as np
import pypdfium2
import pytest
from PIL import Image, ImageDraw

from mediamesh.agent import AgentSettings, serving_agents
from mediamesh.agent.testing import gather, run_agent
from mediamesh.agents.document_reader import DocumentReader, TextModels
from mediamesh.agents.document_reader.documents import pdf_pages
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun
from mediamesh.api.media.v1.media_pb2 import MediaType, MediaValue
from mediamesh.client import connect
from mediamesh.client.agents import AgentClient
from mediamesh.kit.pdfium import PDFIUM
from mediamesh.wire.errors import (
    InvalidRequest,
    MediaDecodeFailed,
    MediaTooLarge,
    MeshError,
    Unavailable,
    UnsupportedMediaType,
)
from tests.agents.papers import pdf_of_pictures, pdf_of_text, png

pytestmark = pytest.mark.slow

NAMES = TextModels(detector="detector", recogniser="recogniser", orientation="orientation")


class FakeInference:
    """Stands for an inference server; a page's detection waits until it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let = asyncio.Semaphore(1000)
        self.waits = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.failure: Exception | None = None

    async def infer(self, model, inputs, *, outputs=(), timeout=None):
        self.asked.append(model)
        values = inputs["x"]
        if self.failure is not None:
            raise self.failure
        if model == "detector":
            try:
                self.waits.set()
                await self.let.acquire()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            return {"fetch_name_0": (values[:, :1] < 0).astype(np.float32)}
        if model == "orientation":
            return {"save_infer_model/scale_0.tmp_1": np.tile(np.array([1, 0], np.float32), (len(values), 1))}
        shape = (len(values), 4)
        return {
            "class": np.broadcast_to([1, 1, 0, 2], shape),
            "probability": np.full(shape, 0.75, np.float32),
            "character": np.broadcast_to(np.array([b"a", b"a", b"", b"b"], object), shape),
        }


@pytest.fixture
def inference() -> FakeInference:
    return FakeInference()


@pytest.fixture
def reader(inference) -> DocumentReader:
    return DocumentReader(inference, models=NAMES, max_reading=1, max_pages=3, max_pixels=4_000_000)


def page(*tops: int) -> Image.Image:
    """A page with a dark bar at each height."""
    picture = Image.new("RGB", (800, 800), "white")
    for top in tops:
        ImageDraw.Draw(picture).rectangle((100, top, 500, top + 20), fill="black")
    return picture


def image(data: bytes) -> MediaValue:
    return MediaValue(type=MediaType.MEDIA_TYPE_IMAGE, inline=data)


def document(data: bytes) -> MediaValue:
    return MediaValue(type=MediaType.MEDIA_TYPE_DOCUMENT, inline=data)


async def test_a_picture_is_one_page(reader) -> None:
    outputs = await run_agent(reader, {"image": image(png(page(100, 300)))})
    assert outputs["text"] == "ab\nab"
    assert [block["page"] for block in outputs["blocks"]] == [1, 1]
    assert outputs["blocks"][0]["score"] == 0.75
    top = [block["box"][0][1] for block in outputs["blocks"]]
    assert top == pytest.approx([85, 285], abs=16)
    [chunk] = outputs["pages"]
    told = dict(chunk.snapshot.data.struct_value.items())
    assert {name: told[name] for name in ("type", "page", "pages", "width", "height")} == {
        "type": "page", "page": 1, "pages": 1, "width": 800, "height": 800,
    }  # fmt: skip


async def test_a_page_is_told_before_the_next_one_is_read(reader, inference) -> None:
    inference.let = asyncio.Semaphore(1)
    opening = OpenRun(agent_id="mediamesh.document-reader")
    opening.inputs["document"].media.CopyFrom(document(pdf_of_pictures(page(100), page(100, 300))))
    numbers, percents = [], []
    async with serving_agents(AgentSettings(), reader) as port, connect(f"127.0.0.1:{port}") as channel:
        async for response in AgentClient(channel).run(opening, timeout=20):
            if response.HasField("progress"):
                percents.append(response.progress.percent)
            if response.HasField("chunk"):
                data = response.chunk.chunk.snapshot.data.struct_value
                numbers.append((data["page"], len(data.fields["blocks"].list_value)))
                inference.let.release()  # the second page cannot have been read yet
    assert numbers == [(1, 1), (2, 2)]
    assert percents == [0, 50]


async def test_a_cancelled_run_asks_for_nothing_more(reader, inference) -> None:
    inference.let = asyncio.Semaphore(0)
    opening = OpenRun(agent_id="mediamesh.document-reader")
    opening.inputs["document"].media.CopyFrom(document(pdf_of_pictures(page(100))))
    async with serving_agents(AgentSettings(), reader) as port, connect(f"127.0.0.1:{port}") as channel:
        run = asyncio.ensure_future(gather(AgentClient(channel).run(opening)))
        await inference.waits.wait()
        run.cancel()
        async with asyncio.timeout(5):
            await inference.cancelled.wait()
        inference.let = asyncio.Semaphore(1)
        async with aclosing(AgentClient(channel).run(opening, timeout=20)) as again:  # its place is free again
            assert [response async for response in again][-1].HasField("finished")
    assert inference.asked == ["detector", "detector", "orientation", "recogniser"]


@pytest.mark.parametrize(
    ("inputs", "text"),
    [({}, "there is neither"), ({"image": image(b"x"), "document": document(b"x")}, "not both")],
    ids=["neither", "both"],
)
async def test_one_of_image_and_document_is_wanted(reader, inputs, text) -> None:
    with pytest.raises(InvalidRequest, match=text):
        await run_agent(reader, inputs)


@pytest.mark.parametrize("data", [b"", b"hello", pdf_of_text(["x"])[:200], b"%PDF-1.7\n%%EOF\n"])
async def test_bytes_that_are_no_pdf_cannot_be_read(reader, data) -> None:
    with pytest.raises(MediaDecodeFailed, match="cannot be read"):
        await run_agent(reader, {"document": document(data)})


async def test_a_document_that_is_cut_off_within_its_pages_fails_or_is_read(reader) -> None:
    whole = pdf_of_pictures(page(100), page(200))
    for share in (0.3, 0.6, 0.95):
        try:
            outputs = await run_agent(reader, {"document": document(whole[: int(len(whole) * share)])})
        except MediaDecodeFailed:
            continue
        assert len(outputs["pages"]) <= 2


async def test_a_picture_that_is_none_is_refused(reader) -> None:
    with pytest.raises(UnsupportedMediaType):
        await run_agent(reader, {"image": image(b"no picture")})
    with pytest.raises(MediaTooLarge, match="4000000 is the limit"):
        await run_agent(reader, {"image": image(png(Image.new("1", (3000, 3000))))})


async def test_more_pages_than_are_read_in_one_run_must_be_chosen_from(reader) -> None:
    whole = document(pdf_of_text(*[[f"{number}"] for number in range(5)]))
    with pytest.raises(MediaTooLarge, match="5 pages to read; 3"):
        await run_agent(reader, {"document": whole})
    assert len((await run_agent(reader, {"document": whole}, {"pages": "2-4"}))["pages"]) == 3


@pytest.mark.parametrize("kind", ["image", "document"])
async def test_a_page_that_there_is_not_is_named(reader, kind) -> None:
    value = image(png(page())) if kind == "image" else document(pdf_of_text(["x"]))
    with pytest.raises(InvalidRequest, match="pages 1 to 1") as raised:
        await run_agent(reader, {kind: value}, {"pages": "2"})
    assert raised.value.violations[0][0] == "params.pages"


async def test_the_failure_of_the_inference_server_is_that_of_the_run(reader, inference) -> None:
    inference.failure = Unavailable("There is no server.")
    with pytest.raises(MeshError, match="no server") as raised:
        await run_agent(reader, {"image": image(png(page(100)))})
    assert isinstance(raised.value, Unavailable)


async def test_text_longer_than_a_value_ends_with_an_ellipsis(reader, inference, monkeypatch) -> None:
    monkeypatch.setattr("mediamesh.agents.document_reader.agent._MOST_TEXT_BYTES", 8)
    outputs = await run_agent(reader, {"image": image(png(page(100, 200, 300, 400)))})
    assert outputs["text"] == "ab\nab…"
    assert len(outputs["blocks"]) == 4


async def test_a_document_whose_run_ends_while_it_is_opened_is_closed_where_it_was_opened(monkeypatch) -> None:
    opening, go_on = threading.Event(), threading.Event()
    calls: list[tuple[str, threading.Thread]] = []

    class Watched:
        def __init__(self, file, document=pypdfium2.PdfDocument) -> None:
            opening.set()
            go_on.wait()
            self.document = document(file)
            calls.append(("open", threading.current_thread()))

        def __len__(self) -> int:
            calls.append(("len", threading.current_thread()))
            return len(self.document)

        def close(self) -> None:
            calls.append(("close", threading.current_thread()))
            self.document.close()

    async def pieces():
        yield pdf_of_text(["Hello"])

    async def read() -> None:
        async with pdf_pages(pieces()):
            pass

    monkeypatch.setattr("mediamesh.agents.document_reader.documents.pypdfium2.PdfDocument", Watched)
    reading = asyncio.ensure_future(read())
    await asyncio.to_thread(opening.wait)
    reading.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert [call for call, _ in calls] == ["open", "len", "close"]
    assert {thread for _, thread in calls} == {PDFIUM.submit(threading.current_thread).result()}


async def test_pages_of_documents_that_are_open_at_once_are_drawn_as_they_are_alone() -> None:
    async def drawn(number: int) -> bytes:
        async def pieces():
            yield pdf_of_text([f"Document number {number}"])

        async with pdf_pages(pieces()) as pages:
            return (await pages.picture(1)).tobytes()

    alone = [await drawn(number) for number in range(4)]
    assert await asyncio.gather(*(drawn(number) for number in range(4) for _ in range(5))) == [
        picture for picture in alone for _ in range(5)
    ]
