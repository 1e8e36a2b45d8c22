"""A generative model whose files or config.pbtxt do not fit together is refused when it is loaded, with the reason."""

from __future__ import annotations

import json

import onnx
import pytest

from mediamesh.inference.configuration.config import LoadError, read_config
from mediamesh.inference.model import loaded
from mediamesh.inference.settings import Settings
from tests.inference import models
from tests.inference.tiny_decoder import add_decoder


@pytest.fixture
def directory(tmp_path):
    return add_decoder(tmp_path)


async def refusal(directory) -> str:
    with pytest.raises(LoadError) as error:
        config = read_config(directory / "config.pbtxt")
        async with loaded(directory, 1, config, Settings(model_repository=directory.parent)):
            pass
    return str(error.value)


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        (
            'parameters { key: "beams" value { string_value: "4" } }',
            "parameters[beams]: not known; there are",
        ),
        ('parameters { key: "max_running" value { string_value: "many" } }', "'many', expected int from 1 to 256"),
        ('parameters { key: "temperature" value { string_value: "nan" } }', "'nan', expected float from 0 to 100"),
        ('parameters { key: "context_tokens" value { string_value: "513" } }', "513, the model has 512"),
        ('parameters { key: "cache_tokens" value { string_value: "100" } }', "do not hold one sequence of 512"),
        ("max_batch_size: 4", "max_batch_size: expected 0"),
        ('input { name: "text_input" data_type: TYPE_FP32 dims: [1] }', "input 'text_input': expected BYTES [1]"),
        ('output { name: "image" data_type: TYPE_FP32 dims: [1] }', "output 'image': expected one of text_output"),
        ("dynamic_batching {}", "dynamic_batching"),
        ("instance_group { count: 2 }", "instance_group"),
    ],
)
async def test_a_config_that_asks_for_something_else_is_refused(directory, addition, message) -> None:
    config = directory / "config.pbtxt"
    config.write_text(config.read_text() + addition)
    assert message in await refusal(directory)


async def test_a_model_that_is_not_decoupled_is_refused(directory) -> None:
    (directory / "config.pbtxt").write_text('backend: "mediamesh_decoder"')
    assert "model_transaction_policy.decoupled" in await refusal(directory)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("generation.json", "{", "generation.json: Expecting"),
        ("generation.json", "[]", "expected an object"),
        ("generation.json", '{"context_tokens": 1, "end_token_ids": []}', "context_tokens: 1, expected 2"),
        ("generation.json", '{"context_tokens": 9, "end_token_ids": "2"}', "end_token_ids: '2', expected a list"),
        ("generation.json", '{"context_tokens": 9, "end_token_ids": [5000]}', "fewer than the files beside it name"),
        (
            "generation.json",
            json.dumps({"context_tokens": 9, "end_token_ids": [], "chat": {"template": "jinja"}}),
            "expected a template, one of chatml",
        ),
        ("tokenizer.json", "{}", "tokenizer.json: is no tokenizer"),
        ("model.onnx", "no model", "model.onnx: "),
    ],
)
async def test_a_file_that_is_wrong_is_named(directory, file, content, message) -> None:
    (directory / "1" / file).write_text(content)
    assert message in await refusal(directory)


@pytest.mark.parametrize("file", ["generation.json", "tokenizer.json", "model.onnx"])
async def test_a_file_that_is_missing_is_named(directory, file) -> None:
    (directory / "1" / file).unlink()
    assert file in await refusal(directory)


async def test_a_model_that_is_no_decoder_is_told_what_one_takes(directory) -> None:
    (directory / "1" / "model.onnx").write_bytes(models.double())
    assert "is no decoder with a cache: expected inputs input_ids, attention_mask" in await refusal(directory)


async def test_a_decoder_that_does_not_keep_its_cache_in_place_is_refused(directory) -> None:
    file = directory / "1" / "model.onnx"
    model = onnx.load(file)
    (node,) = [node for node in model.graph.node if "present.0.key" in node.output]
    node.output[1] = "own"  # as exports do that append to the cache by Concat
    joined = onnx.helper.make_node("Concat", ["past_key_values.0.key", "own"], ["present.0.key"], axis=2)
    model.graph.node.append(joined)
    file.write_bytes(model.SerializeToString())
    assert "keeps its cache in place" in await refusal(directory)
