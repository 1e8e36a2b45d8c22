from __future__ import annotations

import pytest
from google.protobuf import json_format

from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.builtin import BUILTIN
from mediamesh.orchestrator.check import check_flow
from mediamesh.orchestrator.source import read_flow
from mediamesh.orchestrator.wiring import ends
from tests.orchestrator.fake_agents import AUDIO, IMAGE, NUMBER, STRING, manifest, pin
from tests.orchestrator.flow_texts import flow

FORMATS = ["audio/wav", "audio/flac"]
PARAMS = [pin("rate", NUMBER, maximum=96_000), pin("channels", NUMBER), pin("format", STRING, enum_values=FORMATS)]
CONVERTER = manifest("test.converter", [pin("audio", AUDIO)], [pin("sound", AUDIO)], PARAMS, converter=True)
PICTURES = manifest(
    "test.pictures",
    [pin("image", IMAGE)],
    [pin("image", IMAGE)],
    [pin("width", NUMBER, maximum=512), pin("height", NUMBER)],
    converter=True,
)
BLUR = manifest(
    "test.blur", [pin("image", IMAGE)], [pin("image", IMAGE)], [pin("width", NUMBER), pin("height", NUMBER)]
)
OTHERS = [
    manifest("test.high", [], [pin("audio", AUDIO, sample_rate_hz=44_100, mime_types=["audio/wav"])]),
    manifest("test.low", [pin("audio", AUDIO, sample_rate_hz=16_000, channels=1)], []),
    manifest("test.picky", [pin("audio", AUDIO, mime_types=["audio/flac", "audio/mpeg"])], []),
    manifest("test.choosy", [pin("audio", AUDIO, mime_types=["audio/flac", "audio/ogg"])], []),
    manifest("test.either", [], [pin("audio", AUDIO, mime_types=["audio/aiff"])]),
    manifest("test.wav-or-flac", [pin("audio", AUDIO, mime_types=FORMATS)], []),
    manifest("test.fast", [pin("audio", AUDIO, sample_rate_hz=192_000)], []),
    manifest("test.coded", [], [pin("audio", AUDIO, encoding="mp3", sample_rate_hz=8000)]),
    manifest("test.decoded", [pin("audio", AUDIO, encoding="pcm", sample_rate_hz=16_000)], []),
    manifest("test.camera", [], [pin("image", IMAGE, width=640, height=480)]),
    manifest("test.net", [pin("image", IMAGE, width=224, height=224)], []),
]


def checked(source, *converters):
    agents = {**BUILTIN, **{known.id: known for known in (*OTHERS, *(converters or (CONVERTER, PICTURES, BLUR)))}}
    draft = read_flow(source, max_nodes=100)
    check_flow(draft, agents)
    return draft


def arrows(draft):
    return [".".join((a.node_id, a.pin, b.node_id, b.pin)) for a, b in map(ends, draft.flow.edges)]


def test_the_only_converter_that_fits_is_put_in_and_is_seen() -> None:
    draft = checked(flow("a test.high", "b test.low", edges="a.audio>b.audio"))
    assert not draft.issues
    added = draft.flow.nodes[-1]
    assert (added.id, added.type, added.generated, added.line) == ("b-audio", "test.converter", True, 9)
    assert json_format.MessageToDict(added.params) == {"rate": 16_000, "channels": 1}
    assert sorted(arrows(draft)) == ["a.audio.b-audio.audio", "b-audio.sound.b.audio"]
    assert not any(node.generated for node in draft.flow.nodes[:-1])


def test_edges_that_need_the_same_form_share_a_converter() -> None:
    source = flow("a test.high", "b test.low", "c test.low", edges="a.audio>b.audio a.audio>c.audio")
    assert [node.id for node in checked(source).flow.nodes] == ["a", "b", "c", "b-audio"]


def test_a_node_that_has_the_id_already_keeps_it() -> None:
    source = flow("a test.high", "b test.low", "b-audio test.high", edges="a.audio>b.audio")
    assert [node.id for node in checked(source).flow.nodes] == ["a", "b", "b-audio", "b-audio-2"]


def test_a_picture_is_scaled_by_what_says_that_it_is_a_converter() -> None:
    draft = checked(flow("a test.camera", "b test.net", edges="a.image>b.image"))
    assert (draft.issues, draft.flow.nodes[-1].type) == ([], "test.pictures")


def test_a_format_is_chosen_where_one_alone_will_do() -> None:
    draft = checked(flow("a test.high", "b test.choosy", edges="a.audio>b.audio"))
    assert json_format.MessageToDict(draft.flow.nodes[-1].params) == {"format": "audio/flac"}


def test_what_a_recorder_gives_is_brought_to_the_form_that_is_needed() -> None:
    draft = checked(flow("r ui.audio-recorder", "b test.low", edges="r.audio>b.audio"))
    assert [node.type for node in draft.flow.nodes if node.generated] == ["test.converter"]
    assert not any(
        node.generated for node in checked(flow("u ui.file-upload", "b test.low", edges="u.file>b.audio")).flow.nodes
    )


@pytest.mark.parametrize(
    ("source", "converters", "message"),
    [
        (
            flow("a test.either", "b test.wav-or-flac", edges="a.audio>b.audio"),
            (),
            (
                "`a.audio` cannot feed `b.audio`: mimeType must be audio/wav, audio/flac; is audio/aiff; convert "
                "between them, such as by `- {id: b-audio, type: test.converter, params: {format: audio/wav}}` among "
                "the nodes, and the edges `- {from: a.audio, to: b-audio.audio}` and "
                "`- {from: b-audio.sound, to: b.audio}`."
            ),
        ),
        (
            flow("a test.high", "b test.low", edges="a.audio>b.audio"),
            (CONVERTER, manifest("test.two", CONVERTER.inputs, CONVERTER.outputs, PARAMS, converter=True)),
            (
                "`a.audio` cannot feed `b.audio`: sampleRate must be 16000 Hz, is 44100; convert between them, such "
                "as by `- {id: b-audio, type: test.converter, params: {rate: 16000, channels: 1}}` among the nodes, "
                "and the edges `- {from: a.audio, to: b-audio.audio}` and `- {from: b-audio.sound, to: b.audio}` "
                "(there are `test.converter`, `test.two`)."
            ),
        ),
        (
            flow("a test.high", "b test.fast", edges="a.audio>b.audio"),
            (),
            "`a.audio` cannot feed `b.audio`: sampleRate must be 192000 Hz, is 44100; convert between them.",
        ),
        (
            flow("a test.coded", "b test.decoded", edges="a.audio>b.audio"),
            (),
            "`a.audio` cannot feed `b.audio`: encoding must be pcm, is mp3; convert between them.",
        ),
        (
            flow("a test.camera", "b test.net", edges="a.image>b.image"),
            (CONVERTER, BLUR),
            "`a.image` cannot feed `b.image`: width must be 224 px, is 640; convert between them.",
        ),
    ],
)
def test_where_no_converter_or_several_would_do_it_is_said_what_to_write(source, converters, message) -> None:
    draft = checked(source, *converters)
    assert [issue.message for issue in draft.issues] == [message]
    assert draft.issues[0].code == flow_pb2.FLOW_ISSUE_CODE_INCOMPATIBLE_PINS
    assert not any(node.generated for node in draft.flow.nodes)
