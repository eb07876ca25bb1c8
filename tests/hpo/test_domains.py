"""What a field may be, and how a searcher's numbers become its values."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bbtune.hpo.domains import Choice, Number, read_domain

shares = st.floats(0, 1)


@st.composite
def numbers(draw: st.DrawFn) -> Number:
    """Numbers of every kind."""
    whole, log = draw(st.booleans()), draw(st.booleans())
    if whole:
        low = draw(st.integers(1 if log else -50, 1000))
        return Number(low, low + draw(st.integers(1, 5000)), log, whole)
    low = draw(st.floats(1e-6 if log else -100, 100))
    high = low + draw(st.floats(1e-6, 1e4))
    assume(high > low)
    return Number(low, high, log, whole)


@given(numbers(), shares)
def test_a_share_of_the_way_is_a_value_inside(domain: Number, share: float) -> None:
    value = domain.at(share)
    assert domain.low <= value <= domain.high
    assert isinstance(value, int if domain.whole else float)


@given(numbers(), shares)
def test_a_value_has_the_place_that_it_came_from(domain: Number, share: float) -> None:
    value = domain.at(share)
    place = domain.place(value)
    assert place is not None
    if domain.whole:
        assert domain.at(place) == value
    else:
        assert domain.at(place) == pytest.approx(value, rel=1e-3, abs=1e-3 * (domain.high - domain.low))


def test_whole_numbers_have_equal_parts_of_the_way() -> None:
    counted = Counter(Number(1, 4, log=False, whole=True).at(i / 1000) for i in range(1001))
    assert all(240 <= n <= 260 for n in counted.values())
    assert sorted(counted) == [1, 2, 3, 4]


def test_the_middle_of_a_logarithmic_way_is_the_geometric_mean() -> None:
    assert Number(0.01, 1, log=True, whole=False).at(0.5) == 0.1


@pytest.mark.parametrize("outside", [0, 33, 2.5, True, None, "4"])
def test_what_is_no_value_of_a_domain_has_no_place(outside: Any) -> None:
    assert Number(2, 32, log=True, whole=True).place(outside) is None


def test_choices_tell_true_from_one_and_take_lists() -> None:
    domain = Choice((1, [0, 1], None))
    assert domain.place(True) is None
    assert domain.place([0, 1]) == 1
    assert [domain.at(i) for i in range(3)] == [1, [0, 1], None]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (7, "parameters.x: expected {int: [LOW, HIGH]}, {float: [LOW, HIGH]} or {choice: [VALUE, ...]}, got 7"),
        ({}, "parameters.x: expected {int: [LOW, HIGH]}, {float"),
        ({"int": [1, 2], "float": [1, 2]}, "parameters.x: expected {int"),
        ({"itn": [1, 2]}, 'parameters.x.itn: unknown key; did you mean "int"?'),
        ({"int": [1, 2.5]}, "parameters.x.int: expected [LOW, HIGH], whole numbers, got [1, 2.5]"),
        ({"int": [True, 2]}, "parameters.x.int: expected"),
        ({"float": [1]}, "parameters.x.float: expected [LOW, HIGH], numbers, got [1]"),
        ({"float": [2, 1]}, "parameters.x.float: expected [LOW, HIGH] with LOW below HIGH, got [2, 1]"),
        ({"float": [0, 1], "log": True}, "parameters.x.float: expected LOW above 0 with log: true"),
        ({"float": [0, float("inf")]}, "parameters.x.float: expected"),
        ({"int": [1, 10**400]}, "parameters.x.int: expected numbers from -1e+15 to 1e+15"),
        ({"float": [0, 1], "log": "yes"}, 'parameters.x.log: expected true or false, got "yes"'),
        ({"choice": ["a"]}, "parameters.x.choice: expected a list of at least two values"),
        ({"choice": ["a", "a"]}, "parameters.x.choice: expected each value once"),
        ({"choice": ["a", "b"], "log": True}, "parameters.x.log: a choice has no order"),
    ],
)
def test_a_faulty_domain_is_told(raw: Any, said: str) -> None:
    domain, faults = read_domain("x", raw)
    assert domain is None
    (fault,) = faults
    assert str(fault).startswith(said)


@pytest.mark.parametrize(
    ("raw", "domain"),
    [
        ({"int": [2, 32], "log": True}, Number(2, 32, True, True)),
        ({"float": [0, 1]}, Number(0, 1, False, False)),
        ({"choice": ["all", [0, 1]]}, Choice(("all", [0, 1]))),
    ],
)
def test_a_domain_is_read(raw: Any, domain: Any) -> None:
    assert read_domain("x", raw) == (domain, [])
