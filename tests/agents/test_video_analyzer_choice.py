"""Which frames are analysed, on a clock of the test's own."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mediamesh.agents.video_analyzer.choice import Choice, Verdict

TAKEN, THINNED, LATE = Verdict.TAKEN, Verdict.THINNED, Verdict.LATE


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("max_fps", "taken"), [(0, 250), (10, 100), (12.5, 125), (25, 250), (60, 250), (0.5, 5)])
def test_so_many_frames_a_second_are_taken_and_spread_evenly(max_fps, taken) -> None:
    choice = Choice(max_fps=max_fps, paced=False)
    times = [number / 25 for number in range(250)]
    chosen = [time for time in times if choice.of(time) is TAKEN]
    assert len(chosen) == taken
    assert chosen[0] == 0
    gaps = [after - before for before, after in pairwise(chosen)]
    assert max(gaps) <= max(1 / 25, 1 / (max_fps or 25)) + 0.0401


def test_after_a_pause_of_the_video_no_more_frames_come_than_a_second_may_have() -> None:
    choice = Choice(max_fps=10, paced=False)
    assert [choice.of(time) for time in (0, 5, 5.04, 5.08, 5.12)] == [TAKEN, TAKEN, THINNED, THINNED, TAKEN]


def test_without_pace_nothing_is_late_and_nothing_waits() -> None:
    clock = Clock()
    choice = Choice(max_fps=0, paced=False, clock=clock)
    for time in range(10):
        assert choice.of(time) is TAKEN
        assert choice.wait_for(time) == 0
        clock.now += 100


def test_a_paced_video_plays_at_its_own_speed() -> None:
    clock = Clock()
    choice = Choice(max_fps=0, paced=True, clock=clock)
    assert choice.of(0.5) is TAKEN
    assert choice.wait_for(0.5) == 0  # the first frame starts the clock
    clock.now += 0.1
    assert choice.of(0.9) is TAKEN
    assert choice.wait_for(0.9) == pytest.approx(0.3)


def test_frames_that_come_too_late_are_left_out_until_the_video_is_caught_up_with() -> None:
    clock = Clock()
    choice = Choice(max_fps=0, paced=True, clock=clock)
    choice.of(0)
    choice.wait_for(0)
    clock.now += 0.5
    assert [choice.of(time) for time in (0.1, 0.2, 0.3, 0.41, 0.5)] == [LATE, LATE, LATE, TAKEN, TAKEN]


def test_however_late_a_frame_of_each_second_is_taken() -> None:
    clock = Clock()
    choice = Choice(max_fps=0, paced=True, clock=clock)
    choice.of(0)
    choice.wait_for(0)
    clock.now += 1000
    chosen = [number / 10 for number in range(1, 51) if choice.of(number / 10) is TAKEN]
    assert chosen == [1, 2, 3, 4, 5]
