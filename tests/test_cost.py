"""The formula of layer-forwards, against a count of what cannot be left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbtune.cost import Sizes


@settings(max_examples=100, deadline=None)
@given(data=st.data(), depth=st.integers(1, 6), candidates=st.integers(1, 5), texts=st.integers(1, 4))
def test_a_layer_runs_once_for_all_candidates_up_to_where_they_differ(
    data: st.DataObject, depth: int, candidates: int, texts: int
) -> None:
    tuned = sorted(data.draw(st.sets(st.integers(0, depth - 1), min_size=1)))
    first = data.draw(st.integers(0, len(tuned) - 1))
    z = np.zeros((candidates, len(tuned)))
    z[:, first] = np.arange(candidates)
    count = 0
    for layer in range(depth):
        seen = [i for i, one in enumerate(tuned) if one <= layer]  # what has entered the states that leave this layer
        count += texts * len({one[seen].tobytes() for one in z})
    assert Sizes(texts, 1, tuple(tuned), depth).layer_forwards(texts, candidates, first) == count


@pytest.mark.parametrize(
    ("candidates", "first", "forwards"),
    [
        (0, 1, 0),
        (1, 0, 10 * 12),  # one candidate costs the whole depth, wherever it differs
        (1, 1, 10 * 12),
        (20, 0, 10 * (20 * 10 + 2)),
        (20, 1, 10 * (20 * 4 + 8)),
    ],
)
def test_what_a_call_costs(candidates: int, first: int, forwards: int) -> None:
    assert Sizes(10, 5, (2, 8), 12).layer_forwards(10, candidates, first) == forwards
