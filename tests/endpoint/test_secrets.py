"""A key is used, and not shown."""

from __future__ import annotations

import json
import pickle
from base64 import b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbtune.endpoint.secrets import Secret
from bbtune.errors import EndpointError

KEY = 'sk-pro/j"a\\b+c=='
keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=40)


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(EndpointError, match="expected a key in the environment variable NOT_SET, got nothing; export"):
        Secret.from_environment("NOT_SET")


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    assert Secret.from_environment("MY_KEY").reveal() == KEY


def test_an_endpoint_without_a_key_gets_a_word_of_ours():
    assert Secret.from_environment(None).reveal() == "no-key"


@pytest.mark.parametrize("key", ["schlüssel", "two words", "line\nline"])
def test_what_cannot_be_sent_in_a_header_is_refused_and_not_shown(key, monkeypatch):
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(EndpointError, match="visible ASCII") as caught:
        Secret.from_environment("MY_KEY")
    assert key not in str(caught.value)


@pytest.mark.parametrize("show", [repr, str, "{}".format, lambda secret: repr([secret])])
def test_showing_it_does_not_show_it(show):
    assert KEY not in show(Secret(KEY))


def test_it_is_not_pickled():
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(KEY))


@given(keys, st.text(max_size=9), st.text(max_size=9))
def test_no_form_of_it_is_left_in_a_text(key, before, after):
    secret = Secret(key)
    whole = f"{before}{key}{after}"
    for text in (whole, json.dumps(whole), repr(whole), quote(whole), quote(whole, safe="")):
        assert key not in secret.redact(text)
    assert json.dumps(key)[1:-1] not in secret.redact(json.dumps(whole))
    assert quote(key, safe="") not in secret.redact(quote(whole, safe=""))


@pytest.mark.parametrize("before", ["", ":", "me", "Bearer ", "user:"])
def test_it_is_found_inside_base64(before):
    hidden = Secret("sk-abcdefghijkl").redact(b64encode(f"{before}sk-abcdefghijkl and more".encode()).decode())
    assert "***" in hidden


def test_json_is_searched_in_all_its_texts():
    raw = {"a": [{"b": f"key {KEY}"}, 3, None, True], KEY: 1.5}
    assert Secret(KEY).redact_all(raw) == {"a": [{"b": "key ***"}, 3, None, True], "***": 1.5}


def test_a_word_such_as_local_servers_take_eats_no_answers():
    assert Secret("EMPTY").redact("an EMPTY box") == "an EMPTY box"
