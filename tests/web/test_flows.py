from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

EXAMPLES = Path(__file__).resolve().parents[2] / "clients" / "examples"
CAT = EXAMPLES / "media" / "cat.jpg"
# What the first four seconds of beckett.wav say; a microphone begins when it is asked, and so may cut the last word.
SAID = ["ever", "tried", "ever", "failed"]


@pytest.fixture(scope="session")
def samples(model_store) -> dict[str, Path]:
    """Return the folders of the sounds and the videos whose content is known."""
    names = ["speech_samples", "video_samples"]
    model_store.pull(model_store.manifest.choose(names))
    return {name.removesuffix("_samples"): Path(model_store.files(name)) for name in names}


def words_of(texts: list[str]) -> list[str]:
    return "".join(letter for letter in " ".join(texts).lower() if letter.isalpha() or letter.isspace()).split()


def check(seen: dict[str, Any]) -> None:
    """Check that a run went well, on a page that nothing is wrong with."""
    assert seen["run"] == "succeeded", seen["alert"]
    assert {states[-1] for states in seen["live"]["states"].values()} == {"succeeded"}
    assert seen["alert"] == ""
    assert seen["complaints"] == []
    assert seen["withheld"] == []
    assert seen["overflow"] <= 0


async def test_the_showcase_takes_a_photo_the_microphone_and_a_video_and_draws_boxes_over_it(
    drive, samples, tmp_path
) -> None:
    inputs = json.dumps(
        {"photo.file": str(CAT), "recorder.audio": 4, "video.file": str(samples["video"] / "bikes.mp4")}
    )
    sound = samples["speech"] / "beckett.wav"

    seen = await drive("flow.mjs", "showcase", inputs, tmp_path / "showcase.png", "light", "1280", sound)

    check(seen)
    kinds = {field["key"]: (field["kind"], field["records"]) for field in seen["fields"]}
    assert kinds == {
        "photo.file": ("image", False),
        "recorder.audio": ("audio", True),
        "video.file": ("video", False),
    }
    assert max(seen["meter"]) > 40
    assert any("cat" in label for label in seen["labels"])
    assert words_of(seen["speech"])[: len(SAID)] == SAID

    assert set(seen["shows"]["viewer"].split()) == {"labels", "speech", "stage", "combined"}
    assert {row["source"] for row in seen["combined"]} == {"image", "audio", "video"}
    assert seen["live"]["mostBoxes"] > 0
    viewer = seen["viewer"]
    assert viewer["duration"] == pytest.approx(10, abs=0.1)
    assert "250 frames analysed" in viewer["told"]
    # Boxes are drawn where the video is, at whatever time it is put to, and only where something was found.
    assert any(sample["boxes"] > 0 for sample in viewer["samples"])
    assert all((sample["boxes"] > 0) == (sample["painted"] > 0) for sample in viewer["samples"])
    assert "stream · 250" in seen["edges"]


async def test_the_multimodal_test_shows_words_and_labels_on_a_narrow_dark_screen(drive, samples, tmp_path) -> None:
    inputs = json.dumps({"audio.file": str(samples["speech"] / "beckett.wav")})

    seen = await drive("flow.mjs", "multimodal-test", inputs, tmp_path / "multimodal.png", "dark", "390")

    check(seen)
    assert seen["shows"] == {"labels": "labels", "console": "speech"}
    assert len(seen["labels"]) == 5
    said = "ever tried ever failed no matter try again fail again fail better"
    assert words_of(seen["speech"]) == said.split()
    assert seen["status"].endswith("6 lines of speech.")


async def test_every_flow_can_be_chosen_and_nothing_is_withheld_from_those_who_do_not_see_it(drive, tmp_path) -> None:
    broken = tmp_path / "broken.mlab"
    broken.write_text((EXAMPLES / "flows" / "classify.mlab").read_text().replace("image-classifier", "image-clasifier"))

    seen = await drive("chooser.mjs", broken)

    by_hash = {flow["hash"]: flow for flow in seen["flows"]}
    assert {"#classify", "#multimodal-test", "#showcase"} <= by_hash.keys()
    assert [flow["withheld"] for flow in seen["flows"]] == [[] for _ in seen["flows"]]
    assert all(flow["chosen"] == flow["title"] for flow in seen["flows"])
    assert not any(flow["runnable"] for flow in seen["flows"] if flow["fields"])
    assert by_hash["#showcase"]["fields"] == ["photo.file image", "recorder.audio audio", "video.file video"]
    assert by_hash["#multimodal-test"]["fields"] == ["audio.file audio"]
    assert "microphone" in seen["refused"]
    assert seen["own"]["hash"] == "#broken"
    assert not seen["own"]["runnable"]
    assert any(issue.startswith("broken.mlab:") and "image-classifier" in issue for issue in seen["own"]["issues"])
    assert seen["back"]["title"] == seen["flows"][-1]["title"]
    assert seen["complaints"] == []
