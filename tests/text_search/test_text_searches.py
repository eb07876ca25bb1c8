"""The contract of searches of text prompts, for every one of them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_logits import Scored
from planted_prompts import GIVEN, PhraseWriter, Planted, plant

from bbtune.errors import OptimizerError
from bbtune.journal import FORMAT, EndOfRecord, Journal
from bbtune.optimizers import nevergrad_names
from bbtune.optimizers.base import Array
from bbtune.search import Proposal, Search
from bbtune.text_search import make_text_search
from bbtune.text_search.minibatch import Minibatches
from bbtune.text_search.writer import Writer
from bbtune.text_spec import TextMethodSpec
from bbtune.written import RecordedWriter

OURS = ["random", "edits", "edits+writer", "genetic", "genetic+writer", "policy-gradient", "instruct-zero"]
NEVERGRAD = ["nevergrad", "nevergrad:TwoPointsDE"]
needs_nevergrad = pytest.mark.skipif(find_spec("nevergrad") is None, reason="the package nevergrad is not installed")
NAMES = [*OURS, *(pytest.param(name, marks=needs_nevergrad) for name in NEVERGRAD)]
INSTALLED = [*OURS, *(NEVERGRAD if find_spec("nevergrad") else [])]
WRITING = ["edits+writer", "genetic+writer", "instruct-zero"]
POPULATION = 6


def make(
    name: str, planted: Planted, seed: int = 1, writer: Writer | None = None, population: int = POPULATION
) -> Search:
    """The search of that name, with a writer where it has one."""
    if name in WRITING and writer is None:
        writer = PhraseWriter()
    method = TextMethodSpec(search=name.removesuffix("+writer"), population=population, intrinsic_dim=7)
    return make_text_search(method, planted.choices, seed, writer)


def play(search: Search, planted: Planted, generations: int) -> list[Proposal]:
    """The proposals of so many generations, fewer where the search comes to its end."""
    asked: list[Proposal] = []
    while len(asked) < generations and not search.stop_reasons():
        asked.append(search.ask())
        search.tell(asked[-1], planted.scores(asked[-1]))
    return asked


def rows(proposals: list[Proposal]) -> list[tuple[float, ...]]:
    """All candidates but the incumbents."""
    return [tuple(row) for proposal in proposals for row in proposal.z[1:, 0].tolist()]


def trace(name: str, seed: int) -> str:
    """SHA-256 of the candidates of five generations, and of the instructions written meanwhile."""
    planted = plant()
    digest = hashlib.sha256(b"".join(proposal.z.tobytes() for proposal in play(make(name, planted, seed), planted, 5)))
    library = planted.choices.library
    digest.update("\n".join(library[i] for i in range(len(library))).encode())
    return digest.hexdigest()


@pytest.fixture(scope="module", autouse=True)
def _nevergrad_is_imported() -> None:
    """Nevergrad's own import draws global random numbers; what is judged here is its use."""
    if find_spec("nevergrad"):
        nevergrad_names()


