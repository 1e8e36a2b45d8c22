"""The fuzzer's targets a few times each, always the same; ``python -m tests.inference.fuzz_tensors`` goes on."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from mediamesh.inference.rest.elements import elements_of, raw_of
from mediamesh.wire.tensors import DTYPES, from_raw
from tests.inference.fuzz_tensors import TARGETS

_FEW = settings(max_examples=20, derandomize=True, deadline=None, database=None)


@pytest.mark.parametrize("target", TARGETS)
def test_whatever_comes_is_understood_or_refused(target) -> None:
    assert {target(random.Random(seed)) for seed in range(100)} == {"understood", "refused"}


@pytest.mark.parametrize("kind", ["BOOL", "INT64", "UINT64", "FP64"])
def test_what_json_says_is_what_the_tensor_holds(kind) -> None:
    @_FEW
    @given(st_numpy.arrays(DTYPES[kind], st_numpy.array_shapes(min_dims=1, max_dims=3, max_side=4)))
    def holds(array: np.ndarray) -> None:
        raw = bytes(raw_of(kind, array.shape, array.tolist()))
        assert raw == array.tobytes() or np.isnan(array.astype(np.float64)).any()
        flat = elements_of(kind, array.shape, raw)
        assert np.array_equal(np.array(flat, DTYPES[kind]), array.ravel(), equal_nan=array.dtype.kind == "f")

    holds()


@_FEW
@given(st.lists(st.binary(max_size=20), max_size=6), st.integers(0, 200), st.binary(max_size=3))
def test_texts_are_taken_apart_as_they_were_put_together_or_refused(texts, cut, more) -> None:
    raw = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    assert from_raw("BYTES", [len(texts)], raw).tolist() == texts
    broken = raw[:cut] + more
    if broken != raw:
        try:
            assert from_raw("BYTES", [len(texts)], broken).tolist() != texts
        except ValueError as error:
            assert "BYTES element" in str(error)  # noqa: PT017 - refused or another tensor, both are right
