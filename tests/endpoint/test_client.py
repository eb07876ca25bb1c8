"""Every way in which a server fails has one meaning, and its message says what to do without the key."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from email.utils import formatdate
from threading import Event
from typing import Any

import pytest
from scripted_upstream import Handler, ScriptedUpstream, Service

from bbtune.endpoint.client import Client
from bbtune.endpoint.failure import Failure
from bbtune.endpoint.request import Request
from bbtune.endpoint.secrets import Secret
from bbtune.errors import EndpointError

KEY = "sk-a-key-that-nobody-sees"
REQUEST = Request("Is it late?", "chat", max_tokens=1)


class Told(Service):
    """Answers as it is told: status, payload, headers, and a length beyond the payload."""

    def __init__(self) -> None:
        super().__init__(_Told)
        self.answer: tuple[Any, ...] = (200, b"{}")
        self.bodies: list[dict[str, Any]] = []
        self.ended = Event()


class _Told(Handler):
    def do_POST(self) -> None:
        told: Told = self.server.service  # type: ignore[attr-defined]
        told.bodies.append(json.loads(self.body()))
        if told.answer == ("silence",):
            told.ended.wait()
        else:
            self.reply(*told.answer)


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with Told() as service:
        yield service
        service.ended.set()


def failure(url: str, timeout_s: float = 20.0) -> Failure:
    client = Client(url, "tiny", Secret(KEY, "the environment variable MY_KEY"), timeout_s)
    with pytest.raises(Failure) as caught:
        client.send(REQUEST)
    client.close()
    assert KEY not in str(caught.value)
    assert caught.value.__context__ is None
    return caught.value


def said(message: str, code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": code, "param": None, "code": code}}).encode()


@pytest.mark.parametrize(
    ("status", "kind", "charged", "advice"),
    [
        (301, "refused", False, "set base_url to where it moved: http://elsewhere/v1"),
        (400, "refused", False, "HTTP 400: what is wrong"),
        (401, "refused", False, "check the environment variable MY_KEY (api_key_env)"),
        (403, "refused", False, "check the environment variable MY_KEY (api_key_env)"),
        (404, "refused", False, "knows the model 'tiny', at a base_url that ends in /v1"),
        (422, "refused", False, "HTTP 422: what is wrong"),
        (408, "broken", False, ""),
        (409, "broken", False, ""),
        (429, "busy", False, ""),
        (500, "broken", True, ""),
        (502, "broken", True, ""),
        (503, "busy", True, ""),
        (529, "broken", True, ""),
    ],
)
def test_a_status_has_one_meaning(status, kind, charged, advice, told):
    told.answer = (status, said(f"what is wrong with {KEY}"), {"Location": "http://elsewhere/v1"})
    found = failure(told.url)
    assert (found.kind, found.charged, found.status) == (kind, charged, status)
    assert advice in str(found)


def test_an_account_without_credit_is_not_asked_again(told):
    told.answer = (429, said("You exceeded your current quota", "insufficient_quota"))
    found = failure(told.url)
    assert (found.kind, found.charged) == ("refused", False)
    assert "no credit left" in str(found)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.05"}, 0.05),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "7", "retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_the_wait_that_is_asked_for_is_read(headers, seconds, told):
    told.answer = (429, said("slow down"), headers)
    assert failure(told.url).retry_after_s == seconds


def test_a_date_to_wait_for_is_read(told):
    told.answer = (503, b"", {"Retry-After": formatdate(time.time() + 1000, usegmt=True)})
    assert 900 < (failure(told.url).retry_after_s or 0) <= 1001


@pytest.mark.parametrize("status", [200, 500])
def test_a_body_that_is_cut_is_worth_another_attempt_and_may_have_been_charged(status, told):
    told.answer = (status, b'{"choices": [', None, 1000)
    found = failure(told.url)
    assert (found.kind, found.charged) == ("broken", True)


@pytest.mark.parametrize("payload", [b"", b"<html>" + KEY.encode(), b"\xff\xfe", b'{"choices": ['])
def test_garbage_is_worth_another_attempt_and_may_have_been_charged(payload, told):
    told.answer = (200, payload)
    found = failure(told.url)
    assert (found.kind, found.charged) == ("broken", True)
    assert "expected JSON" in str(found)


def test_silence_may_have_been_charged(told):
    told.answer = ("silence",)
    found = failure(told.url, timeout_s=0.2)
    assert (found.kind, found.charged) == ("broken", True)
    assert "raise timeout_s" in str(found)


def test_a_connection_that_is_never_made_is_not_charged():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        found = failure(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
    assert (found.kind, found.charged) == ("broken", False)
    assert "is it running" in str(found)


def test_a_wrong_key_that_the_server_shows_is_not_shown():
    with ScriptedUpstream(key="sk-another-key") as upstream:
        assert "Invalid API Key: Bearer ***" in str(failure(upstream.url))


def test_the_body_is_sent_as_it_is_and_comes_back_whole(told):
    odd = {"choices": [{"text": "x", "logprobs": {"content": [{"odd": [1]}]}}], "more": {"keys": None, "key": KEY}}
    told.answer = (200, json.dumps(odd).encode(), {"X-RateLimit-Remaining-Requests": "59", "Server": "odd"})
    client = Client(told.url, "tiny", Secret(KEY), 20.0)
    request = Request("Is it late?", "completion", max_tokens=0, extra=(("echo", True), ("odd", {"a": [None]})))
    response = client.send(request)
    client.close()
    assert told.bodies[-1] == request.body("tiny")
    assert response.raw == {**odd, "more": {"keys": None, "key": "***"}}
    assert response.headers == {"x-ratelimit-remaining-requests": "59"}


def test_half_a_character_is_refused_before_anything_is_sent(told):
    before = len(told.bodies)
    client = Client(told.url, "tiny", Secret(KEY), 20.0)
    with pytest.raises(Failure, match="half a character") as caught:
        client.send(Request("late \ud83d", "chat"))
    client.close()
    assert (caught.value.kind, caught.value.charged) == ("refused", False)
    assert len(told.bodies) == before


@pytest.mark.parametrize("url", ["http://[half/v1", "http://host:port/v1"])
def test_what_is_no_address_is_told(url):
    with pytest.raises(EndpointError, match="expected an address"):
        Client(url, "tiny", Secret(KEY), 20.0)