@pytest.fixture(scope="module")
def traces_of_a_fresh_process() -> dict[str, str]:
    here = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": here}
    done = subprocess.run(
        [sys.executable, __file__, *INSTALLED], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", NAMES)
class TestEverySearch:
    def test_starts_from_the_first_instruction_and_0_in_every_slot(self, name: str) -> None:
        search = make(name, plant())
        np.testing.assert_array_equal(search.incumbent, np.zeros((1, 3)))
        np.testing.assert_array_equal(search.ask().z[0], np.zeros((1, 3)))
        assert not search.uses_logits
        assert search.stop_reasons() == {}

    def test_asks_whole_numbers_inside_the_space_that_cannot_be_written_to(self, name: str) -> None:
        planted = plant()
        for proposal in play(make(name, planted), planted, 8):
            z = proposal.z
            assert z.shape[1:] == (1, 3)
            assert z.dtype == np.float64
            assert (proposal.block, proposal.layers, proposal.first, proposal.probing) == (0, (), 0, False)
            np.testing.assert_array_equal(z, z.astype(int))
            assert (z >= 0).all()
            assert (z < [len(planted.choices.library), *planted.choices.sizes]).all()
            with pytest.raises(ValueError, match="read-only"):
                z[0, 0, 0] = 1.0

    def test_says_before_it_asks_how_many_it_will_ask_at_most(self, name: str) -> None:
        planted = plant()
        search = make(name, planted)
        for _ in range(3):
            said = search.upcoming
            proposal = search.ask()
            assert 2 <= len(proposal.z) <= said.size <= POPULATION
            assert (said.first, said.probing, said.subset) == (0, False, None)
            search.tell(proposal, planted.scores(proposal))

    def test_proposes_nothing_twice_and_fills_its_generations(self, name: str) -> None:
        planted = plant((6, 5, 4))
        proposals = play(make(name, planted), planted, 10)
        assert len(set(rows(proposals))) == len(rows(proposals))
        assert all(len(proposal.z) == POPULATION for proposal in proposals)

    def test_candidate_0_is_the_incumbent_and_only_what_is_strictly_better_takes_its_place(self, name: str) -> None:
        planted, rng = plant((6, 5, 4)), np.random.default_rng(3)
        search = make(name, planted)
        for generation in range(12):
            before = search.incumbent
            proposal = search.ask()
            np.testing.assert_array_equal(proposal.z[0], before)
            # levels of generations have nothing to do with each other, as those of minibatches
            loss = rng.integers(0, 3, len(proposal.z)) + 100.0 * rng.standard_normal()
            if generation % 3 == 0:
                loss[:] = loss[0]
            search.tell(proposal, Scored(loss))
            winner = before if loss.min() == loss[0] else proposal.z[int(loss.argmin())]
            np.testing.assert_array_equal(search.incumbent, winner)

    def test_the_incumbent_is_a_copy(self, name: str) -> None:
        search = make(name, plant())
        search.incumbent[:] = 7
        assert not search.incumbent.any()

    def test_refuses_a_second_ask_and_a_tell_that_nothing_was_asked_for(self, name: str) -> None:
        planted = plant()
        search = make(name, planted)
        with pytest.raises(OptimizerError, match=r"expected ask\(\) before tell\(\)"):
            search.tell(Proposal(0, np.zeros((1, 1, 3))), Scored(np.zeros(1)))
        proposal = search.ask()
        with pytest.raises(OptimizerError, match=r"expected tell\(\) after ask\(\)"):
            search.ask()
        search.tell(proposal, planted.scores(proposal))
        with pytest.raises(OptimizerError, match=r"expected ask\(\) before tell\(\)"):
            search.tell(proposal, planted.scores(proposal))

    def test_a_refused_loss_says_what_is_wanted_and_changes_nothing(self, name: str) -> None:
        planted, same = plant(), plant()
        refused, other = make(name, planted), make(name, same)
        proposal = refused.ask()
        size = len(proposal.z)
        for shape in [(size - 1,), (size + 1,), (size, 1), ()]:
            with pytest.raises(OptimizerError) as caught:
                refused.tell(proposal, Scored(np.zeros(shape)))
            assert f"({size},)" in str(caught.value)
            assert str(caught.value).endswith(f"got {shape}")
        for wrong in (np.nan, np.inf, -np.inf):
            with pytest.raises(OptimizerError, match="expected finite losses"):
                refused.tell(proposal, Scored(np.array([*planted.true(proposal.z)[:-1], wrong])))
        refused.tell(proposal, planted.scores(proposal))
        expected = play(other, same, 4)
        for one, two in zip([proposal, *play(refused, planted, 3)], expected, strict=True):
            np.testing.assert_array_equal(one.z, two.z)

    def test_the_same_seed_gives_the_same_candidates_in_a_fresh_process(
        self, name: str, traces_of_a_fresh_process: dict[str, str]
    ) -> None:
        assert trace(name, 1) == traces_of_a_fresh_process[name]
        assert trace(name, 2) != traces_of_a_fresh_process[name]

    def test_global_random_numbers_are_neither_drawn_nor_seeded(self, name: str) -> None:
        before = repr(np.random.get_state(legacy=False)), random.getstate()  # noqa: NPY002 the state under test
        planted = plant()
        play(make(name, planted), planted, 4)
        assert repr(np.random.get_state(legacy=False)) == before[0]  # noqa: NPY002
        assert random.getstate() == before[1]

    def test_comes_near_the_best_of_a_planted_loss(self, name: str) -> None:
        left = []
        for seed in range(4):
            planted = plant((4, 3), seed=seed)
            search = make(name, planted, seed)
            start = planted.true(search.incumbent[None])
            play(search, planted, 12)
            left.append(float(planted.true(search.incumbent[None])[0] / start[0]))
        assert np.mean(left) < 0.45

    def test_works_on_minibatches(self, name: str) -> None:
        planted = plant((4, 3), noise=0.1)
        inner = make(name, planted)
        search = Minibatches(inner, planted.examples, 10, seed=3)
        start = planted.true(search.incumbent[None])
        for proposal in (proposals := play(search, planted, 12)):
            assert proposal.subset is not None
            assert len(set(proposal.subset)) == 10
        assert len({proposal.subset for proposal in proposals}) > 1
        np.testing.assert_array_equal(search.incumbent, inner.incumbent)
        assert planted.true(search.incumbent[None]) < 0.6 * start

    def test_ends_when_the_space_is_exhausted_and_has_seen_all_of_it(self, name: str) -> None:
        planted = plant((3, 2), GIVEN[:2])
        search = make(name, planted)
        proposals = play(search, planted, 400)
        assert next(iter(search.stop_reasons())) == "space exhausted"
        seen = {(0.0, 0.0, 0.0), *rows(proposals)}
        assert len(seen) == search.stop_reasons()["space exhausted"]
        combinations = {(float(a), float(b), float(c)) for a in range(2) for b in range(3) for c in range(2)}
        assert combinations <= seen
        np.testing.assert_allclose(
            planted.true(search.incumbent[None]), min(planted.true(p.z).min() for p in proposals)
        )

    @pytest.mark.parametrize("sizes", [(), (1,), (1, 3)])
    def test_serves_one_given_instruction_and_slots_without_a_choice(self, name: str, sizes: tuple[int, ...]) -> None:
        planted = plant(sizes, GIVEN[1:2])
        proposals = play(make(name, planted), planted, 6)
        assert all(proposal.z.shape[1:] == (1, 1 + len(sizes)) for proposal in proposals)
        assert len(set(rows(proposals))) == len(rows(proposals))

    @pytest.mark.parametrize("population", [2, 3, 4])
    def test_small_populations_serve(self, name: str, population: int) -> None:
        planted = plant()
        if name == "instruct-zero" and population == 2:
            with pytest.raises(OptimizerError, match="expected a writer and a population of 3 or more"):
                make(name, planted, population=2)
            return
        search = make(name, planted, population=population)
        start = planted.true(search.incumbent[None])
        play(search, planted, 40)
        assert planted.true(search.incumbent[None]) < start

    def test_all_losses_alike_change_nothing_and_end_nothing(self, name: str) -> None:
        search = make(name, plant((9, 8, 7)))
        for _ in range(6):
            proposal = search.ask()
            search.tell(proposal, Scored(np.full(len(proposal.z), 0.7)))
        assert not search.incumbent.any()
        assert search.stop_reasons() == {}


def score_by_hash(z: Array) -> Array:
    """Losses (P,) that look like noise and are the same every time."""
    return np.array([np.random.default_rng(row.astype(int).ravel()).random() for row in z])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=4, deadline=None)
