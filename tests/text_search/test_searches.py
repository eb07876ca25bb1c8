"""What single searches do beyond the contract."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from label_logits import Scored
from planted_prompts import GIVEN, WANTED, PhraseWriter, plant

from bbtune.search import Search
from bbtune.text_search import make_text_search
from bbtune.text_search.writer import Ask
from bbtune.text_spec import TextMethodSpec


class Silent:
    """A writer that has nothing to say."""

    def write(self, asks: Sequence[Ask]) -> list[str]:
        """An empty text for each ask."""
        return [""] * len(asks)


def rescored(search: Search, loss: list[float]) -> None:
    proposal = search.ask()
    search.tell(proposal, Scored(np.array(loss)[: len(proposal.z)]))


def test_a_written_instruction_is_entered_in_the_library_and_found() -> None:
    planted = plant((), GIVEN[:1])
    search = make_text_search(TextMethodSpec(search="genetic"), planted.choices, 3, PhraseWriter())
    for _ in range(25):
        proposal = search.ask()
        search.tell(proposal, planted.scores(proposal))
    best = planted.choices.library[int(search.incumbent[0, 0])]
    assert sum(phrase in best for phrase in WANTED) >= 3


def test_a_generation_asks_its_writer_at_most_once() -> None:
    for name in ("edits", "genetic", "instruct-zero"):
        planted, writer = plant(), PhraseWriter()
        search = make_text_search(TextMethodSpec(search=name), planted.choices, 3, writer)
        for generation in range(1, 12):
            proposal = search.ask()
            assert len(writer.calls) <= generation
            search.tell(proposal, planted.scores(proposal))


def test_without_words_a_search_goes_on_with_phrases_and_instruct_zero_with_slots() -> None:
    for name in ("edits", "genetic", "instruct-zero"):
        planted = plant((4, 3))
        search = make_text_search(TextMethodSpec(search=name), planted.choices, 3, Silent())
        start = planted.true(search.incumbent[None])
        for _ in range(8):
            proposal = search.ask()
            search.tell(proposal, planted.scores(proposal))
        assert planted.true(search.incumbent[None]) < start


def test_instruct_zero_without_words_and_slots_gives_up_after_three_generations() -> None:
    search = make_text_search(TextMethodSpec(search="instruct-zero"), plant((), GIVEN[:1]).choices, 3, Silent())
    for _ in range(3):
        assert search.stop_reasons() == {}
        rescored(search, [0.5])
    assert search.stop_reasons() == {"space exhausted": 1}


def test_the_policy_comes_to_prefer_what_scores_well() -> None:
    planted = plant((9, 9, 9, 9), seed=4)
    method = TextMethodSpec(search="policy-gradient", population=12, learning_rate=1.0)
    search = make_text_search(method, planted.choices, 1)
    means = []
    for _ in range(20):
        proposal = search.ask()
        means.append(planted.true(proposal.z[1:]).mean())
        search.tell(proposal, planted.scores(proposal))
    assert np.mean(means[-4:]) < 0.7 * np.mean(means[:4])


@pytest.mark.parametrize("name", ["edits", "genetic"])
@pytest.mark.parametrize("writer", [None, PhraseWriter()])
def test_an_empty_instruction_can_be_the_start(name: str, writer: PhraseWriter | None) -> None:
    for given in (["", *GIVEN], [""]):
        planted = plant((4, 3), given)
        search = make_text_search(TextMethodSpec(search=name), planted.choices, 3, writer)
        for _ in range(6):
            if not search.stop_reasons():
                proposal = search.ask()
                search.tell(proposal, planted.scores(proposal))
        assert search.incumbent.any()
    assert all(all(ask.texts) for call in (writer.calls if writer else []) for ask in call)
