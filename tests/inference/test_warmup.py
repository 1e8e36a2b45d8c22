"""A model runs before its first request, on the samples of its configuration."""

from __future__ import annotations

import numpy as np
import pytest

from mediamesh.inference.onnx.measure import largest_worthwhile, time_batches
from mediamesh.inference.onnx.session import Session
from mediamesh.inference.repository.repository import open_repository
from mediamesh.inference.settings import Settings
from mediamesh.wire.errors import NotFound
from tests.inference import models


@pytest.fixture
def runs(monkeypatch):
    """What sessions were run on."""
    fed, run = [], Session.run

    def counted(self, inputs, outputs):
        fed.append({name: np.array(array) for name, array in inputs.items()})
        return run(self, inputs, outputs)

    monkeypatch.setattr(Session, "run", counted)
    return fed


async def load(repository, **settings):
    settings = {"measure_seconds": 0, **settings}
    async with open_repository(Settings(model_repository=repository, **settings)) as held:
        return held.find("model")


def sample(
    data: str = "zero_data: true", dims: str = "[2]", kind: str = "TYPE_FP32", more: str = "batch_size: 2"
) -> str:
    tensor = f"data_type: {kind} dims: {dims} {data}"
    return f'max_batch_size: 4 model_warmup {{ name: "s" {more} inputs {{ key: "x" value {{ {tensor} }} }} }}'


async def test_without_samples_a_model_runs_once_on_zeros(tmp_path, runs) -> None:
    models.add_model(tmp_path, "model", models.double())
    await load(tmp_path)
    assert [run["x"].tolist() for run in runs] == [[[0, 0]]]


async def test_samples_run_as_often_as_they_say(tmp_path, runs) -> None:
    models.add_model(tmp_path, "model", models.double(), sample(more="batch_size: 3 count: 5"))
    await load(tmp_path)
    assert [run["x"].tolist() for run in runs] == [[[0, 0]] * 3] * 5


async def test_a_sample_may_be_random_or_come_from_a_file(tmp_path, runs) -> None:
    directory = models.add_model(tmp_path, "model", models.double(), sample("random_data: true"))
    await load(tmp_path)
    assert runs.pop()["x"].std() > 0
    (directory / "config.pbtxt").write_text(sample('input_data_file: "numbers"'))
    (directory / "warmup").mkdir()
    (directory / "warmup" / "numbers").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    await load(tmp_path)
    assert runs.pop()["x"].tolist() == [[0, 1], [2, 3]]


async def test_texts_come_from_a_file_too(tmp_path, runs) -> None:
    kind = 'data_type: TYPE_STRING dims: [1, 1] input_data_file: "text"'
    warmup = f'model_warmup {{ name: "s" inputs {{ key: "x" value {{ {kind} }} }} }}'
    ends = " ".join(
        f'{end} {{ name: "{name}" data_type: TYPE_STRING dims: [-1, -1] }}'
        for end, name in (("input", "x"), ("output", "y"))
    )
    directory = models.add_model(tmp_path, "model", models.identity("BYTES"), f"{ends} {warmup}")
    (directory / "warmup").mkdir()
    (directory / "warmup" / "text").write_bytes(b"\x03\x00\x00\x00tea")
    await load(tmp_path)
    assert runs.pop()["x"].tolist() == [["tea"]]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (sample(more="batch_size: 5"), "batch_size: 5, expected 1 to 4"),
        (sample(more="batch_size: 0"), "batch_size: 0, expected 1 to 4"),
        (sample(more="batch_size: 1 count: 1000000"), "count: 1000000, at most 10000"),
        (sample(dims="[3]"), r"dims: \[3\] make \[2, 3\], the model takes \[-1, 2\]"),
        (sample(dims="[-1]"), r"dims: \[-1\]"),
        (sample(kind="TYPE_INT8"), "data_type: INT8, the model takes FP32"),
        (sample(data=""), "expected zero_data, random_data or input_data_file"),
        (sample('input_data_file: "../../secret"'), "is not the name of a file beside others"),
        (sample('input_data_file: "nothing"'), "input_data_file: .*nothing"),
        ('max_batch_size: 4 model_warmup { name: "s" batch_size: 1 }', "inputs: lacks x"),
        (sample().replace('key: "x"', 'key: "z"'), "the model has no input z"),
    ],
)
async def test_a_sample_that_does_not_fit_is_refused(tmp_path, config, sentence) -> None:
    models.add_model(tmp_path, "model", models.double(), config)
    with pytest.raises(NotFound, match=sentence):
        await load(tmp_path)


async def test_a_sample_whose_run_fails_is_a_model_that_fails(tmp_path) -> None:
    given = 'data_type: TYPE_INT64 dims: [] input_data_file: "index"'
    warmup = f'model_warmup {{ name: "far" batch_size: 1 inputs {{ key: "index" value {{ {given} }} }} }}'
    directory = models.add_model(tmp_path, "model", models.pick(), f"max_batch_size: 4 {warmup}")
    (directory / "warmup").mkdir()
    (directory / "warmup" / "index").write_bytes(np.array([99]).tobytes())
    with pytest.raises(NotFound, match="model_warmup 'far': "):
        await load(tmp_path)


@pytest.mark.parametrize(
    ("taken", "best"),
    [
        ({1: 1.0, 2: 2.0, 4: 4.0}, 1),
        ({1: 1.0, 2: 1.1, 4: 1.2, 8: 2.4}, 4),
        ({1: 1.0, 2: 1.95, 4: 3.9, 8: 4.0}, 8),
        ({1: 1.0}, 1),
    ],
)
def test_a_batch_pays_when_its_items_cost_clearly_less(taken, best) -> None:
    assert largest_worthwhile(taken) == best


def test_measuring_ends_with_its_time(tmp_path) -> None:
    path = models.add_model(tmp_path, "model", models.double()) / "1" / "model.onnx"
    session = Session("model/1", path, providers=[("CPUExecutionProvider", {})], threads=1)
    assert set(time_batches("model/1", session, session.inputs, ["y"], most=6, seconds=5)) == {1, 2, 4, 6}
    assert set(time_batches("model/1", session, session.inputs, ["y"], most=6, seconds=0)) == {1}
