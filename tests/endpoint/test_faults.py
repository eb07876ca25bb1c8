"""A faulty line, a killed process: every answer arrives, is paid once, and the accounts fit those of the server."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import Fault, FaultProxy
from logged import everything_logged
from paid import PRICE, on_disk, paid, questions
from scripted_upstream import ScriptedUpstream, body_hash, llama, words

from bbtune.cost import Spent
from bbtune.endpoint.purse import PICO, Caps, Purse
from bbtune.endpoint.request import Answer, Request
from bbtune.endpoint.secrets import Secret
from bbtune.endpoint.usage import Price, Tokens
from bbtune.errors import BudgetReached, EndpointError

FAULTS: dict[Fault, float] = {"429-retry-after": 0.02, "429": 0.01, "500": 0.02, "slow": 0.02}
FAULTS |= {"cut": 0.01, "garbage": 0.01}
LATE: dict[Fault, float] = {"late": 0.0005}
MANY: dict[str, Any] = {"concurrency": 32, "attempts": 12, "patience_s": 20.0}
KEY = "sk-never-on-disk-0123456789"


def pico(tokens: Tokens) -> int:
    return Price.of(PRICE).times(tokens)


def check_accounts(spent: Spent, lost: Spent, upstream: ScriptedUpstream, proxy: FaultProxy) -> None:
    """What arrived is paid exactly; what did not is paid at the most it can have been."""
    assert spent.requests == proxy.requests
    assert upstream.requests == proxy.requests - sum(proxy.done[fault] for fault in ("429-retry-after", "429", "500"))
    assert lost.requests == sum(proxy.done[fault] for fault in ("500", "cut", "garbage", "late"))
    arrived = Tokens(upstream.input - proxy.lost_input, upstream.output - proxy.lost_output)
    paid_for = spent - lost
    assert (paid_for.input_tokens, paid_for.output_tokens) == (arrived.input, arrived.output)
    assert round(spent.dollars * PICO) - round(lost.dollars * PICO) == pico(arrived)
    assert round(lost.dollars * PICO) == pico(Tokens(lost.input_tokens, lost.output_tokens))
    assert lost.input_tokens >= proxy.lost_input
    assert lost.output_tokens >= proxy.lost_output


def check_answers(asked: list[Request], answers: list[Answer]) -> None:
    assert [answer.text for answer in answers] == ["".join(words(each.prompt, each.max_tokens)) for each in asked]


def check_paid_once(asked: list[Request], upstream: ScriptedUpstream, proxy: FaultProxy) -> None:
    """Every answer that arrived was sold once."""
    assert upstream.answered - proxy.lost == Counter({body_hash(each.body("tiny")) for each in asked})


@contextmanager
def faulty(shares: dict[Fault, float], **upstream_: Any) -> Iterator[tuple[ScriptedUpstream, FaultProxy]]:
    with ScriptedUpstream(**upstream_) as upstream, FaultProxy(upstream.url, shares, seed=3) as proxy:
        yield upstream, proxy


@pytest.mark.parametrize(
    "number",
    [pytest.param(300, id="some"), pytest.param(10_000, id="ten-thousand", marks=pytest.mark.slow)],
)
def test_over_a_faulty_line_no_answer_is_lost_none_is_paid_twice_and_all_is_accounted_for(number, tmp_path):
    distinct = questions(number, top_logprobs=2)
    asked = distinct + distinct[:: number // 100]
    shares = FAULTS | (LATE if number > 1000 else {})
    with faulty(shares) as (upstream, proxy):
        with paid(proxy.url, tmp_path, timeout_s=10.0, **MANY) as endpoint:
            answers = endpoint.ask(asked)
            check_answers(asked, answers)
            check_paid_once(distinct, upstream, proxy)
            check_accounts(endpoint.purse.spent(), endpoint.purse.lost(), upstream, proxy)
            assert endpoint.purse.spent().cached == len(asked) - len(distinct)
            total = endpoint.purse.spent()
        assert all(proxy.done[fault] for fault in shares)
        sent = proxy.requests
        with paid(proxy.url, tmp_path, **MANY) as endpoint:
            assert endpoint.ask(asked) == [replace(answer, cached=True, headers={}) for answer in answers]
            assert replace(endpoint.purse.spent(), cached=0) == replace(total, cached=0)
        assert proxy.requests == sent


@pytest.mark.parametrize(
    ("cap", "times"),
    [("requests", 1), ("tokens", 1), ("dollars", 1), pytest.param("dollars", 50, marks=pytest.mark.slow)],
)
def test_over_a_faulty_line_a_cap_is_not_passed_by_what_the_upstream_charges(cap, times, tmp_path):
    most = times * {"requests": 150, "tokens": 9000, "dollars": 0.0015}[cap]
    with faulty(FAULTS) as (upstream, proxy):
        with paid(proxy.url, tmp_path, Caps(**{cap: most}), **MANY) as endpoint:
            with pytest.raises(BudgetReached, match=rf"budget\.{cap}"):
                endpoint.ask(questions(200 * times + 200))
            check_accounts(endpoint.purse.spent(), endpoint.purse.lost(), upstream, proxy)
        charged = Tokens(upstream.input, upstream.output)
        assert upstream.requests > 0
        assert {"requests": proxy.requests, "tokens": charged.total, "dollars": pico(charged) / PICO}[cap] <= most


def test_one_wrong_key_among_the_answers_ends_it_and_the_rest_is_kept(tmp_path):
    asked = questions(200)
    with faulty({"wrong-key": 0.02}) as (upstream, proxy):
        with paid(proxy.url, tmp_path, **MANY) as endpoint, pytest.raises(EndpointError, match=r"HTTP 401.*key"):
            endpoint.ask(asked)
        assert 0 < upstream.requests < 200
    with ScriptedUpstream() as again, paid(again.url, tmp_path, **MANY) as endpoint:
        check_answers(asked, endpoint.ask(asked))
        assert again.requests == 200 - upstream.requests


CHILD = """
import sys
from pathlib import Path
from paid import paid, questions

