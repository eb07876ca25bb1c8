"""Writers behind an API and in this process, and how they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import save_model

from bbtune.backbone.fetch import cached_model
from bbtune.backbone_spec import BackboneSpec
from bbtune.endpoint.api_writer import ApiWriter
from bbtune.endpoint.request import Answer, Request
from bbtune.errors import BackboneError, EndpointError
from bbtune.evaluation.instruction_writer import InstructionWriter
from bbtune.text_search.wording import chat_prompt, completion_prompt, instruction_in
from bbtune.text_search.writer import Ask
from bbtune.text_spec import WriterSpec

TEXTS = ("Say if {text} is good.", "Judge the film.")
PARAPHRASE = Ask("paraphrase", TEXTS[:1], seed=11)
COMBINE = Ask("combine", TEXTS, seed=12)
SHOWN = [("a great film", "good"), ("a dull story", "bad"), ("the bill is wrong", "bad")]


@pytest.mark.parametrize("ask", [PARAPHRASE, COMBINE])
def test_a_prompt_holds_the_texts_that_it_is_about_word_for_word(ask: Ask) -> None:
    for prompt in (chat_prompt(ask), completion_prompt(ask)):
        assert all(text in prompt for text in ask.texts)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("Say it.", "Say it."),
        ("\n\n  Say   it. \nAnd more.", "Say it."),
        ('"Say it."', "Say it."),
        ("1. Say it.", "Say it."),
        ("- “Say it.”", "Say it."),
        ("**Instruction:** Say it.", "Say it."),
        ("New instruction: 'Say it.'", "Say it."),
        ("Sure! Here is the new instruction:\n\n2) **Say it.**", "Say it."),
        ("Say 3. And it", "Say 3. And it"),
        ("...\n!?\n", ""),
        ("", ""),
    ],
)
def test_the_first_line_of_use_is_the_instruction(answer: str, text: str) -> None:
    assert instruction_in(answer) == text


@given(st.text())
def test_an_instruction_is_one_clean_line_and_cleaning_it_again_changes_nothing(answer: str) -> None:
    text = instruction_in(answer)
    assert text == " ".join(text.split())
    assert instruction_in(text) == text


class Echo:
    """A text model that answers with what it is asked, numbered and quoted."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def ask(self, requests: Sequence[Request], deadline: float | None = None) -> list[Answer]:
        """The last line of each prompt but one."""
        self.asked += requests
        return [Answer(f'1. "no {request.seed}"\nrest', (), 1, 1) for request in requests]

    def close(self) -> None:
        """Nothing to free."""


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_an_api_is_asked_once_for_all_with_the_seeds_of_the_asks(style: str) -> None:
    model = Echo()
    writer = ApiWriter(model, "chat" if style == "chat" else "completion", max_tokens=30, temperature=0.7)
    assert writer.write([PARAPHRASE, COMBINE]) == ["no 11", "no 12"]
    assert [request.seed for request in model.asked] == [11, 12]
    assert {(request.max_tokens, request.temperature, request.style) for request in model.asked} == {(30, 0.7, style)}
    assert writer.write([]) == []


def test_an_api_takes_no_vectors() -> None:
    with pytest.raises(EndpointError, match=r"which no API takes; set writer\.model"):
        ApiWriter(Echo(), "chat", 30, 0.7).write([PARAPHRASE, Ask("vector", vector=(1.0,))])


def local(folder: Path, temperature: float = 0.8, seed: int = 1, max_tokens: int = 8) -> InstructionWriter:
    spec = WriterSpec(model=f"path:{folder}", max_tokens=max_tokens, temperature=temperature)
    return InstructionWriter(BackboneSpec(model=f"path:{folder}"), spec, SHOWN, seed)


