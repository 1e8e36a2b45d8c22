"""What the document reader reads with the real models."""

from __future__ import annotations

import asyncio

import pytest
from PIL import Image

from mediamesh.agent.testing import run_agent
from mediamesh.agents.document_reader import DocumentReader, TextModels
from mediamesh.api.media.v1.media_pb2 import MediaType, MediaValue
from mediamesh.client.inference import InferenceClient
from tests.agents.conftest import PHOTOS
from tests.agents.papers import INVOICE, INVOICE_TABLE, TOTAL, article, invoice, pdf_of_pictures, pdf_of_text, png
from tests.inference.conftest import inference_server

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

NAMES = TextModels(detector="ppocr_detector", recogniser="ppocr_recogniser", orientation="ppocr_orientation")


@pytest.fixture(scope="module")
async def reader(pulled_repository):
    repository = pulled_repository(NAMES.detector, NAMES.recogniser, NAMES.orientation)
    async with inference_server(repository) as port, InferenceClient(f"127.0.0.1:{port}") as inference:
        yield DocumentReader(inference, models=NAMES, max_reading=2, max_pages=10, max_pixels=20_000_000)


async def read(reader, data, **params):
    pdf = not isinstance(data, Image.Image)
    kind = MediaType.MEDIA_TYPE_DOCUMENT if pdf else MediaType.MEDIA_TYPE_IMAGE
    value = MediaValue(type=kind, inline=data if pdf else png(data))
    return await run_agent(reader, {"document" if pdf else "image": value}, params, timeout=120)


def texts(outputs) -> list[str]:
    return [block["text"] for block in outputs["blocks"]]


def errors(given: str, wanted: str) -> int:
    """Return the edit distance of two texts (Levenshtein 1966), spaces left out."""
    given, wanted = "".join(given.split()), "".join(wanted.split())
    row = list(range(len(wanted) + 1))
    for one, a in enumerate(given, 1):
        before, row[0] = row[0], one
        for two, b in enumerate(wanted, 1):
            before, row[two] = row[two], min(row[two] + 1, row[two - 1] + 1, before + (a != b))
    return row[-1]


@pytest.fixture(scope="module")
async def invoice_read(reader):
    return await read(reader, invoice())


async def test_an_invoice_is_read_without_a_mistake_and_its_table_found(invoice_read) -> None:
    outputs = invoice_read
    assert texts(outputs) == [*INVOICE, *(cell for row in INVOICE_TABLE for cell in row), TOTAL]
    [table] = outputs["tables"]
    assert table["rows"] == INVOICE_TABLE
    assert "\n".join("\t".join(row) for row in INVOICE_TABLE) in outputs["text"]
    assert all(block["score"] > 0.9 for block in outputs["blocks"])


async def test_columns_are_read_one_after_the_other(reader) -> None:
    page, lines = article()
    outputs = await read(reader, page)
    assert texts(outputs) == lines
    assert outputs["tables"] == []


async def test_boxes_lie_about_their_lines_in_pixels_of_the_page(invoice_read) -> None:
    first = invoice_read["blocks"][0]["box"]
    (left, top), _, (right, bottom), _ = first
    assert (left, top) == pytest.approx((80, 65), abs=14)
    assert right == pytest.approx(80 + 415, abs=40)
    assert bottom - top == pytest.approx(45, abs=16)


async def test_a_photographed_page_that_is_small_and_bent_is_read(reader) -> None:
    with Image.open(PHOTOS / "page.png") as page:
        outputs = await read(reader, page.convert("RGB"))
    wanted = (
        "Region-based segmentation Let us first determine markers of the coins and the background. "
        "These markers are pixels that we can label unambiguously as either object or background. Here, "
        "the markers are found at the two extreme parts of the histogram of grey values:"
    )
    given = " ".join(text for text in texts(outputs) if "zeros" not in text)
    assert errors(given, wanted) <= 2
    assert any("markers = np.zeros_like(coins)" in text for text in texts(outputs))


@pytest.mark.parametrize("angle", [180, 270, 4])
async def test_a_page_that_lies_otherwise_is_read_in_its_own_order(reader, angle) -> None:
    page, lines = article()
    outputs = await read(reader, page.rotate(angle, expand=True, fillcolor="white", resample=Image.Resampling.BICUBIC))
    assert [errors(text, line) for text, line in zip(texts(outputs), lines, strict=True)] == [0] * len(lines)


async def test_pages_of_a_scan_are_told_as_they_are_read(reader) -> None:
    page, lines = article()
    outputs = await read(reader, pdf_of_pictures(invoice(), page))
    told = [chunk.snapshot.data.struct_value for chunk in outputs["pages"]]
    assert [(page["type"], page["page"], page["pages"]) for page in told] == [("page", 1, 2), ("page", 2, 2)]
    assert (told[0]["width"], told[0]["height"]) == pytest.approx((1240 * 200 / 150, 1000 * 200 / 150), abs=2)
    assert [len(page["blocks"]) for page in told] == [len(texts(outputs)) - len(lines), len(lines)]
    assert sum(map(errors, texts(outputs)[-len(lines) :], lines)) <= 1
    [table] = outputs["tables"]
    assert (table["page"], table["rows"]) == (1, INVOICE_TABLE)


async def test_text_of_a_pdf_is_read_as_it_is_drawn_and_pages_may_be_chosen(reader) -> None:
    pages = [[f"Page {number} of the report", "Measured at sea level."] for number in range(1, 5)]
    outputs = await read(reader, pdf_of_text(*pages), pages="2,4-")
    assert [(block["page"], block["text"]) for block in outputs["blocks"]] == [
        (2, "Page 2 of the report"),
        (2, "Measured at sea level."),
        (4, "Page 4 of the report"),
        (4, "Measured at sea level."),
    ]
    assert outputs["text"].count("\f") == 1


async def test_a_page_that_is_turned_by_the_document_is_upright(reader) -> None:
    outputs = await read(reader, pdf_of_text(["Turned by the viewer"], rotate=90))
    [block] = outputs["blocks"]
    assert block["text"] == "Turned by the viewer"


async def test_a_picture_without_text_has_no_blocks(reader) -> None:
    outputs = await read(reader, Image.new("RGB", (640, 480), "white"))
    assert (outputs["blocks"], outputs["tables"], outputs["text"]) == ([], [], "")
    assert len(outputs["pages"]) == 1


@pytest.mark.parametrize("size", [(4000, 12), (12, 4000), (1, 1)])
async def test_pictures_of_any_shape_are_taken(reader, size) -> None:
    outputs = await read(reader, Image.new("RGB", size, "white"))
    assert outputs["blocks"] == []


async def test_several_documents_at_once_are_each_read_whole(reader) -> None:
    documents = [pdf_of_text([f"Document number {number}"]) for number in range(4)]
    values = [MediaValue(type=MediaType.MEDIA_TYPE_DOCUMENT, inline=data) for data in documents]
    found = await asyncio.gather(*(_alone(reader, value) for value in values))
    assert found == [[f"Document number {number}"] for number in range(4)]


async def _alone(reader, value: MediaValue) -> list[str]:
    own = DocumentReader(reader._inference, models=NAMES, max_reading=1, max_pages=1, max_pixels=1000)
    return texts(await run_agent(own, {"document": value}, timeout=120))