@given(stop=st.integers(1, 7), seed=st.integers(0, 2**20))
def test_a_resumed_search_equals_one_that_was_never_interrupted(
    name: str, tmp_path_factory: pytest.TempPathFactory, stop: int, seed: int
) -> None:
    """What was written is asked of nobody again, and the same candidates come."""

    def run(search: Search, generations: int) -> list[Array]:
        asked = []
        for _ in range(generations):
            proposal = search.ask()
            search.tell(proposal, Scored(score_by_hash(proposal.z)))
            asked.append(proposal.z)
        return asked

    path = tmp_path_factory.mktemp("run") / "journal.jsonl"
    sizes, whole = (5, 4), PhraseWriter()
    uninterrupted = run(make(name, plant(sizes), seed, whole), 8)
    first, second = PhraseWriter(), PhraseWriter()
    with Journal(path) as journal:
        journal.append({"event": "start", "format": FORMAT})
        interrupted = run(make(name, plant(sizes), seed, RecordedWriter(first, journal.records, journal)), stop)
    with Journal(path) as journal:
        past = list(journal.records)
        resumed = run(make(name, plant(sizes), seed, RecordedWriter(second, past, journal)), 8)
    for got, expected in zip([*interrupted, *resumed], [*uninterrupted[:stop], *uninterrupted], strict=True):
        np.testing.assert_array_equal(got, expected)
    assert first.calls + second.calls == whole.calls
    if name in WRITING:
        with pytest.raises(EndOfRecord):
            run(make(name, plant(sizes), seed, RecordedWriter(None, past)), 40)


@dataclass(frozen=True)
class Contest:
    """What searches leave of a loss that is too large for random search."""

    seeds: range = range(3)
    generations: int = 30

    def left(self, name: str) -> float:
        """The mean loss that is reached, over planted losses."""
        found = []
        for seed in self.seeds:
            planted = plant((7,) * 8, seed=seed)
            search = make(name, planted, seed, population=8)
            play(search, planted, self.generations)
            found.append(float(planted.true(search.incumbent[None])[0]))
        return float(np.mean(found))


@pytest.fixture(scope="module")
def left_by_random() -> float:
    return Contest().left("random")


@pytest.mark.parametrize(
    "name", ["genetic", "edits", "policy-gradient", pytest.param("nevergrad", marks=needs_nevergrad)]
)
def test_beats_random_search_on_a_large_planted_loss(name: str, left_by_random: float) -> None:
    assert Contest().left(name) < 0.75 * left_by_random


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: trace(name, 1) for name in sys.argv[1:]}))
