"""The choice of a token: filters keep what their definitions say, seeds make it the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mediamesh.inference.generation.sampling import Sampler, Sampling
from mediamesh.wire.errors import MeshError


def chosen(logits, *, draws: int = 400, **sampling) -> set[int]:
    """Return the tokens that come at least once."""
    sampler = Sampler(Sampling(seed=1, **sampling), [])
    return {sampler.choose(np.array(logits, np.float32)) for _ in range(draws)}


def reference(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0) -> set[int]:
    """Return the tokens that the filters leave, by their definitions."""
    scores = np.array(logits, np.float64) / temperature
    order = np.argsort(-scores, kind="stable")[: top_k or None]
    weights = np.exp(scores[order] - scores.max())
    probabilities = weights / (weights.sum() if top_k else np.exp(scores - scores.max()).sum())
    before = np.concatenate([[0], probabilities.cumsum()[:-1]])
    return {
        int(token)
        for token, cumulated, weight in zip(order, before, weights, strict=True)
        if cumulated < top_p and weight >= min_p
    }


def test_without_temperature_the_best_token_is_taken() -> None:
    assert chosen([0.0, 3.0, 2.9]) == {1}


@pytest.mark.parametrize("temperature", [5e-324, 1e-46, 1e-44, 1e-38, 1e-6])
@pytest.mark.parametrize("filters", [{}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.3}])
def test_a_temperature_next_to_zero_is_none(temperature, filters) -> None:
    assert chosen([0.0, 3.0, 2.9], draws=10, temperature=temperature, **filters) == {1}


@pytest.mark.parametrize(
    "filters", [{"top_k": 2}, {"top_p": 0.5}, {"top_p": 0.95}, {"min_p": 0.3}, {"top_k": 3, "top_p": 0.6, "min_p": 0.1}]
)
def test_filters_leave_the_tokens_of_their_definitions(filters) -> None:
    logits = [2.0, 1.0, 0.5, 1.8, -1.0, -30.0]
    assert chosen(logits, temperature=1.0, **filters) == reference(logits, **filters)


@example([0.0, 0.0625, 1e-10], 0.1, 0, 0.5, 0.0)
@given(
    st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=60),
    st.sampled_from([0.1, 1.0, 5.0]),
    st.integers(0, 70),
    st.sampled_from([0.1, 0.5, 0.9, 0.9999, 1.0]),
    st.sampled_from([0.0, 1e-9, 0.05, 1.0]),
)
def test_no_token_outside_of_the_filters_is_drawn(logits, temperature, top_k, top_p, min_p) -> None:
    filters = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    # At the edges of a filter sums in 32 bits may fall either way.
    lenient = {**filters, "top_p": min(1.0, top_p * 1.001), "min_p": min_p * 0.999}
    values = np.array(logits, np.float32)
    # What 32 bits cannot tell apart may come in any order; filters leave the best, so the least one tells.
    least = min(values[token] for token in reference(logits, **lenient))
    assert min(values[token] for token in chosen(logits, draws=20, **filters)) >= least - 1e-4


def test_draws_follow_the_probabilities() -> None:
    sampler = Sampler(Sampling(temperature=1.0, seed=3), [])
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    counts = np.bincount([sampler.choose(logits.copy()) for _ in range(4000)], minlength=3) / 4000
    assert counts == pytest.approx([0.5, 0.3, 0.2], abs=0.04)


def test_a_token_that_was_there_is_less_likely_by_the_penalty() -> None:
    assert chosen([2.0, 1.9], draws=1, repetition_penalty=1.2) == {0}
    sampler = Sampler(Sampling(repetition_penalty=1.2), [0])
    assert sampler.choose(np.array([2.0, 1.9], np.float32)) == 1
    sampler = Sampler(Sampling(repetition_penalty=1.2), [0])
    assert sampler.choose(np.array([-1.0, -1.1], np.float32)) == 1


def test_logits_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(MeshError, match="no numbers"):
        Sampler(Sampling(), []).choose(np.full(3, np.nan, np.float32))
