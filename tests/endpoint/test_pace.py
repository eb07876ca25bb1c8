"""Requests and tokens in any minute stay within the limits, on a clock that only waiting moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paid import Clock

from bbtune.endpoint.pace import WINDOW_S, Pace


def in_any_minute(times: list[float], amounts: list[int]) -> int:
    """The most in a window that begins with a request."""
    pairs = list(zip(times, amounts, strict=True))
    return max(sum(each for at, each in pairs if start <= at < start + WINDOW_S) for start in times)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.floats(0, 20)), min_size=1, max_size=60),
    st.integers(1, 10),
    st.integers(300, 1000),
)
def test_no_minute_has_more_requests_or_tokens_than_allowed(asked, requests, tokens):
    clock = Clock()
    pace = Pace(requests, tokens, clock)
    times = []
    for amount, idle_s in asked:
        clock.now += idle_s
        pace.take(amount, clock.pause)
        times.append(clock.now)
    assert in_any_minute(times, [1] * len(times)) <= requests
    assert in_any_minute(times, [amount for amount, _ in asked]) <= tokens


def test_without_limits_nobody_waits():
    clock = Clock()
    pace = Pace(clock=clock)
    for _ in range(1000):
        pace.take(10**6, clock.pause)
    assert clock.now == 0


def test_the_limit_is_used_up():
    clock = Clock()
    pace = Pace(requests_per_minute=10, clock=clock)
    for _ in range(35):
        pace.take(1, clock.pause)
    assert clock.now == pytest.approx(3 * WINDOW_S)


def test_a_request_larger_than_the_limit_goes_alone():
    clock = Clock()
    pace = Pace(tokens_per_minute=100, clock=clock)
    pace.take(60, clock.pause)
    pace.take(500, clock.pause)
    assert clock.now == WINDOW_S
    pace.take(1, clock.pause)
    assert clock.now == 2 * WINDOW_S


def test_what_a_request_did_not_use_is_there_for_the_next():
    clock = Clock()
    pace = Pace(tokens_per_minute=100, clock=clock)
    pace.correct(pace.take(100, clock.pause), 30)
    pace.take(70, clock.pause)
    assert clock.now == 0


def test_a_request_that_leaves_later_than_its_turn_counts_from_when_it_leaves():
    clock = Clock()
    pace = Pace(requests_per_minute=2, clock=clock)
    late, early = pace.take(1, clock.pause), pace.take(1, clock.pause)
    pace.leave(early)
    clock.now = 50.0
    pace.leave(late)
    pace.take(1, clock.pause)
    assert clock.now == 60.0
    pace.take(1, clock.pause)
    assert clock.now == 110.0


def test_a_pause_that_a_server_asks_for_holds_for_all_and_a_shorter_one_does_not_end_it():
    clock = Clock()
    pace = Pace(clock=clock)
    pace.hold(7)
    pace.hold(2)
    pace.take(1, clock.pause)
    assert clock.now == 7


def test_waiting_can_be_ended():
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    pace = Pace(clock=Clock())
    pace.hold(7)
    with pytest.raises(KeyboardInterrupt):
        pace.take(1, stop)
