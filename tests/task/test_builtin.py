"""The built-in task of support tickets."""

from collections import Counter

import pytest

from bbtune.errors import TaskError
from bbtune.task.sources import load_task
from bbtune.task.task import Task
from bbtune.task.template import Template
from bbtune.task_spec import TaskSpec

LABELS = ("billing", "delivery", "returns", "account", "fault", "advice")


@pytest.fixture(scope="module")
def support() -> Task:
    return load_task(TaskSpec(source="builtin:support"))


@pytest.mark.parametrize(("split", "per_label"), [("train", 16), ("dev", 16), ("test", 60)])
def test_support_has_16_16_and_60_tickets_of_each_label(support: Task, split: str, per_label: int) -> None:
    assert Counter(example.label for example in getattr(support, split)) == dict.fromkeys(range(6), per_label)


def test_support_shares_no_text_between_or_within_splits(support: Task) -> None:
    texts = [example.text.casefold() for example in (*support.train, *support.dev, *support.test)]
    assert len(set(texts)) == len(texts) == 6 * (16 + 16 + 60)


def test_support_says_how_it_is_put_to_a_model(support: Task) -> None:
    assert (support.name, support.kind, support.labels) == ("support", "single", LABELS)
    assert support.label_words == tuple((label,) for label in LABELS)
    assert support.template is not None
    assert not Template(support.template).fields_behind_mask  # so that causal models can take it
    assert (support.metric.name, support.metric.classes) == ("accuracy", 6)


def test_fewer_shots_are_the_first_ones(support: Task) -> None:
    few = load_task(TaskSpec(source="builtin:support", shots=2))
    assert Counter(example.label for example in few.train) == dict.fromkeys(range(6), 2)
    assert set(few.train) < set(support.train)
    assert few.test == support.test
    assert few.fingerprint != support.fingerprint


def test_a_name_that_is_close_is_suggested() -> None:
    with pytest.raises(TaskError) as caught:
        load_task(TaskSpec(source="builtin:suport"))
    assert str(caught.value) == ("no built-in task 'suport', expected one of ['support']; did you mean \"support\"?")


@pytest.mark.parametrize("name", ["..", ".", "support/../support"])
def test_a_name_is_not_a_path(name: str) -> None:
    with pytest.raises(TaskError, match="no built-in task"):
        load_task(TaskSpec(source=f"builtin:{name}"))
