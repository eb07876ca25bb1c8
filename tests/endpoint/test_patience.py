"""Another attempt is made where it makes sense, and the end is said in words, on a clock that only waiting moves."""

from __future__ import annotations

import pickle
import threading
import time

import pytest
from paid import Clock

from bbtune.endpoint.failure import Failure, Refused
from bbtune.endpoint.patience import Call, Halted, Patience
from bbtune.errors import DeadlineReached, EndpointError


def broken() -> Failure:
    return Failure("HTTP 500: out of order")


def busy(retry_after_s: float | None = None) -> Failure:
    return Failure("HTTP 429: too many", "busy", charged=False, retry_after_s=retry_after_s)


class Script:
    """Attempts that fail as told, then give an answer."""

    def __init__(self, *failures: Failure) -> None:
        self.left = list(failures)
        self.attempts = 0

    def __call__(self) -> str:
        self.attempts += 1
        if self.left:
            raise self.left.pop(0)
        return "answer"


def waits(patience: Patience, *failures: Failure) -> list[float]:
    found: list[float] = []
    patience.insist(Script(*failures), found.append)
    return found


def test_waits_grow_to_half_of_the_patience():
    found = waits(Patience("place", 6, 120.0, Clock()), *(broken() for _ in range(5)))
    assert found == sorted(found)
    assert 0.5 <= found[0] <= 1.0
    assert 60 <= found[-1] <= 61


def test_what_the_server_asks_for_is_waited():
    found = waits(Patience("place", 6, 120.0, Clock()), busy(7.0), busy(0.0))
    assert 7.0 <= found[0] <= 7.5
    assert 0.0 <= found[1] <= 0.5


def test_a_request_is_given_up_after_its_attempts_and_what_failed_last_is_said():
    clock, script = Clock(), Script(*(broken() for _ in range(9)))
    with pytest.raises(
        EndpointError, match=r"place: HTTP 500: out of order; this request failed 3 times .*kept: resume"
    ):
        Patience("place", 3, 1e6, clock).insist(script, clock.pause)
    assert script.attempts == 3


def test_being_told_to_wait_is_no_failed_attempt_as_long_as_others_succeed():
    clock = Clock()
    patience = Patience("place", 3, 100.0, clock)

    def pause(seconds: float) -> None:
        clock.pause(seconds)
        patience.insist(lambda: "another request succeeds", pause)

    assert patience.insist(Script(*(busy(20.0) for _ in range(30))), pause) == "answer"


def test_when_nothing_succeeds_for_long_all_requests_end():
    clock = Clock()
    with pytest.raises(EndpointError, match=r"nothing has succeeded for \d+ s \(patience_s: 100\)"):
        Patience("place", 3, 100.0, clock).insist(Script(*(busy(20.0) for _ in range(30))), clock.pause)
    assert 100 <= clock.now <= 130


def test_after_a_break_a_new_call_has_the_whole_patience():
    clock = Clock()
    patience = Patience("place", 2, 100.0, clock)
    with pytest.raises(EndpointError):
        patience.insist(Script(*(busy(60.0) for _ in range(30))), clock.pause)
    assert patience.insist(Script(busy(60.0)), clock.pause) == "answer"


def test_a_wait_that_is_longer_than_the_patience_is_not_begun():
    clock = Clock()
    with pytest.raises(EndpointError, match="asks to wait for 3600 s"):
        Patience("place", 6, 100.0, clock).insist(Script(busy(3600.0)), clock.pause)
    assert clock.now == 0


def test_a_refusal_ends_at_once_and_keeps_its_status_over_pickling():
    script = Script(Failure("HTTP 401: wrong key", "refused", status=401))
    with pytest.raises(Refused, match="place: HTTP 401: wrong key") as caught:
        Patience("place", 6, 100.0, Clock()).insist(script, lambda _: None)
    assert script.attempts == 1
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.status) == (str(caught.value), 401)


def test_what_a_server_said_is_not_chained_to_the_error():
    with pytest.raises(EndpointError) as caught:
        Patience("place", 1, 100.0, Clock()).insist(Script(broken()), lambda _: None)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_other_errors_pass_through():
    def attempt() -> str:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        Patience("place", 6, 100.0, Clock()).insist(attempt, lambda _: None)


def test_one_attempt_and_a_short_patience_are_possible():
    assert waits(Patience("place", 1, 1e-3, Clock())) == []
    assert len(waits(Patience("place", 2, 1.0, Clock()), broken())) == 1


def test_a_call_that_is_ended_wakes_those_who_wait_and_keeps_the_first_reason():
    call = Call()
    first, second = BaseException("first"), BaseException("second")
    threading.Timer(0.01, lambda: (call.end(first), call.end(second))).start()
    with pytest.raises(Halted):
        call.pause(3600)
    assert call.error is first


def test_a_call_does_not_outlast_its_deadline():
    with pytest.raises(DeadlineReached, match="budget of seconds"):
        Call(time.monotonic() + 0.01).pause(3600)
    with pytest.raises(DeadlineReached):
        Call(time.monotonic() - 1).check()
    Call(time.monotonic() + 3600).check()
