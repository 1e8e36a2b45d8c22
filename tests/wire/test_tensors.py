"""Tensors and requests survive the way to bytes and back, and no bytes break the way back."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from mediamesh.api.inference.v2.inference_service_pb2 import ModelInferRequest
from mediamesh.wire import infer_request
from mediamesh.wire.infer_request import join, split
from mediamesh.wire.tensors import DTYPES, bf16_to_fp32, datatype_of, from_raw, to_raw

BULK = 20_000  # bytes from which requests are walked


@given(st.lists(st.binary(max_size=64), max_size=4), st.text(max_size=8), st.booleans())
def test_a_request_is_taken_apart_as_protobuf_would(raw, request_id, bulky) -> None:
    raw = [*raw, b"x" * BULK] if bulky else raw
    message = ModelInferRequest(model_name="model", id=request_id)
    message.inputs.add(name="x", datatype="FP32", shape=[1, -2])
    whole = ModelInferRequest.FromString(join(message, raw))
    assert list(whole.raw_input_contents) == raw
    parted = split(whole.SerializeToString())
    assert parted.message == message
    assert [bytes(content) for content in parted.raw] == raw


@given(st.binary(max_size=200), st.binary(max_size=200), st.booleans())
def test_bytes_that_are_no_request_are_refused_as_protobuf_would(before, after, bulky) -> None:
    data = before + (b"\x3a\xa0\x9c\x01" + b"x" * BULK if bulky else b"") + after
    try:
        whole = ModelInferRequest.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            split(data)
    else:
        raw = list(whole.raw_input_contents)
        whole.ClearField("raw_input_contents")
        parted = split(data)
        assert [bytes(content) for content in parted.raw] == raw
        assert parted.message.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


def test_a_large_tensor_is_a_view_of_the_message() -> None:
    data = join(ModelInferRequest(model_name="model"), [bytes(BULK)])
    (content,) = split(data).raw
    assert isinstance(content, memoryview)
    assert content.obj is data
    assert len(data) > infer_request._WORTH_A_WALK


@given(st.sampled_from(sorted(DTYPES)), st.binary(max_size=64), st.lists(st.integers(0, 5), max_size=3))
def test_no_bytes_break_a_tensor_and_those_that_hold_one_come_back(datatype, raw, shape) -> None:
    try:
        array = from_raw(datatype, shape, raw)
    except ValueError:
        return
    assert array.shape == tuple(shape)
    assert bytes(to_raw(array)) == raw


@pytest.mark.parametrize("dtype", [complex, "M8[s]", np.longdouble])
def test_an_array_that_no_tensor_holds_is_refused(dtype) -> None:
    with pytest.raises(ValueError, match="no tensor holds"):
        datatype_of(np.zeros(1, dtype))


@pytest.mark.stack
def test_bf16_bits_are_the_upper_half_of_floats() -> None:
    assert bf16_to_fp32(np.array([0x3FC0, 0xC000, 0x7F80], np.uint16)).tolist() == [1.5, -2, float("inf")]


def test_texts_are_read_no_further_than_a_shape_claims_them() -> None:
    unreadable = b"\xff" * 4
    with pytest.raises(ValueError, match="holds more than 1 BYTES elements, 4 bytes of them"):
        from_raw("BYTES", [1], b"\x01\0\0\0a" + unreadable)