VECTORS = [
    Ask("vector", vector=(1.0, 0.2, -0.5)),
    Ask("vector", vector=(-2.0, 1.0, 3.0)),
    Ask("vector", vector=(0.0,) * 3),
]
ASKS = [VECTORS[0], PARAPHRASE, VECTORS[1], COMBINE, VECTORS[2]]


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with room for whole prompts."""
    return save_model("llama", tmp_path_factory.mktemp("roomy"), max_position_embeddings=512)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "opt"])
class TestLocalWriter:
    def test_the_same_asks_give_the_same_texts_whatever_global_generators_do(
        self, family: str, tiny_models: dict[str, Path]
    ) -> None:
        before = torch.random.get_rng_state()
        first = local(tiny_models[family]).write(ASKS)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.rand(3)
        assert local(tiny_models[family]).write(ASKS) == first
        assert len(first) == 5
        assert any(first)

    def test_keys_and_values_that_are_kept_change_nothing(self, family: str, tiny_models: dict[str, Path]) -> None:
        writer = local(tiny_models[family], max_tokens=12)
        with torch.inference_mode():
            examples = writer._embedded(writer._examples())[None]
            model, tokenizer = writer._model.model, writer._card.tokenizer
            ids: list[int] = []
            for _ in range(12):
                whole = torch.cat([examples, writer._embedded(ids)[None]], dim=1) if ids else examples
                token = int(model(inputs_embeds=whole, use_cache=False).logits[0, -1].argmax())
                if token in writer._ends:
                    break
                ids.append(token)
                if "\n" in tokenizer.decode(ids).lstrip():
                    break
            expected = tokenizer.decode(ids, skip_special_tokens=True)
            assert writer._continued(examples, lambda logits: logits.argmax(dim=-1)) == [expected]


def test_texts_of_vectors_depend_on_the_vector_and_the_seed(tiny_models: dict[str, Path]) -> None:
    texts = local(tiny_models["llama"], max_tokens=16).write(VECTORS)
    assert len(set(texts)) > 1
    assert local(tiny_models["llama"], max_tokens=16, seed=2).write(VECTORS)[:2] != texts[:2]
    alone = [local(tiny_models["llama"], max_tokens=16).write([ask])[0] for ask in VECTORS]
    assert alone == texts


def test_sampling_depends_on_the_seed_of_the_ask_and_not_at_all_at_temperature_0(roomy: Path) -> None:
    asks = [*(Ask("paraphrase", ("film",), seed=seed) for seed in range(4)), COMBINE]
    assert len(set(local(roomy, 0.9).write(asks[:4]))) > 1
    assert len(set(local(roomy, 0.0).write(asks[:4]))) == 1
    before = torch.random.get_rng_state()
    assert local(roomy).write(asks) == [local(roomy).write([ask])[0] for ask in asks]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_text_too_long_for_the_model_gives_nothing(tiny_models: dict[str, Path]) -> None:
    assert local(tiny_models["llama"]).write([Ask("paraphrase", ("great film " * 200,))]) == [""]


def test_demonstrations_that_do_not_fit_are_left_out(tiny_models: dict[str, Path]) -> None:
    many = InstructionWriter(
        BackboneSpec(model=f"path:{tiny_models['gpt2']}"), WriterSpec(model="path:x", max_tokens=8), SHOWN * 30, 1
    )
    assert len(many.write(VECTORS)) == 3


def test_a_model_that_writes_no_text_is_refused(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(BackboneError, match=r"expected a causal language model, got .* which is a masked-lm"):
        local(tiny_models["bert"]).write(VECTORS)


@pytest.mark.slow
def test_a_real_model_writes_instructions() -> None:
    try:
        cached_model("smollm2-135m")
    except BackboneError as error:
        pytest.skip(str(error))
    spec = WriterSpec(model="cache:smollm2-135m", max_tokens=24)
    shown = [("The film was a delight.", "positive"), ("Two hours of my life, lost.", "negative")]
    writer = InstructionWriter(BackboneSpec(model="cache:smollm2-135m"), spec, shown, 0)
    plain = "Decide whether the review is positive or negative."
    asks = [
        Ask("paraphrase", (plain,), seed=1),
        Ask("combine", (plain, "Tell how the writer feels about the film."), seed=2),
        *(
            Ask("vector", vector=tuple(float(x) for x in torch.randn(10, generator=torch.Generator().manual_seed(i))))
            for i in range(4)
        ),
    ]
    texts = writer.write(asks)
    assert all(len(text.split()) > 2 for text in texts[:2])
    assert sum(bool(text) for text in texts[2:]) >= 2
    assert writer.write(asks) == texts
