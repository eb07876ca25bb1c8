"""Few-shot draws: exactly k per label, no text shared, one seed one draw."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbtune.errors import TaskError
from bbtune.task.fewshot import Examples, FewShotTable, draw_splits, first_per_label
from bbtune.task.task import Example

LABELS = ("neg", "pos", "mixed")
# The draw of seed 13 from table(6), one shot; results of few-shot jobs cannot be repeated once it changes.
TRAIN_OF_SEED_13 = ["text 3 of 0", "text 4 of 1", "text 1 of 2"]
DEV_OF_SEED_13 = ["text 2 of 0", "text 5 of 1", "text 2 of 2"]


def table(per_label: int, test: list[Example] | None = None, more: list[Example] | None = None) -> FewShotTable:
    rows = [Example(f"text {i} of {label}", None, label) for i in range(per_label) for label in range(len(LABELS))]
    return FewShotTable(rows + (more or []), test, LABELS, "file:t.csv")


def texts(split: Examples) -> set[str]:
    return {example.text.casefold() for example in split}


@st.composite
def tables(draw: st.DrawFn) -> tuple[FewShotTable, int]:
    """Tables with repeated, contradicting and differently cased texts, big enough for the shots."""
    shots = draw(st.integers(1, 3))
    extra = st.builds(
        Example,
        st.sampled_from(["same", "Same", "SAME", "text 0 of 1", "Text 1 Of 2", "x"]),
        st.none(),
        st.integers(0, 2),
    )
    test = draw(st.none() | st.lists(extra, min_size=1, max_size=6))
    return table(4 * shots + 6, test, draw(st.lists(extra, max_size=8))), shots


@given(tables(), st.integers(0, 2**32), st.sampled_from([0.1, 0.3, 0.45]))
@settings(max_examples=60, deadline=None)
def test_splits_share_no_text_and_hold_exactly_k_of_each_label(
    drawn: tuple[FewShotTable, int], seed: int, holdout: float
) -> None:
    source, shots = drawn
    train, dev, test = draw_splits(source, shots, holdout, seed)
    for split in (train, dev):
        assert Counter(example.label for example in split) == dict.fromkeys(range(len(LABELS)), shots)
    assert not texts(train) & texts(dev)
    assert not texts(test) & (texts(train) | texts(dev))
    for split in (train, dev, test):
        assert len(texts(split)) == len(split)


@given(tables(), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_texts_with_contradicting_labels_are_in_no_split(drawn: tuple[FewShotTable, int], seed: int) -> None:
    source, shots = drawn
    labels: dict[str, set[int]] = {}
    for example in source.rows:
        labels.setdefault(example.text.casefold(), set()).add(example.label)
    contradicting = {text for text, found in labels.items() if len(found) > 1}
    train, dev, held = draw_splits(source, shots, 0.3, seed)
    assert not contradicting & texts(train + dev)
    if source.test is None:
        assert not contradicting & texts(held)


@given(tables(), st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_the_same_seed_gives_the_same_draw(drawn: tuple[FewShotTable, int], seed: int) -> None:
    source, shots = drawn
    assert draw_splits(source, shots, 0.3, seed) == draw_splits(source, shots, 0.3, seed)


def test_the_draw_of_a_seed_stays_what_it_is() -> None:
    train, dev, test = draw_splits(table(6), 1, 0.5, 13)
    assert [example.text for example in train] == TRAIN_OF_SEED_13
    assert [example.text for example in dev] == DEV_OF_SEED_13
    assert len(test) == 9


def test_other_seeds_give_other_draws() -> None:
    draws = {frozenset(texts(draw_splits(table(30), 4, 0.3, seed)[0])) for seed in range(20)}
    assert len(draws) == 20


def test_a_given_test_split_is_kept_whole_and_its_texts_leave_the_draw() -> None:
    given_test = [Example("TEXT 0 of 1", None, 1), Example("elsewhere", None, 0)]
    for seed in range(30):
        train, dev, test = draw_splits(table(5, given_test), 2, 0.5, seed)
        assert test == tuple(given_test)
        assert "text 0 of 1" not in texts(train + dev)


def test_a_test_text_leaves_the_draw_even_where_its_label_differs_there() -> None:
    given_test = [Example("text 0 of 0", None, 2), Example("x", None, 0)]
    train, dev, test = draw_splits(table(3, given_test), 1, 0.5, 0)  # two texts are left: both are drawn
    assert texts(train + dev) & {f"text {i} of 0" for i in range(3)} == {"text 1 of 0", "text 2 of 0"}
    assert test == tuple(given_test)


def test_a_test_split_that_is_given_is_cleaned_of_repeats_and_contradictions() -> None:
    given_test = [Example("a", None, 0), Example("A", None, 0), Example("b", None, 0), Example("B", None, 1)]
    assert draw_splits(table(4, given_test), 2, 0.5, 0)[2] == (given_test[0],)


def test_pairs_are_the_same_only_if_both_texts_are() -> None:
    rows = [Example("a", f"b{i}", i % 2) for i in range(6)]
    splits = draw_splits(FewShotTable(rows, None, ("x", "y"), "t"), 1, 0.3, 0)
    assert [len(split) for split in splits] == [2, 2, 2]
    with pytest.raises(TaskError, match="has 1 distinct texts"):
        draw_splits(FewShotTable([Example("a", "B", 0), Example("A", "b", 0)], None, ("x",), "t"), 1, 0.3, 0)


@pytest.mark.parametrize("holdout", [0.01, 0.2, 0.5, 0.8])
def test_the_share_held_out_is_that_of_every_label(holdout: float) -> None:
    test = draw_splits(table(20), 2, holdout, 0)[2]
    assert Counter(example.label for example in test) == dict.fromkeys(range(3), max(1, math.floor(20 * holdout)))


def test_every_text_is_drawn_now_and_then() -> None:
    source = table(6)
    seen: set[str] = set()
    for seed in range(60):
        seen |= texts(draw_splits(source, 1, 0.3, seed)[0])
    assert seen == texts(tuple(source.rows))


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (None, "file:t.csv: label 'neg' has 7 distinct texts, 3 of them held out for the test; expected 8 more"),
        ([Example("x", None, 0)], "file:t.csv: label 'neg' has 7 distinct texts, 0 of them held out for the test"),
    ],
)
def test_too_few_examples_are_told_with_what_to_do(test: list[Example] | None, said: str) -> None:
    with pytest.raises(TaskError) as caught:
        draw_splits(table(7, test), 4, 0.5, 0)
    assert said in str(caught.value)
    assert "lower task.shots or task.holdout, or add rows" in str(caught.value)


def test_exactly_enough_examples_are_enough() -> None:
    assert [len(split) for split in draw_splits(table(9), 4, 0.12, 0)] == [12, 12, 3]


def test_the_first_k_of_each_label_keep_the_order_of_the_file() -> None:
    examples = [Example(text, None, label) for text, label in [("a", 1), ("b", 0), ("b", 0), ("c", 1), ("d", 0)]]
    assert first_per_label(examples, 1, ("x", "y"), "t") == (examples[0], examples[1])
    assert first_per_label(examples, 2, ("x", "y"), "t") == tuple(examples[:4])
    assert first_per_label(examples, None, ("x", "y"), "t") == tuple(examples)


def test_more_shots_than_the_file_has_are_refused() -> None:
    with pytest.raises(TaskError, match=r"t: expected 2 examples of label 'y', got 1; lower task\.shots"):
        first_per_label([Example("a", None, 0), Example("b", None, 0), Example("c", None, 1)], 2, ("x", "y"), "t")
