"""Caps hold to the token, whatever the threads, the sessions and the ends of requests."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbtune.cost import Spent
from bbtune.endpoint.purse import Caps, Purse, Ticket
from bbtune.endpoint.usage import PICO, Price, Tokens
from bbtune.endpoint_spec import PriceSpec
from bbtune.errors import BudgetReached, EndpointError

PRICE = Price.of(PriceSpec(input=0.15, output=0.6))
ENDS = {
    "settle": lambda purse, ticket: purse.settle(ticket, Tokens(ticket.bound.input // 2, ticket.bound.output)),
    "release": lambda purse, ticket: purse.release(ticket),
    "forfeit": lambda purse, ticket: purse.forfeit(ticket),
}


def cost(end: str, bound: Tokens) -> Tokens:
    return {"settle": Tokens(bound.input // 2, bound.output), "release": Tokens(), "forfeit": bound}[end]


def within(spent: Spent, caps: Caps) -> bool:
    return (
        (caps.requests is None or spent.requests <= caps.requests)
        and (caps.tokens is None or spent.input_tokens + spent.output_tokens <= caps.tokens)
        and (caps.dollars is None or round(spent.dollars * PICO) <= round(caps.dollars * PICO))
    )


jobs = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 40), st.sampled_from(sorted(ENDS))), max_size=60)
caps_ = st.builds(
    Caps,
    st.none() | st.integers(0, 50),
    st.none() | st.integers(0, 8000),
    st.none() | st.integers(0, 2000).map(lambda millionths: millionths / 1e6),
)


@settings(deadline=None, max_examples=40)
@given(jobs, caps_, st.integers(1, 16))
def test_threads_never_pass_a_cap_and_the_sum_is_exact(jobs, caps, threads):
    with TemporaryDirectory() as folder, closing(Purse(Path(folder) / "purse.db", caps)) as purse:
        seen = []

        def one(job: tuple[int, int, str]) -> tuple[Tokens, str] | None:
            given_, said, end = job
            try:
                ticket = purse.reserve(Tokens(given_, said), PRICE)
            except BudgetReached:
                return None
            seen.append(purse.spent())
            ENDS[end](purse, ticket)
            return ticket.bound, end

        with ThreadPoolExecutor(threads) as pool:
            done = [result for result in pool.map(one, jobs) if result]
        costs = [cost(end, bound) for bound, end in done]
        pico = sum(PRICE.times(each) for each in costs)
        sums = (len(done), 0, sum(each.input for each in costs), sum(each.output for each in costs), pico / PICO)
        assert purse.spent() == Spent(*sums)
        assert all(within(spent, caps) for spent in seen)


@settings(deadline=None, max_examples=25)
@given(jobs, caps_)
def test_a_new_session_goes_on_from_what_was_spent(jobs, caps):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "purse.db"
        for given_, said, end in jobs:
            with closing(Purse(path, caps)) as purse:
                before = purse.spent()
                try:
                    ticket = purse.reserve(Tokens(given_, said), PRICE)
                except BudgetReached:
                    assert purse.spent() == before
                    continue
                ENDS[end](purse, ticket)
                kept = purse.spent()
            with closing(Purse(path, caps)) as purse:
                assert purse.spent() == kept
                assert within(kept, caps)


def test_a_reservation_that_was_open_when_the_process_was_killed_counts_in_full(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from bbtune.endpoint.purse import *; "
        "purse = Purse(Path(sys.argv[1]), Caps(requests=3)); "
        "purse.settle(purse.reserve(Tokens(10, 1), Price(5, 7)), Tokens(4, 1)); "
        "purse.reserve(Tokens(100, 10), Price(5, 7)); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "purse.db")], check=False, timeout=60)
    with closing(Purse(tmp_path / "purse.db", Caps(requests=3))) as purse:
        assert purse.spent() == Spent(2, 0, 104, 11, (104 * 5 + 11 * 7) / PICO)
        assert purse.lost() == Spent(1, 0, 100, 10, (100 * 5 + 10 * 7) / PICO)
        purse.release(purse.reserve(Tokens(1, 1), Price()))
        with pytest.raises(BudgetReached, match=r"budget\.requests"):
            purse.reserve(Tokens(1, 1), Price())


@pytest.mark.parametrize(
    ("caps", "reason"),
    [
        (Caps(requests=2), "budget.requests"),
        (Caps(tokens=25), "budget.tokens"),
        (Caps(dollars=25e-6), "budget.dollars"),
    ],
)
def test_the_cap_that_is_reached_is_named(caps, reason, tmp_path):
    with closing(Purse(tmp_path / "purse.db", caps)) as purse:
        for _ in range(2):
            purse.settle(purse.reserve(Tokens(9, 1), Price(PICO // 10**6, PICO // 10**6)), Tokens(9, 1))
        with pytest.raises(BudgetReached) as caught:
            purse.reserve(Tokens(9, 1), Price(PICO // 10**6, PICO // 10**6))
        assert caught.value.reason == reason


def test_a_request_waits_for_others_in_flight_that_may_cost_less_than_the_most(tmp_path):
    with closing(Purse(tmp_path / "purse.db", Caps(tokens=100))) as purse, ThreadPoolExecutor(1) as pool:
        first = purse.reserve(Tokens(60, 0), Price())
        waiting = Event()
        second = pool.submit(purse.reserve, Tokens(60, 0), Price(), waiting.set)
        assert waiting.wait(20)
        assert not second.done()
        purse.settle(first, Tokens(40, 0))
        assert second.result(20).bound == Tokens(60, 0)
        assert purse.spent().input_tokens == 100


def test_waiting_for_others_can_be_ended(tmp_path):
    def stop() -> None:
        raise KeyboardInterrupt

    with closing(Purse(tmp_path / "purse.db", Caps(tokens=100))) as purse:
        purse.reserve(Tokens(60, 0), Price())
        with pytest.raises(KeyboardInterrupt):
            purse.reserve(Tokens(60, 0), Price(), stop)


def test_what_is_held_back_is_there_when_it_is_released(tmp_path):
    with closing(Purse(tmp_path / "purse.db", Caps(requests=5, tokens=100))) as purse:
        purse.hold_back(Spent(requests=1, input_tokens=40, output_tokens=10))
        purse.settle(purse.reserve(Tokens(50, 0), Price()), Tokens(50, 0))
        with pytest.raises(BudgetReached, match=r"budget\.tokens"):
            purse.reserve(Tokens(1, 0), Price())
        purse.release_hold()
        purse.settle(purse.reserve(Tokens(40, 10), Price()), Tokens(40, 10))
        assert purse.spent().requests == 2


def test_money_is_exact_where_floats_are_not(tmp_path):
    with closing(Purse(tmp_path / "purse.db", Caps(dollars=0.3))) as purse:
        dime = Price.of(PriceSpec(input=100_000, output=0))
        for _ in range(3):
            purse.settle(purse.reserve(Tokens(1, 0), dime), Tokens(1, 0))
        assert purse.spent().dollars == 0.3
        with pytest.raises(BudgetReached):
            purse.reserve(Tokens(1, 0), Price(1, 0))


def test_what_a_server_charges_beyond_the_bound_is_counted_and_ends_the_asking(tmp_path):
    with closing(Purse(tmp_path / "purse.db", Caps(tokens=100))) as purse:
        purse.settle(purse.reserve(Tokens(50, 1), Price()), Tokens(120, 1))
        assert purse.spent().input_tokens == 120
        with pytest.raises(BudgetReached):
            purse.reserve(Tokens(1, 1), Price())


def test_a_second_process_is_kept_out(tmp_path):
    with (
        closing(Purse(tmp_path / "purse.db", Caps())),
        pytest.raises(EndpointError, match="end the other process"),
    ):
        Purse(tmp_path / "purse.db", Caps())


def test_a_damaged_file_says_that_its_accounts_would_be_lost(tmp_path):
    (tmp_path / "purse.db").write_bytes(b"not a database, whatever its name may say" * 100)
    with pytest.raises(EndpointError, match=r"damaged.*know what was spent"):
        Purse(tmp_path / "purse.db", Caps())


def test_answers_that_cost_nothing_are_counted_over_all_sessions(tmp_path):
    for total in (3, 6):
        with closing(Purse(tmp_path / "purse.db", Caps())) as purse:
            purse.note_cached(3)
            assert purse.spent() == Spent(cached=total)


def test_a_ticket_knows_its_price(tmp_path):
    with closing(Purse(tmp_path / "purse.db", Caps())) as purse:
        dear: Ticket = purse.reserve(Tokens(10, 0), Price(PICO, 0))
        cheap = purse.reserve(Tokens(10, 0), Price())
        purse.settle(cheap, Tokens(10, 0))
        purse.settle(dear, Tokens(3, 0))
        assert purse.spent().dollars == 3.0
