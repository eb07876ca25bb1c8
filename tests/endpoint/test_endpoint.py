"""Questions are asked once and paid once, caps are never passed, and the end of a call is clean."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from threading import Event

import pytest
from paid import PRICE, QUICK, paid, questions
from scripted_upstream import Handler, ScriptedUpstream, Service, llama, words

from bbtune.cost import Spent
from bbtune.endpoint import in_flight as module
from bbtune.endpoint.endpoint import Endpoint
from bbtune.endpoint.failure import Refused
from bbtune.endpoint.purse import PICO, Caps, Purse
from bbtune.endpoint.request import Answer, Request
from bbtune.endpoint.secrets import Secret
from bbtune.endpoint.store import AnswerStore
from bbtune.endpoint.usage import Bound, Price, Tokens
from bbtune.endpoint_spec import ApiSpec
from bbtune.errors import BudgetReached, DeadlineReached, EndpointError


def spent(upstream: ScriptedUpstream, cached: int = 0) -> Spent:
    """What an upstream has charged."""
    pico = Price.of(PRICE).times(Tokens(upstream.input, upstream.output))
    return Spent(upstream.requests, cached, upstream.input, upstream.output, pico / PICO)


def right(requests: list[Request], answers: list[Answer]) -> bool:
    return [answer.text for answer in answers] == ["".join(words(asked.prompt, asked.max_tokens)) for asked in requests]


def lasting(answers: list[Answer]) -> list[Answer]:
    return [replace(answer, cached=True, headers={}) for answer in answers]


@pytest.mark.parametrize("shape", ["llama", "vllm"])
@pytest.mark.parametrize("style", ["chat", "completion"])
def test_answers_come_in_order_and_what_was_charged_is_counted(shape, style, tmp_path):
    asked = questions(40, style, top_logprobs=3)
    with ScriptedUpstream(shape) as upstream, paid(upstream.url, tmp_path) as endpoint:
        answers = endpoint.ask(asked)
        assert right(asked, answers)
        assert not any(answer.cached for answer in answers)
        assert answers[0].headers == {"x-ratelimit-limit-requests": "1000000"}
        assert endpoint.purse.spent() == spent(upstream)


def test_nothing_is_asked_of_nobody(tmp_path):
    with paid("http://127.0.0.1:1/v1", tmp_path) as endpoint:
        assert endpoint.ask([]) == []


def test_a_second_call_is_answered_from_the_cache_with_the_same_answers(tmp_path):
    asked = questions(20, top_logprobs=2)
    with ScriptedUpstream() as upstream:
        with paid(upstream.url, tmp_path) as endpoint:
            first = endpoint.ask(asked)
        with paid(upstream.url, tmp_path) as endpoint:
            assert endpoint.ask(asked) == lasting(first)
            assert endpoint.purse.spent() == spent(upstream, cached=20)
        assert upstream.requests == 20


def test_equal_requests_of_a_call_are_sent_once_and_the_first_counts_as_bought(tmp_path):
    asked = questions(5) * 3
    with ScriptedUpstream() as upstream, paid(upstream.url, tmp_path) as endpoint:
        answers = endpoint.ask(asked)
        assert right(asked, answers)
        assert [answer.cached for answer in answers] == [False] * 5 + [True] * 10
        assert endpoint.purse.spent() == spent(upstream, cached=10)
        assert upstream.requests == 5


def test_requests_that_differ_in_their_repeat_alone_are_asked_each(tmp_path):
    with ScriptedUpstream() as upstream, paid(upstream.url, tmp_path) as endpoint:
        endpoint.ask([replace(questions(1)[0], repeat=number) for number in range(3)])
        assert upstream.requests == 3


def test_a_request_that_another_call_has_in_flight_is_not_sent_again(tmp_path, monkeypatch):
    arrived, waiting = Event(), Event()

    def slowly(body):
        arrived.set()
        waiting.wait(20)
        return llama(body)

    def awaited(*arguments):
        waiting.set()
        return real(*arguments)

    real = module.awaited
    monkeypatch.setattr(module, "awaited", awaited)
    with (
        ScriptedUpstream(script=slowly) as upstream,
        closing(Purse(tmp_path / "purse.db", Caps())) as purse,
        closing(Endpoint(ApiSpec(base_url=upstream.url, **QUICK), Secret(""), purse, None)) as endpoint,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(endpoint.ask, questions(1))
        assert arrived.wait(20)
        second = pool.submit(endpoint.ask, questions(1))
        assert (first.result(20)[0].cached, second.result(20)[0].cached) == (False, True)
        assert purse.spent() == spent(upstream, cached=1)
        assert upstream.requests == 1


@pytest.mark.parametrize("cap", ["requests", "tokens", "dollars"])
def test_a_cap_that_ends_the_asking_in_the_middle_is_not_passed_by_what_the_upstream_charged(cap, tmp_path):
    asked = questions(300)
    most = {"requests": 150, "tokens": 7000, "dollars": 0.001}[cap]
    with ScriptedUpstream() as upstream:
        with (
            paid(upstream.url, tmp_path, Caps(**{cap: most}), concurrency=32) as endpoint,
            pytest.raises(BudgetReached) as caught,
        ):
            endpoint.ask(asked)
        assert caught.value.reason == f"budget.{cap}"
        total = spent(upstream)
        used = {
            "requests": total.requests,
            "tokens": total.input_tokens + total.output_tokens,
            "dollars": total.dollars,
        }
        assert used[cap] <= most
        with paid(upstream.url, tmp_path, concurrency=32) as endpoint:  # without a cap
            assert endpoint.purse.spent() == total
            assert right(asked, endpoint.ask(asked))
        # What was in flight when the cap was reached has been kept; so little is left that no request fitted.
        assert set(upstream.answered.values()) == {1}
        bound = Bound().of(asked[-1])
        least = {"requests": 1, "tokens": bound.total, "dollars": Price.of(PRICE).times(bound) / PICO}
        assert most - used[cap] < least[cap]


def test_caps_hold_over_two_endpoints_with_prices_of_their_own(tmp_path):
    with (
        ScriptedUpstream() as dear,
        ScriptedUpstream() as free,
        closing(Purse(tmp_path / "purse.db", Caps(requests=30))) as purse,
        closing(Endpoint(ApiSpec(base_url=dear.url, **QUICK), Secret(""), purse, None)) as first,
        closing(Endpoint(ApiSpec(base_url=free.url, model="other"), Secret(""), purse, None)) as second,
    ):
        first.ask(questions(10))
        second.ask(questions(20))
        assert purse.spent().dollars == spent(dear).dollars
        with pytest.raises(BudgetReached, match=r"budget\.requests"):
            second.ask(questions(1))


def test_a_server_that_does_not_count_is_charged_at_the_bound(tmp_path):
    def silent(body):
        return {name: value for name, value in llama(body).items() if name != "usage"}

    with ScriptedUpstream(script=silent) as upstream, paid(upstream.url, tmp_path) as endpoint:
        (answer,) = endpoint.ask(questions(1))
        most = Bound().of(questions(1)[0])
        assert Tokens(answer.input_tokens, answer.output_tokens) == most
        assert endpoint.purse.spent().input_tokens == most.input


def test_a_failure_ends_the_call_at_once_and_what_was_answered_is_kept(tmp_path):
    asked = questions(50)

    def picky(body):
        return llama(body) if "30" not in body["messages"][0]["content"] else {"choices": []}

    with ScriptedUpstream(script=picky) as upstream:
        with (
            paid(upstream.url, tmp_path, attempts=1) as endpoint,
            pytest.raises(EndpointError, match=r"expected choices .*resume"),
        ):
            endpoint.ask(asked)
        before = upstream.requests
        assert before < 50
        upstream.script = llama
        with paid(upstream.url, tmp_path) as endpoint:
            assert right(asked, endpoint.ask(asked))
        assert upstream.requests == 51


def test_a_wrong_key_is_refused_once_for_all_threads_and_charged_to_nobody(tmp_path):
    with (
        ScriptedUpstream(key="sk-the-right-one") as upstream,
        paid(upstream.url, tmp_path, secret=Secret("sk-a-wrong-one"), concurrency=4) as endpoint,
    ):
        with pytest.raises(Refused, match=r"HTTP 401.*api_key_env") as caught:
            endpoint.ask(questions(200))
        assert "sk-a-wrong-one" not in str(caught.value)
        assert endpoint.purse.spent().requests <= 8
        assert endpoint.purse.spent().input_tokens == 0


def test_an_endpoint_that_is_down_ends_the_call_with_what_to_do_and_it_can_be_resumed(tmp_path):
    with paid("http://127.0.0.1:1/v1", tmp_path, patience_s=0.5, attempts=3) as endpoint:
        with pytest.raises(EndpointError, match=r"is it running, and base_url right.*resume"):
            endpoint.ask(questions(20))
        assert endpoint.purse.lost() == Spent()
    with ScriptedUpstream() as upstream, paid(upstream.url, tmp_path) as endpoint:
        assert right(questions(20), endpoint.ask(questions(20)))


def test_an_answer_is_kept_before_it_is_settled(tmp_path):
    class Watched(AnswerStore):
        def put(self, key: str, answer: Answer) -> None:
            seen.append(purse.spent().input_tokens)
            super().put(key, answer)

    seen: list[int] = []
    with (
        ScriptedUpstream() as upstream,
        closing(Purse(tmp_path / "purse.db", Caps())) as purse,
        closing(Watched(tmp_path / "answers.db")) as store,
        closing(Endpoint(ApiSpec(base_url=upstream.url, **QUICK), Secret(""), purse, store)) as endpoint,
    ):
        endpoint.ask(questions(1))
        assert seen == [Bound().of(questions(1)[0]).input]
        assert purse.spent() == spent(upstream)


def test_an_answer_that_cannot_be_kept_ends_the_call_and_is_paid(tmp_path):
    with ScriptedUpstream() as upstream, paid(upstream.url, tmp_path, concurrency=1) as endpoint:
        endpoint.ask(questions(1))
        with sqlite3.connect(tmp_path / "answers.db") as other:
            other.execute("DROP TABLE answers")
        other.close()
        with pytest.raises(EndpointError, match=r"answers\.db: cannot be used \(no such table"):
            endpoint.ask(questions(1))
        assert endpoint.purse.spent() == spent(upstream)


def test_a_cap_holds_for_a_server_that_has_shown_in_the_cache_that_it_counts_more(tmp_path):
    def counts_more(body):
        answer = llama(body)
        return answer | {"usage": {"prompt_tokens": 900, "completion_tokens": 2}}

    with ScriptedUpstream(script=counts_more) as upstream:
        with paid(upstream.url, tmp_path) as endpoint:
            endpoint.ask(questions(2))
        with paid(upstream.url, tmp_path, Caps(tokens=1804 + 902)) as endpoint:
            endpoint.ask(questions(1))
            with pytest.raises(BudgetReached):
                endpoint.ask(questions(20))
            assert endpoint.purse.spent().requests == 2


def test_a_deadline_ends_the_call_and_what_was_in_flight_is_kept(tmp_path):
    asked = questions(30)
    deadline = time.monotonic() + 0.3

    def slowly(body):
        while time.monotonic() < deadline:
            time.sleep(0.01)
        return llama(body)

    with ScriptedUpstream(script=slowly) as upstream, paid(upstream.url, tmp_path, concurrency=4) as endpoint:
        with pytest.raises(DeadlineReached):
            endpoint.ask(asked, deadline)
        assert upstream.requests == endpoint.purse.spent().requests == 4
        assert right(asked, endpoint.ask(asked))
        assert upstream.requests == 30


def test_a_deadline_that_has_passed_still_lets_the_cache_answer(tmp_path):
    with ScriptedUpstream() as upstream, paid(upstream.url, tmp_path) as endpoint:
        endpoint.ask(questions(3))
        assert len(endpoint.ask(questions(3), time.monotonic() - 1)) == 3
        with pytest.raises(DeadlineReached):
            endpoint.ask(questions(4), time.monotonic() - 1)


def test_one_call_that_ends_does_not_end_another_that_waits_for_the_same_answer(tmp_path):
    arrived, go = Event(), Event()

    def first_fails(body):
        if not arrived.is_set():
            arrived.set()
            go.wait(20)
            return {"choices": []}
        return llama(body)

    asked = questions(1)
    with (
        ScriptedUpstream(script=first_fails) as upstream,
        paid(upstream.url, tmp_path, attempts=1, concurrency=2) as endpoint,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(endpoint.ask, asked)
        assert arrived.wait(20)
        second = pool.submit(endpoint.ask, asked)
        go.set()
        with pytest.raises(EndpointError):
            first.result(20)
        assert right(asked, second.result(20))


@pytest.fixture
def interruptible():
    """Python's own answer to an interrupt, also where a shell has these tests ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_call_and_what_was_in_flight_is_kept(tmp_path):
    def interrupts(body):
        if "number 7 " in body["messages"][0]["content"]:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return llama(body)

    with ScriptedUpstream(script=interrupts) as upstream, paid(upstream.url, tmp_path) as endpoint:
        with pytest.raises(KeyboardInterrupt):
            endpoint.ask(questions(500))
        before = upstream.requests
        assert before < 500
        assert endpoint.purse.spent() == spent(upstream)
        upstream.script = llama
        assert right(questions(500), endpoint.ask(questions(500)))
        assert upstream.requests == 500


def test_nothing_is_sent_to_nowhere(tmp_path):
    with closing(Purse(tmp_path / "purse.db", Caps())) as purse, pytest.raises(EndpointError, match="pass base_url"):
        Endpoint(ApiSpec(serve="cache:smollm2-135m"), Secret(""), purse, None)


class _Waits(Handler):
    """Asks for an hour once, then answers."""

    def do_POST(self) -> None:
        body, service = json.loads(self.body()), self.server.service  # type: ignore[attr-defined]
        with service.lock:
            first, service.came = not getattr(service, "came", False), True
        if first:
            self.reply(429, b"{}", {"Retry-After": "3600"})
        else:
            self.reply(200, json.dumps(llama(body)).encode())


def test_a_wait_that_ended_a_call_is_not_waited_for_by_the_next(tmp_path):
    (asked,) = questions(1)
    with Service(_Waits) as service, paid(service.url, tmp_path) as endpoint:
        with pytest.raises(EndpointError, match="it asks to wait for 3600 s"):
            endpoint.ask([asked])
        assert right([asked], endpoint.ask([asked], time.monotonic() + 10))
