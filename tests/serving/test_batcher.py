"""What waits while a batch runs goes together, requests take turns, and nothing is left behind by what fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from bbtune.serving.batcher import Batcher, QueueFull


class Model:
    """Answers texts with themselves in capitals, once it is let go on; one that says ``fail`` fails its batch."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, texts: Sequence[str]) -> list[str]:
        self.go.wait(timeout=10)
        self.batches.append(list(texts))
        if "fail" in texts:
            raise ValueError("a fault")
        return [text.upper() for text in texts]


def ran(work: Callable[[Batcher[str, str], Model], Coroutine[Any, Any, Any]], most: int = 4, waiting: int = 100) -> Any:
    """What some work on a fresh batcher gives."""
    model = Model()

    async def main() -> Any:
        return await work(Batcher(model, most, waiting), model)

    return asyncio.run(main())


def test_a_text_that_comes_alone_does_not_wait_for_others():
    async def work(batcher, model):
        assert await batcher.ask(["a"]) == ["A"]
        return model.batches

    assert ran(work) == [["a"]]


def test_texts_that_come_while_a_batch_runs_share_the_next_one_and_get_their_own_answers():
    async def work(batcher, model):
        model.go.clear()
        first = asyncio.create_task(batcher.ask(["a"]))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(batcher.ask(texts)) for texts in (["b"], ["c", "d"], ["e"])]
        await asyncio.sleep(0.05)
        model.go.set()
        return await first, await asyncio.gather(*rest), model.batches

    first, rest, batches = ran(work)
    assert (first, rest) == (["A"], [["B"], ["C", "D"], ["E"]])
    assert batches[0] == ["a"]
    assert sorted(batches[1]) == ["b", "c", "d", "e"]
    assert len(batches) == 2


def test_a_long_request_does_not_keep_short_ones_waiting():
    async def work(batcher, model):
        long = asyncio.create_task(batcher.ask([f"long{i}" for i in range(12)]))
        short = asyncio.create_task(batcher.ask(["short"]))
        assert await short == ["SHORT"]
        done_before = long.done()
        return done_before, await long, model.batches

    done_before, answers, batches = ran(work)
    assert not done_before
    assert answers == [f"LONG{i}" for i in range(12)]
    assert all(len(batch) <= 4 for batch in batches)


def test_a_batch_that_fails_fails_those_in_it_and_no_others():
    async def work(batcher, model):
        asked = [batcher.ask(["fail", "b", "c", "d", "e", "f"]), batcher.ask(["g"])]
        found = await asyncio.gather(*asked, return_exceptions=True)
        return found, await batcher.ask(["h"] * 7)

    found, after = ran(work, waiting=7)
    assert all(isinstance(one, ValueError) for one in found)
    assert after == ["H"] * 7  # the whole queue is free again


def test_no_more_waits_than_is_allowed_and_room_comes_back():
    async def work(batcher, model):
        model.go.clear()
        running = asyncio.create_task(batcher.ask(["a"] * 4))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(batcher.ask(["b"] * 5))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="busy"):
            await batcher.ask(["c", "d"])
        model.go.set()
        await asyncio.gather(running, waiting)
        return await batcher.ask(["e"] * 6)

    assert ran(work, waiting=6) == ["E"] * 6


def test_who_has_left_is_not_answered_and_takes_no_room():
    async def work(batcher, model):
        model.go.clear()
        running = asyncio.create_task(batcher.ask(["a"]))
        await asyncio.sleep(0.05)
        left = asyncio.create_task(batcher.ask(["b"] * 6))
        await asyncio.sleep(0)
        left.cancel()
        model.go.set()
        await running
        await asyncio.sleep(0.05)
        return await batcher.ask(["c"] * 6), model.batches

    answers, batches = ran(work, waiting=6)
    assert answers == ["C"] * 6
    assert "b" not in {text for batch in batches for text in batch}
