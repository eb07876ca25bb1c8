"""Searches by name."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from planted_prompts import plant

from bbtune.errors import OptimizerError
from bbtune.text_search import NEEDS_WRITER, TEXT_SEARCHES, check_search_name, make_text_search
from bbtune.text_search.nevergrad import NevergradTextSearch
from bbtune.text_spec import TextMethodSpec

needs_nevergrad = pytest.mark.skipif(find_spec("nevergrad") is None, reason="the package nevergrad is not installed")


def test_an_unknown_name_is_told_with_the_known_ones_and_the_closest() -> None:
    with pytest.raises(OptimizerError) as caught:
        check_search_name("genetics")
    assert all(name in str(caught.value) for name in TEXT_SEARCHES)
    assert "got 'genetics'; did you mean \"genetic\"?" in str(caught.value)


@needs_nevergrad
def test_an_unknown_name_of_nevergrad_is_told_with_the_closest() -> None:
    with pytest.raises(OptimizerError, match='did you mean "DiscreteOnePlusOneT"'):
        check_search_name("nevergrad:DiscreteOnePlusTwo")


@needs_nevergrad
def test_an_optimizer_that_takes_no_population_of_choices_is_refused_in_words() -> None:
    with pytest.raises(OptimizerError, match=r"does not search choices with a population of 8 .* take another"):
        NevergradTextSearch("DiscreteDoerrOnePlusOne", plant().choices, 8, np.random.default_rng(0))


@pytest.mark.parametrize("name", sorted(NEEDS_WRITER))
def test_a_search_that_needs_a_writer_says_so(name: str) -> None:
    with pytest.raises(OptimizerError, match=f"{name}: expected a writer"):
        make_text_search(TextMethodSpec(search=name), plant().choices, 0)
