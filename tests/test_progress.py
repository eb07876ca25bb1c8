"""What a run shows while it goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bbtune import progress
from bbtune.loop import Cost, Generation, Limits
from bbtune.progress import Live, Plain, make_show
from bbtune.selection import Judged


def generation(number: int, evaluations: int) -> Generation:
    cost = Cost(evaluations, 10 * evaluations, 60 * evaluations, float(number))
    return Generation(number, (number % 3,), cost, 0, 0.5, 0.4321, 0.7, Judged(0.6, 0.7, True), 0.7123)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_plain_lines_with_all_that_matters(clock):
    out = io.StringIO()
    with make_show(Console(file=out), Limits(evaluations=100)) as show:
        assert isinstance(show, Plain)
        for number in range(6):
            show.event(generation(number, 10 * number))
            clock[0] += 5.0
    lines = out.getvalue().splitlines()
    assert len(lines) == 6
    for words in (
        "generation 5 (layer 2)",
        "best loss 0.4321",
        "dev 0.712",
        "50 evaluations",
        "2.0 evaluations/s",
        "0:25 left",
    ):
        assert words in lines[-1]
    assert "\x1b" not in out.getvalue()


def test_a_log_is_not_flooded(clock):
    out = io.StringIO()
    with Plain(Console(file=out), Limits(evaluations=10_000)) as show:
        for number in range(1000):
            show.event(generation(number, number))
            clock[0] += 0.01
    assert len(out.getvalue().splitlines()) == 2


def test_a_terminal_gets_a_bar_that_moves():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160)
    with make_show(console, Limits(evaluations=100)) as show:
        assert isinstance(show, Live)
        show.event(generation(1, 10))
        show.event(generation(4, 90))
        show.say("one line above")
    assert "best loss 0.4321" in out.getvalue()
    assert "one line above" in out.getvalue()


@pytest.mark.parametrize(
    "limits", [Limits(evaluations=200), Limits(examples=1000), Limits(layer_forwards=6000), Limits(seconds=10.0)]
)
def test_the_share_follows_whichever_limit_is_nearest(limits):
    pace = progress.Pace(limits)
    pace.take(Cost(100, 500, 3000, 5.0))
    assert pace.share == 0.5
    pace.take(Cost(1000, 5000, 30_000, 50.0))
    assert pace.share == 1.0


def test_replayed_generations_do_not_count_as_speed(clock):
    pace = progress.Pace(Limits(evaluations=1000))
    for evaluations in range(0, 500, 10):  # a resumed run replays these at once
        pace.take(Cost(evaluations))
    clock[0] += 10.0
    pace.take(Cost(510))
    assert "2.0 evaluations/s" in pace.describe()