with paid(sys.argv[1], Path(sys.argv[2]), concurrency=int(sys.argv[4])) as endpoint:
    endpoint.ask(questions(int(sys.argv[3])))
"""


@pytest.mark.parametrize(
    ("number", "answered", "flying"),
    [
        pytest.param(100, 40, 8, id="some"),
        pytest.param(2000, 700, 32, id="two-thousand", marks=pytest.mark.slow),
    ],
)
def test_after_kill_9_nothing_is_bought_twice_and_what_was_in_flight_counts_in_full(number, answered, flying, tmp_path):
    asked = questions(number)
    with ScriptedUpstream(hold_after=answered) as upstream:
        command = [sys.executable, "-c", CHILD, upstream.url, str(tmp_path), str(number), str(flying)]
        child = subprocess.Popen(command, cwd=Path(__file__).parents[1])
        # A thread of the child asks the next once it has kept the last: when all are held, all answers have been kept.
        assert all(upstream.held.acquire(timeout=120) for _ in range(flying))
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert upstream.requests == answered
        upstream.answer_again()
        with closing(Purse(tmp_path / "purse.db", Caps())) as purse:
            assert purse.lost().requests == flying
            assert (purse.spent() - purse.lost()).input_tokens == upstream.input
            assert (purse.spent() - purse.lost()).output_tokens == upstream.output
        with paid(upstream.url, tmp_path, concurrency=flying) as endpoint:
            check_answers(asked, endpoint.ask(asked))
            assert endpoint.purse.spent().requests == number + flying
        assert set(upstream.answered.values()) == {1}
        assert upstream.requests == number


def test_the_key_is_nowhere_on_disk_whatever_fails_and_whoever_shows_it(tmp_path, monkeypatch):
    monkeypatch.setenv("OF_THE_TEST", KEY)

    def chatty(body: dict[str, Any]) -> dict[str, Any]:
        answer = llama(body)
        answer["choices"][0]["message"]["content"] += f" Your key is {KEY}."
        return answer | {"seen": {f"Bearer {KEY}": [KEY]}, "usage": answer["usage"] | {"key": KEY}}

    errors = []
    with (
        everything_logged(tmp_path / "all.log"),
        faulty(FAULTS | {"wrong-key": 0.01}, script=chatty, key=KEY) as (_, proxy),
    ):
        proxy.echo_key = True
        for secret in (*[Secret.from_environment("OF_THE_TEST")] * 3, Secret(f"{KEY}-but-wrong")):
            try:
                with paid(proxy.url, tmp_path, secret=secret, **MANY) as endpoint:
                    answers = endpoint.ask(questions(150, top_logprobs=2))
                    assert all(answer.text.endswith("Your key is ***.") for answer in answers)
            except EndpointError as error:
                errors.append(error)
                logging.exception("it failed")
        assert proxy.done["wrong-key"]
    assert errors
    assert not any(KEY in f"{error!s} {error!r}" for error in errors)
    files = on_disk(tmp_path)
    assert {"purse.db", "answers.db", "all.log"} <= {path.name for path in files}
    assert any(b"Your key is ***." in content for content in files.values())
    assert "HTTP Request" in (tmp_path / "all.log").read_text()
    assert not [path for path, content in files.items() if KEY.encode() in content]
