"""Minibatches go through the train split in shuffled epochs."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from label_logits import Scored
from planted_prompts import plant

from bbtune.objective import Subset
from bbtune.text_search import make_text_search
from bbtune.text_search.minibatch import Minibatches
from bbtune.text_spec import TextMethodSpec


def subsets(train: int, size: int, seed: int, generations: int) -> list[Subset | None]:
    """Of so many generations; all scores are alike."""
    inner = make_text_search(TextMethodSpec(search="random", population=2), plant((40, 40)).choices, 0)
    search, found = Minibatches(inner, train, size, seed), []
    for _ in range(generations):
        said = search.upcoming.subset
        proposal = search.ask()
        assert proposal.subset == said == search.upcoming.subset
        found.append(proposal.subset)
        search.tell(proposal, Scored(np.zeros(len(proposal.z))))
    return found


@settings(max_examples=40)
@given(st.integers(2, 30), st.data())
def test_examples_are_used_equally_often_at_any_time(train: int, data: st.DataObject) -> None:
    size, uses = data.draw(st.integers(1, train - 1)), Counter(dict.fromkeys(range(train), 0))
    for subset in subsets(train, size, data.draw(st.integers(0, 99)), 25):
        assert subset is not None
        assert list(subset) == sorted(set(subset))
        assert len(subset) == size
        uses.update(subset)
        assert max(uses.values()) - min(uses.values()) <= 1
    assert set(uses) == set(range(train))


def test_the_seed_and_nothing_else_decides_the_examples() -> None:
    assert subsets(20, 6, 1, 12) == subsets(20, 6, 1, 12)
    assert subsets(20, 6, 1, 12) != subsets(20, 6, 2, 12)


def test_a_minibatch_of_all_examples_is_none() -> None:
    assert subsets(20, 20, 1, 2) == [None, None]
