"""The record of a study: what was proposed and seen, and the searcher that it makes again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces import ended, raw_of, record_in, space_of

from bbtune.hpo.domains import Choice
from bbtune.hpo.record import FIRST
from bbtune.hpo.searchers import SEARCHERS
from bbtune.hpo.space import Space
from bbtune.hpo.trial import score


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_the_first_trial_is_the_job_as_it_is_whatever_the_searcher(searcher, make_job, tmp_path) -> None:
    journal, record = record_in(tmp_path, space_of(make_job("bert")), searcher)
    with journal:
        assert record.propose(FIRST) == {}
        assert record.propose(1) != {}


@pytest.mark.parametrize("searcher", SEARCHERS)
@pytest.mark.parametrize("cut", [1, 4, 8])
def test_a_study_that_goes_on_proposes_what_it_would_have(searcher, cut, make_job, tmp_path) -> None:
    def go_on(name: str, until: int) -> list[object]:
        (tmp_path / name).mkdir(exist_ok=True)
        journal, record = record_in(tmp_path / name, space_of(make_job("bert")), searcher, seed=4)
        with journal:
            for number in range(len(record.ended), until):
                settings = record.propose(number)
                record.end(ended(number, metric=(number * 7 % 5) / 5, settings=settings))
            return record.proposals

    whole = go_on("whole", 10)
    go_on("cut", cut)
    assert go_on("cut", 10) == whole


def test_a_proposal_that_a_kill_cut_off_from_its_trial_stands(make_job, tmp_path) -> None:
    space = space_of(make_job("bert"))
    journal, record = record_in(tmp_path, space)
    with journal:
        begun = [record.propose(number) for number in range(4)]
        record.end(ended(2, 0.5, settings=begun[2]))
    journal, record = record_in(tmp_path, space, "optuna")  # as if a library proposed other settings now
    with journal:
        assert [record.propose(number) for number in range(4)] == begun
        assert record.end(ended(1, 0.6, settings=begun[1]))
        assert not record.end(ended(1, 0.9, settings=begun[1]))
        assert record.best().number == 1


@pytest.mark.parametrize("searcher", SEARCHERS)
def test_a_small_space_ends_when_all_was_tried(searcher, make_job, tmp_path) -> None:
    space = Space({"method.loss": Choice(("cross-entropy", "hinge"))}, raw_of(make_job("bert")))
    journal, record = record_in(tmp_path, space, searcher)
    with journal:
        for number, settings in enumerate(({}, {"method.loss": "hinge"})):
            assert record.propose(number) == settings
            record.end(ended(number, 0.5, settings=settings))
        assert record.propose(2) is None


def test_the_best_has_the_highest_metric_then_the_lowest_loss_then_came_first(make_job, tmp_path) -> None:
    journal, record = record_in(tmp_path, space_of(make_job("bert")))
    with journal:
        for number, (metric, loss) in enumerate([(0.5, 0.2), (0.75, 0.6), (0.75, 0.4), (0.75, 0.4)]):
            record.end(ended(number, metric, loss))
        assert record.best().number == 2


def test_a_trial_without_a_result_is_no_bad_setting(make_job, tmp_path) -> None:
    space = space_of(make_job("bert"))
    journal, record = record_in(tmp_path, space)
    with journal:
        record.propose(0)
        record.fail(0, "it broke")
        assert record.best() is None
    journal, record = record_in(tmp_path, space)
    with journal:
        assert record.faults == {0: "it broke"}
        record.end(ended(0, 0.1))
        assert not record.faults
        assert not record.fail(0, "a second start of it, of which nobody needs to know")
        assert not record.faults


examples = st.integers(4, 500)


@given(examples, st.data(), st.floats(0, 1e6), st.floats(0, 1e6))
def test_no_loss_outranks_an_example_and_equals_are_ranked_by_loss(size, data, low, high) -> None:
    right = data.draw(st.integers(0, size - 1))
    assert score((right + 1) / size, high, size) > score(right / size, low, size)
    if low * 1.001 < high and (1 + low) < 1e4:
        assert score(right / size, low, size) > score(right / size, high, size)
