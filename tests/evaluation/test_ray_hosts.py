"""Evaluators that are lost, and the searches that share them: who is to blame is sent away, the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from bbtune.errors import EvaluationError
from bbtune.evaluation import ray_hosts
from bbtune.evaluation.dispatch import Lost
from bbtune.evaluation.ray_hosts import RayHosts

IN_A_ROW = "3 evaluators in a row died before they gave a result"
LOADING = "3 evaluators in a row died while they loaded this search"


class FakeHost:
    """An actor without Ray. A plan is a mapping: whose ``deadly`` is true ends the actors that load it."""

    def __init__(self, *_: Any) -> None:
        self.is_placed = False
        self.loading: str | None = None
        self._ready: set[str] = set()
        self._dead = False

    async def placed(self) -> None:
        self.is_placed = True

    async def prepare(self, search: str, plan: dict[str, Any]) -> None:
        if search in self._ready:
            return
        self.loading = search
        await asyncio.sleep(0)
        deadly = plan["deadly"]
        if deadly() if callable(deadly) else deadly:
            self._dead = True
            plan["deaths"] = plan.get("deaths", 0) + 1
            plan.get("then", lambda: None)()
        self._alive()
        self.loading = None
        self._ready.add(search)
        plan["loaded"] = plan.get("loaded", 0) + 1

    def has_loaded(self, search: str) -> bool:
        return search in self._ready

    async def start(self, search: str, method: str, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        await asyncio.sleep(0)
        self._dead = self._dead or method == "die"
        self._alive()
        assert search in self._ready
        return [method] * len(calls)

    async def reached(self) -> None:
        self._alive()

    def forget(self, search: str) -> None:
        self._ready.discard(search)

    def kill(self) -> None:
        self.is_placed = False
        self._dead = True

    def _alive(self) -> None:
        if self._dead:
            raise Lost("killed", excused=self.loading is not None)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[RayHosts, list[str]], Coroutine[Any, Any, Any]]], Any]:
    """Runs a coroutine function with a pool of fake actors, and what it says."""
    monkeypatch.setattr(ray_hosts, "RayHost", FakeHost)
    monkeypatch.setattr(ray_hosts, "room", lambda *_: 2)
    monkeypatch.setattr(ray_hosts, "_LOOK_S", 0.01)
    monkeypatch.setattr(ray_hosts, "_GATHER_S", 0.1)

    def run(work: Callable[[RayHosts, list[str]], Coroutine[Any, Any, Any]]) -> Any:
        async def whole() -> Any:
            said: list[str] = []
            hosts = RayHosts(SimpleNamespace(), SimpleNamespace(count=1), said.append, object)  # type: ignore[arg-type]
            try:
                return await asyncio.wait_for(work(hosts, said), 20)
            finally:
                hosts.close()

        return asyncio.run(whole())

    return run


async def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come true")


def good() -> dict[str, Any]:
    return {"deadly": False}


def test_what_is_too_much_for_every_evaluator_is_told_and_the_rest_has_all_evaluators_again(pool):
    async def work(hosts: RayHosts, said: list[str]) -> None:
        await hosts.join("good", good(), 2)
        bad = {"deadly": True}
        with pytest.raises(EvaluationError, match=LOADING):
            await hosts.join("bad", bad, 2)
        assert 3 <= bad["deaths"] <= 6
        await until(lambda: hosts.count == 2)
        assert await hosts.run("good", "ask", [()]) == ["ask"]

    pool(work)


def test_alone_it_ends_the_pool(pool):
    async def work(hosts: RayHosts, _: list[str]) -> None:
        with pytest.raises(EvaluationError, match=IN_A_ROW):
            await hosts.join("bad", {"deadly": True}, 2)
        assert hosts.has_failed

    pool(work)


@pytest.mark.parametrize("deaths", [1, 2, 3])
def test_what_has_left_is_not_held_against_the_others(deaths, pool):
    """One that gives up while the last evaluators die over it."""

    async def work(hosts: RayHosts, _: list[str]) -> None:
        await hosts.join("good", good(), 1)

        def leave() -> None:
            if bad["deaths"] == deaths:
                hosts.leave("bad")

        bad: dict[str, Any] = {"deadly": True, "then": leave}
        joining = asyncio.create_task(hosts.join("bad", bad, 1))
        await asyncio.wait([joining])
        assert joining.cancelled()
        await until(lambda: hosts.count == 1)
        assert await hosts.run("good", "ask", [()]) == ["ask"]
        assert not hosts.has_failed

    pool(work)


def test_coming_and_going_of_others_does_not_put_off_the_end_of_what_is_too_much(pool):
    async def work(hosts: RayHosts, _: list[str]) -> None:
        await hosts.join("good", good(), 4)
        bad: dict[str, Any] = {"deadly": True}
        joining = asyncio.create_task(hosts.join("bad", bad, 4))
        for number in range(200):
            hosts.leave(f"passer-by {number}")
            await asyncio.sleep(0.002)
        with pytest.raises(EvaluationError, match=LOADING):
            await joining
        assert bad["deaths"] <= 12

    pool(work)


def test_a_place_where_a_search_cannot_be_loaded_is_given_up_if_others_have_loaded_it(pool):
    """Machines of two sizes."""

    async def work(hosts: RayHosts, said: list[str]) -> None:
        await hosts.join("good", good(), 2)
        large = {"deadly": lambda: large.setdefault("loaded", 0) >= 1, "loaded": 0}
        await hosts.join("large", large, 2)
        await until(lambda: any("no other takes their place" in line for line in said))
        assert hosts.count == 1
        assert await hosts.run("large", "ask", [()]) == ["ask"]
        hosts.leave("large")
        await until(lambda: hosts.count == 2)

    pool(work)


def test_deaths_of_different_causes_are_not_added_up(pool):
    async def work(hosts: RayHosts, _: list[str]) -> None:
        plan = good()
        await hosts.join("good", plan, 1)

        def leave() -> None:
            if bad["deaths"] == 2:
                hosts.leave("bad")
                plan["deadly"] = True
                plan["then"] = lambda: plan.update(deadly=False)  # once

        bad: dict[str, Any] = {"deadly": True, "then": leave}
        await asyncio.wait([asyncio.create_task(hosts.join("bad", bad, 1))])
        await until(lambda: plan.get("deaths") == 1 and hosts.count == 1)
        assert await hosts.run("good", "ask", [()]) == ["ask"]

    pool(work)


def test_a_call_that_kills_ends_its_own_search_alone(pool):
    async def work(hosts: RayHosts, _: list[str]) -> None:
        await hosts.join("good", good(), 1)
        await hosts.join("bad", good(), 1)
        with pytest.raises(EvaluationError, match="3 evaluators died over the same call"):
            await hosts.run("bad", "die", [()])
        assert await hosts.run("good", "ask", [()]) == ["ask"]

    pool(work)


def test_a_search_that_was_sent_away_between_its_calls_is_told_at_the_next(pool):
    async def work(hosts: RayHosts, _: list[str]) -> None:
        await hosts.join("good", good(), 1)
        grown = good()
        await hosts.join("grown", grown, 1)
        grown["deadly"] = True  # its memory is not there any more when the next evaluator loads it
        with pytest.raises(EvaluationError, match="over the same call"):
            await hosts.run("good", "die", [()])
        await until(lambda: grown.get("deaths", 0) == 3)
        assert await hosts.run("good", "ask", [()]) == ["ask"]
        with pytest.raises(EvaluationError, match=LOADING):
            await hosts.run("grown", "ask", [()])
        hosts.leave("grown")
        grown["deadly"] = False
        await hosts.join("grown", grown, 1)
        assert await hosts.run("grown", "ask", [()]) == ["ask"]

    pool(work)
