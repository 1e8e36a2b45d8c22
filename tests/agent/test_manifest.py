from __future__ import annotations

import pytest

from mediamesh.agent import InvalidManifest, load_manifest, parse_manifest
from mediamesh.agent.units import parse_seconds, parse_size
from mediamesh.api.agent.v1.manifest_pb2 import ResponseMode
from mediamesh.api.agent.v1.pin_pb2 import PinType

FULL = """
id: mediamesh.video-analyzer
version: 2.1.0-beta.1
image: registry.example/video-analyzer:2.1.0
runtime: python3.11
description: Looks at videos.
longRunning: true
inputs:
  - name: video
    type: video
    description: What to look at.
    constraints:
      mimeType: video/mp4, video/webm
      maxSize: "100MB"
      maxDuration: 600
      fps: 30
  - name: language
    type: string
    optional: true
    constraints: {enum: [auto, en, de]}
outputs:
  - {name: analysis_stream, type: stream}
params:
  - {name: threshold, type: number, default: 0.5, constraints: {minimum: 0, maximum: 1}}
  - {name: tags, type: json, default: [a, {b: 1}]}
resources:
  profiles:
    - name: video_processing
    - {name: small, cpu: 500m, memory: 1Gi, ephemeralStorage: 2Gi}
response: {mode: streaming, chunk_type: delta, buffer_size: 2048}
modalities: {input: [video], output: [text], constraints: {max_audio_duration_s: 60}}
cache: {enabled: true, ttl: 30m}
"""
TEXT_ONLY = """
id: legacy.summarizer
version: 1.0.0
inputs:
  - name: prompt
    type: string
outputs:
  - name: answer
    type: string
"""


def test_a_full_manifest_is_read_with_its_units() -> None:
    manifest = parse_manifest(FULL)
    video, language = manifest.inputs
    assert list(video.constraints.mime_types) == ["video/mp4", "video/webm"]
    assert video.constraints.max_size_bytes == 100_000_000
    assert video.constraints.max_duration_seconds == 600
    assert language.optional
    assert manifest.long_running
    assert manifest.response.mode == ResponseMode.RESPONSE_MODE_STREAMING
    assert manifest.cache.ttl.seconds == 1800
    assert manifest.params[1].default_value.list_value.values[1].struct_value["b"] == 1


def test_a_profile_of_which_only_the_name_is_given_is_built_in() -> None:
    built_in, own = parse_manifest(FULL).resources.profiles
    assert (built_in.cpu, built_in.memory, built_in.gpu_count, built_in.ephemeral_storage) == ("4", "8Gi", 1, "50Gi")
    assert built_in.gpu_type == "nvidia.com/gpu"
    assert own.ephemeral_storage == "2Gi"


def test_a_text_only_manifest_of_before_stays_valid() -> None:
    manifest = parse_manifest(TEXT_ONLY)
    assert manifest.inputs[0].type == PinType.PIN_TYPE_STRING
    assert not manifest.HasField("response")
    assert not manifest.HasField("modalities")


FAULTS = [
    ("type: string", "type: text", "manifest.yaml:6: inputs[0].type", "must be one of string, number"),
    ("name: prompt", "nam: prompt", "manifest.yaml:5: inputs[0].nam", "is not known; known are name"),
    ("version: 1.0.0", "version: 1.0", "manifest.yaml:3: version", "must be text (quote it)"),
    ("version: 1.0.0", "version: one", "manifest.yaml:3: version", "regex"),
    ("id: legacy.summarizer", "id: Legacy", "manifest.yaml:2: id", "regex"),
    ("inputs:", "cache: {ttl: soon}\ninputs:", "manifest.yaml:4: cache.ttl", "'soon' is no duration"),
    ("inputs:", "longRunning: 1\ninputs:", "manifest.yaml:4: longRunning", "must be true or false"),
    ("inputs:", "params: [{name: a, type: image}]\ninputs:", "manifest.yaml:4: params[0].type", "not image"),
    ("inputs:", "params: [{name: a, type: number, default: x}]\ninputs:", "manifest.yaml:4: params[0].default", "take"),
    ("inputs:", "resources: {profiles: [{name: huge}]}\ninputs:", "manifest.yaml:4: resources.profiles[0]", "built-in"),
    ("inputs:", "inputs: 3\nx:", "manifest.yaml:4: inputs", "must be a list"),
    ("    type: string\noutputs", "    type: string\n    default: 3\noutputs", "manifest.yaml:7: inputs[0].default",
     "only"),
    ("    type: string\noutputs", "    type: string\n  - {name: prompt, type: number}\noutputs",
     "manifest.yaml:7: inputs[1].name", "prompt is there twice"),
    ("id: legacy.summarizer", "id: legacy.summarizer\nid: other.one", "manifest.yaml:3: id", "is there twice"),
    ("    type: string\noutputs", "    type: string\n    constraints: {maxSize: 10XB}\noutputs",
     "manifest.yaml:7: inputs[0].constraints.maxSize", "'10XB' is no size"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "place", "text"), FAULTS)
def test_a_fault_is_named_with_its_line(right: str, wrong: str, place: str, text: str) -> None:
    with pytest.raises(InvalidManifest) as raised:
        parse_manifest(TEXT_ONLY.replace(right, wrong, 1))
    assert place in [field for field, _ in raised.value.violations]
    assert text in str(raised.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(InvalidManifest) as raised:
        parse_manifest(TEXT_ONLY.replace("string", "text"))
    assert len(raised.value.violations) == 2


@pytest.mark.parametrize("text", ["", "just text", "- a\n- b", "a: [", "a: b\n---\nc: d", "a: *nowhere"])
def test_what_is_no_manifest_at_all_is_refused(text: str) -> None:
    with pytest.raises(InvalidManifest):
        parse_manifest(text)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InvalidManifest, match=r"manifest\.yaml: cannot be read"):
        load_manifest(tmp_path / "manifest.yaml")


@pytest.mark.parametrize(
    ("text", "size"), [("10MB", 10_000_000), ("20 MiB", 20 << 20), ("512kib", 512 << 10), ("7", 7), ("1.5GB", 1.5e9)]
)
def test_sizes(text: str, size: float) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("1h", 3600), ("15m", 900), ("500ms", 0.5), ("2", 2)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds
