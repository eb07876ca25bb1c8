"""Calls find hosts: in order, fairly, again where one is lost, twice where one is slow. Nothing here is Ray's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbtune.errors import EvaluationError
from bbtune.evaluation import dispatch
from bbtune.evaluation.dispatch import Dispatcher, Lost, Served


class FakeHost:
    """Works on its calls one after the other; answers with the square of a number."""

    def __init__(
        self, seconds: float = 0.0, dies_at: int | None = None, hangs_at: int | None = None, excused: bool = False
    ) -> None:
        self._turn = asyncio.Lock()
        self._seconds = seconds
        self._dies_at = dies_at
        self._hangs_at = hangs_at
        self._excused = excused
        self._dead = False
        self.begun: list[tuple[str, Any]] = []
        self.released = asyncio.Event()
        self.messages = 0

    async def start(self, search: str, method: str, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        async with self._turn:
            self.messages += 1
            return [await self._one(search, method, call) for call in calls]

    async def _one(self, search: str, method: str, arguments: tuple[Any, ...]) -> Any:
        if self._dead:
            raise Lost("a dead host")
        self.begun.append((search, arguments))
        if len(self.begun) == self._dies_at:
            self._dead = True
            raise Lost("a dead host", self._excused)
        if len(self.begun) == self._hangs_at:
            await self.released.wait()
        await asyncio.sleep(self._seconds)
        if method == "fail":
            raise EvaluationError("cannot")
        return arguments[0] ** 2 if arguments else self

    async def reached(self) -> None:
        async with self._turn:
            if self._dead:
                raise Lost("a dead host")

    def die(self) -> None:
        """While nobody asks."""
        self._dead = True


def calls(count: int) -> list[tuple[int]]:
    return [(number,) for number in range(count)]


async def with_hosts(dispatcher: Dispatcher, hosts: list[FakeHost], work: Coroutine[Any, Any, Any]) -> Any:
    """Do ``work`` while hosts serve."""
    serving = [asyncio.create_task(dispatcher.serve(host)) for host in hosts]
    await asyncio.sleep(0)
    try:
        return await asyncio.wait_for(work, 30)
    finally:
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


@given(
    seconds=st.lists(st.sampled_from([0.0, 0.001]), min_size=1, max_size=4),
    deaths=st.lists(st.one_of(st.none(), st.integers(1, 6)), min_size=4, max_size=4),
    count=st.integers(1, 12),
)
def test_answers_come_in_the_order_of_the_calls_whichever_hosts_are_lost(seconds, deaths, count):
    async def work() -> list[int]:
        dispatcher = Dispatcher()
        hosts = [FakeHost(pause, dies_at) for pause, dies_at in zip(seconds, deaths, strict=False)]
        return await with_hosts(dispatcher, [*hosts, FakeHost()], dispatcher.run("a", "square", calls(count)))

    assert asyncio.run(work()) == [number**2 for number in range(count)]


def test_a_host_that_comes_late_takes_part():
    async def work() -> list[FakeHost]:
        dispatcher, first, late = Dispatcher(), FakeHost(0.01), FakeHost(0.01)

        async def running() -> None:
            answers = asyncio.create_task(dispatcher.run("a", "square", calls(20)))
            await asyncio.sleep(0.05)
            joined = asyncio.create_task(dispatcher.serve(late))
            assert await answers == [number**2 for number in range(20)]
            joined.cancel()

        await with_hosts(dispatcher, [first], running())
        return [first, late]

    first, late = asyncio.run(work())
    assert len(first.begun) + len(late.begun) == 20
    assert len(late.begun) >= 5


def test_a_call_is_begun_once_where_nothing_is_lost_or_slow():
    async def work() -> list[FakeHost]:
        dispatcher, hosts = Dispatcher(), [FakeHost(0.001) for _ in range(3)]
        await with_hosts(dispatcher, hosts, dispatcher.run("a", "square", calls(50)))
        return hosts

    begun = Counter(arguments for host in asyncio.run(work()) for _, arguments in host.begun)
    assert begun == Counter(calls(50))


def test_searches_share_the_hosts_evenly_however_much_one_asks():
    async def work() -> list[str]:
        dispatcher, host = Dispatcher(), FakeHost(0.02)

        async def both() -> None:
            long = asyncio.create_task(dispatcher.run("long", "square", calls(80)))
            await asyncio.sleep(0.1)
            await dispatcher.run("short", "square", calls(10))
            assert not long.done()
            await long

        await with_hosts(dispatcher, [host], both())
        return [search for search, _ in host.begun]

    order = asyncio.run(work())
    first, last = order.index("short"), len(order) - 1 - order[::-1].index("short")
    assert order[first : last + 1].count("long") <= 18  # of 80; they take turns by messages of three calls


def test_what_a_slow_host_holds_is_begun_elsewhere_and_the_first_answer_counts(monkeypatch):
    monkeypatch.setattr(dispatch, "_LEAST_S", 0.2)
    monkeypatch.setattr(dispatch, "_LOOK_S", 0.02)

    async def work() -> tuple[list[int], list[int], FakeHost, FakeHost]:
        dispatcher, slow, sound = Dispatcher(), FakeHost(0.002, hangs_at=5), FakeHost(0.002)

        async def twice() -> tuple[list[int], list[int]]:
            first = await dispatcher.run("a", "square", calls(20))
            before = len(slow.begun)
            second = await dispatcher.run("a", "square", calls(10))  # gives nothing to a host that is not back
            assert len(slow.begun) == before
            slow.released.set()
            await asyncio.sleep(0.05)
            assert len(await dispatcher.run("a", "square", calls(10))) == 10
            assert len(slow.begun) > before  # it is back
            return first, second

        return *(await with_hosts(dispatcher, [slow, sound], twice())), slow, sound

    first, second, slow, sound = asyncio.run(work())
    assert first == [number**2 for number in range(20)]
    assert second == [number**2 for number in range(10)]
    assert len(slow.begun) >= 5
    assert len(sound.begun) >= 25


def test_nothing_is_begun_twice_while_there_is_other_work(monkeypatch):
    monkeypatch.setattr(dispatch, "_LEAST_S", 0.01)
    monkeypatch.setattr(dispatch, "_LOOK_S", 0.005)

    async def work() -> int:
        dispatcher = Dispatcher()
        hosts = [FakeHost(0.03), FakeHost(0.03)]
        await with_hosts(dispatcher, hosts, dispatcher.run("a", "square", calls(20)))
        return sum(len(host.begun) for host in hosts)

    assert asyncio.run(work()) == 20


def test_a_call_that_kills_every_host_ends_its_search_in_words_and_no_other():
    async def work() -> list[int]:
        dispatcher = Dispatcher()
        deadly = [FakeHost(dies_at=1) for _ in range(3)]
        serving = [asyncio.create_task(dispatcher.serve(host)) for host in deadly[:1]]
        poison = asyncio.create_task(dispatcher.run("a", "square", calls(1)))
        for host in [*deadly[1:], FakeHost()]:
            await asyncio.sleep(0.01)
            serving.append(asyncio.create_task(dispatcher.serve(host)))
        with pytest.raises(EvaluationError, match=r"3 evaluators died over the same call .*bbtune resume"):
            await poison
        answers = await dispatcher.run("b", "square", calls(3))
        for task in serving:
            task.cancel()
        return answers

    assert asyncio.run(work()) == [0, 1, 4]


def test_calls_that_waited_behind_a_deadly_one_are_not_blamed():
    """A host holds two calls; only the one that it was at may have killed it."""

    async def work() -> list[int]:
        dispatcher = Dispatcher()
        run = asyncio.create_task(dispatcher.run("a", "square", calls(6)))
        for number in range(5):  # each dies at its second call: six calls, five deaths, no call is at two of them
            host = FakeHost(dies_at=2) if number < 4 else FakeHost()
            serving = asyncio.create_task(dispatcher.serve(host))
            await asyncio.sleep(0.02)
        answers = await run
        serving.cancel()
        return answers

    assert asyncio.run(work()) == [number**2 for number in range(6)]


def test_hosts_that_were_dead_before_a_call_are_not_held_against_it():
    """As when a machine with four evaluators is lost while one of them works, or none."""

    async def work() -> list[int]:
        dispatcher, hosts = Dispatcher(), [FakeHost() for _ in range(5)]
        for host in hosts[:4]:
            host.die()
        return await with_hosts(dispatcher, hosts, dispatcher.run("a", "square", calls(1)))

    assert asyncio.run(work()) == [0]


def test_hosts_that_something_else_has_ended_are_not_held_against_the_call_that_they_were_at():
    """As when what another search loads ends them."""

    async def work() -> list[int]:
        dispatcher, hosts = Dispatcher(), [FakeHost(dies_at=1, excused=True) for _ in range(4)]
        return await with_hosts(dispatcher, [*hosts, FakeHost()], dispatcher.run("a", "square", calls(1)))

    assert asyncio.run(work()) == [0]


def test_hosts_that_are_lost_for_ever_end_a_call_whatever_the_excuse():
    async def work() -> None:
        dispatcher, hosts = Dispatcher(), [FakeHost(dies_at=1, excused=True) for _ in range(12)]
        await with_hosts(dispatcher, hosts, dispatcher.run("a", "square", calls(1)))

    with pytest.raises(EvaluationError, match="9 evaluators died over the same call"):
        asyncio.run(work())


def test_a_call_is_blamed_though_the_loss_of_the_one_behind_it_is_told_first():
    class Tells(FakeHost):
        async def start(self, search: str, method: str, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
            await asyncio.sleep(0.1 if search == "deadly" else 0.01)
            raise Lost("a dead host")

    async def work() -> Served:
        dispatcher = Dispatcher()
        serving = asyncio.create_task(dispatcher.serve(Tells()))
        await asyncio.sleep(0)
        asked = [asyncio.create_task(dispatcher.run(search, "square", calls(1))) for search in ("deadly", "other")]
        served = await asyncio.wait_for(serving, 5)
        for task in asked:
            task.cancel()
        return served

    assert asyncio.run(work()) == Served(0, "a dead host", blamed=True)


def test_a_host_that_is_found_lost_without_a_call_is_let_go():
    async def work() -> tuple[Served, int]:
        dispatcher, host = Dispatcher(), FakeHost()
        serving = asyncio.create_task(dispatcher.serve(host))
        await asyncio.sleep(0)
        dispatcher.lose(FakeHost(), Lost("another"))
        assert dispatcher.hosts == 1
        dispatcher.lose(host, Lost("its machine is gone"))
        return await asyncio.wait_for(serving, 5), dispatcher.hosts

    assert asyncio.run(work()) == (Served(0, "its machine is gone", blamed=False), 0)


def test_of_a_search_that_has_failed_nothing_is_begun_again_when_a_host_is_lost():
    async def work() -> tuple[set[str], list[Any]]:
        dispatcher, first, second = Dispatcher(), FakeHost(0.01), FakeHost()
        serving = [asyncio.create_task(dispatcher.serve(first))]
        with pytest.raises(EvaluationError, match="cannot"):
            await dispatcher.run("a", "fail", calls(5))
        first.die()  # with the second call, for which nobody waits any more
        serving.append(asyncio.create_task(dispatcher.serve(second)))
        await asyncio.sleep(0.1)
        for task in serving:
            task.cancel()
        return dispatcher.searches, second.begun

    assert asyncio.run(work()) == (set(), [])


def test_forgetting_a_search_ends_whoever_waits_for_it_and_keeps_nothing_of_it():
    async def work() -> Dispatcher:
        dispatcher, host = Dispatcher(), FakeHost(0.01)

        async def forgotten() -> None:
            running = asyncio.create_task(dispatcher.run("a", "square", calls(9)))
            await asyncio.sleep(0.03)
            dispatcher.forget("a")
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(running, 5)
            assert await dispatcher.run("b", "square", calls(3)) == [0, 1, 4]  # behind what the host still held

        await with_hosts(dispatcher, [host], forgotten())
        return dispatcher

    dispatcher = asyncio.run(work())
    assert "a" not in dispatcher._times
    assert not dispatcher.searches


def test_a_call_that_was_answered_while_it_waited_for_a_second_host_is_not_begun_there(monkeypatch):
    monkeypatch.setattr(dispatch, "_LEAST_S", 0.05)
    monkeypatch.setattr(dispatch, "_LOOK_S", 0.01)

    async def work() -> FakeHost:
        dispatcher, slow = Dispatcher(), [FakeHost(hangs_at=3) for _ in range(2)]
        late = FakeHost(hangs_at=1)

        async def running() -> None:
            await dispatcher.run("a", "square", calls(4))  # two each: how long they take is known
            answers = asyncio.create_task(dispatcher.run("a", "square", calls(4)))
            await asyncio.sleep(0.1)
            serving = asyncio.create_task(dispatcher.serve(late))
            await asyncio.sleep(0.1)  # it has two of the four calls that the slow ones hold, two wait
            for host in (*slow, late):
                host.released.set()
            assert await answers == [0, 1, 4, 9]
            await asyncio.sleep(0.05)
            serving.cancel()

        await with_hosts(dispatcher, slow, running())
        return late

    assert len(asyncio.run(work()).begun) == 2


def test_an_error_of_one_call_is_told_and_the_hosts_stay():
    async def work() -> list[int]:
        dispatcher, hosts = Dispatcher(), [FakeHost(), FakeHost()]

        async def failing() -> list[int]:
            with pytest.raises(EvaluationError, match="cannot"):
                await dispatcher.run("a", "fail", calls(5))
            return await dispatcher.run("a", "square", calls(2))

        return await with_hosts(dispatcher, hosts, failing())

    assert asyncio.run(work()) == [0, 1]


def test_a_search_that_is_cut_off_begins_nothing_more():
    async def work() -> FakeHost:
        dispatcher, host = Dispatcher(), FakeHost(0.02)

        async def cut() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(dispatcher.run("a", "square", calls(50)), 0.1)
            begun = len(host.begun)
            await asyncio.sleep(0.1)
            assert len(host.begun) <= begun + 3 * dispatch.AHEAD  # messages of three calls of 20 ms

        await with_hosts(dispatcher, [host], cut())
        return host

    assert len(asyncio.run(work()).begun) < 12


def test_every_host_is_asked_and_lost_ones_are_left_out():
    async def work() -> list[Any]:
        dispatcher, hosts = Dispatcher(), [FakeHost(), FakeHost(dies_at=1), FakeHost()]
        found = await with_hosts(dispatcher, hosts, dispatcher.each("a", "itself"))
        return [found, hosts]

    found, hosts = asyncio.run(work())
    assert found == [hosts[0], hosts[2]]


def test_brief_calls_share_messages_and_long_ones_travel_alone():
    async def work(seconds: float) -> list[tuple[int, int]]:
        dispatcher, hosts = Dispatcher(), [FakeHost(seconds) for _ in range(4)]

        async def twice() -> None:
            await dispatcher.run("a", "square", calls(20))  # what a call takes is not known before
            for host in hosts:
                host.messages, host.begun = 0, []
            assert await dispatcher.run("a", "square", calls(20)) == [number**2 for number in range(20)]

        await with_hosts(dispatcher, hosts, twice())
        return [(host.messages, len(host.begun)) for host in hosts]

    brief, long = asyncio.run(work(0.002)), asyncio.run(work(0.06))
    assert sum(count for _, count in brief) == sum(count for _, count in long) == 20
    assert sum(messages for messages, _ in brief) <= 14
    assert sum(messages for messages, _ in long) == 20
    assert max(count for _, count in long) <= 6
