from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.integration.conftest import server_process

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

CAT = Path(__file__).resolve().parents[2] / "clients" / "examples" / "media" / "cat.jpg"


async def test_a_photo_is_shown_with_its_labels_and_every_node_lights_up(drive, tmp_path) -> None:
    seen = await drive("console.mjs", CAT, tmp_path / "console.png")

    assert [node["node"] for node in seen["drawn"]] == ["upload", "classify", "show"]
    assert seen["run"] == "succeeded", seen["alert"]
    assert seen["states"] == {"upload": "succeeded", "classify": "succeeded", "show": "succeeded"}
    assert seen["lit"]["classify"][-1] == "succeeded"
    assert len(seen["labels"]) == 5
    assert any("cat" in label["label"] for label in seen["labels"])
    shares = [float(label["percent"].removesuffix("%")) for label in seen["labels"]]
    widths = [label["width"] for label in seen["labels"]]
    assert 0 < shares[0] <= 100
    assert shares == sorted(shares, reverse=True)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 0
    assert seen["picture"] == "shown"
    assert "in the mesh" in seen["total"]
    assert seen["alert"] == ""
    assert seen["complaints"] == []
    assert (tmp_path / "console.png").read_bytes().startswith(b"\x89PNG")


async def test_the_sample_photo_runs_on_a_narrow_dark_screen_without_sideways_scrolling(drive, tmp_path) -> None:
    seen = await drive("console.mjs", "sample", tmp_path / "console.png", "dark", "390")

    assert seen["run"] == "succeeded", seen["alert"]
    assert len(seen["labels"]) == 5
    assert seen["overflow"] <= 0


async def test_a_text_file_named_jpg_is_answered_with_a_sentence_and_e1010(drive, tmp_path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("This is not a picture.\n" * 40)

    seen = await drive("console.mjs", text, tmp_path / "console.png")

    assert seen["run"] == "failed"
    number, sentence = seen["alert"].split(maxsplit=1)
    assert number == "E1010"
    assert sentence.splitlines()[0].endswith((".", "!", ")", "”"))
    assert seen["labels"] == []


async def test_a_picture_over_the_limit_is_refused_before_it_is_sent(drive, tmp_path) -> None:
    big = tmp_path / "big.jpg"
    big.write_bytes(CAT.read_bytes() + bytes(20 * 1024 * 1024))

    seen = await drive("console.mjs", big, tmp_path / "console.png")

    assert seen["alert"].startswith("E1011")
    assert "20 MiB at most" in seen["alert"]
    assert seen["events"] == []


async def test_an_event_source_that_is_cut_off_resumes_with_last_event_id_and_misses_nothing(drive) -> None:
    seen = await drive("resume.mjs", CAT)

    assert seen["asked"] == ["", "3"]
    assert seen["opens"] == 2
    assert seen["ids"] == list(range(1, len(seen["ids"]) + 1))
    assert seen["kinds"][0] == "execution_started"
    assert seen["kinds"][-1] == "execution_finished"


async def test_a_run_whose_agent_hangs_is_cancelled_by_the_button(drive, mesh, tmp_path) -> None:
    photo = tmp_path / "noise.png"
    Image.effect_noise((64, 64), 60).save(photo)  # what was classified before would come from the cache
    agents = server_process(mesh, "agents")
    agents.suspend()
    try:
        seen = await drive("cancel.mjs", photo)
    finally:
        agents.resume()

    assert seen["run"] == "cancelled"
    assert seen["classify"] == "cancelled"
    assert seen["status"] == "Cancelled."
    assert seen["alert"] == ""
    assert seen["again"]
