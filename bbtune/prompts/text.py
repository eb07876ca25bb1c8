"""Text prompts: what stands before a text, and how it is put, from the whole numbers of a candidate."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbtune.task.task import Example
from bbtune.task.template import Template
from bbtune.task.verbalizer import Words, words_per_label
from bbtune.text_search.choices import Choices, Library
from bbtune.text_spec import TextPromptSpec

_VOCABULARY = 50  # keywords to choose from
CHARACTERS = 4  # of a token, where no tokenizer is at hand


@dataclass(frozen=True)
class TextPrompt:
    """One prompt in words.

    Attributes:
        instruction: that comes first, or all before the text where its parts are not known; may be empty.
        template: of the text.
        label_words: of each label; none where answers are words.
        demonstrations: train examples, each as it is put with its answer.
    """

    instruction: str
    template: Template
    label_words: Words
    demonstrations: tuple[tuple[Example, str], ...] = ()

    @property
    def preamble(self) -> str:
        """Instruction and demonstrations, with what separates them from the text."""
        return self._before(None)

    def render(self, example: Example, characters: int) -> str:
        """The whole prompt for an example, up to where the label word belongs.

        An example that is one of the demonstrations is asked without that one: with its answer before it, every
        candidate would be right, and those that show what the model gets wrong would seem best.

        Args:
            characters: that each of its texts is cut to.
        """
        return self._before(example) + self.template.render(cut_fields(example, characters), None)

    def _before(self, asked: Example | None) -> str:
        return self.instruction + "".join(f"{text}\n\n" for example, text in self.demonstrations if example != asked)


class TextSpace:
    """From candidates to prompts.

    A candidate is (D,) whole numbers: an instruction of the library, then keywords, demonstrations, label words and
    template, each slot only where the job leaves a choice.

    Args:
        spec: of the prompt.
        template: that a search starts from.
        label_words: that it starts from.
        train: examples that keywords and demonstrations are taken from.
        max_tokens: of a text; a token counts as four characters.

    Attributes:
        choices: the space that a search moves in.
        keywords: that slots choose from, by number - 1.
        characters: that a text is cut to.
    """

    def __init__(
        self,
        spec: TextPromptSpec,
        template: Template,
        label_words: Words,
        train: Sequence[Example],
        max_tokens: int,
    ) -> None:
        self._train = tuple(train)
        self._words = every_words(spec, label_words)
        self._templates = [template, *(Template(text, template.kind) for text in spec.templates)]
        self.characters = CHARACTERS * max_tokens
        self.keywords = keywords(train, _VOCABULARY) if spec.keywords else ()
        self._slots = [("keyword", 1 + len(self.keywords))] * spec.keywords
        self._slots += [("demonstration", 1 + len(self._train))] * spec.demonstrations
        self._slots += [("words", len(self._words))] if spec.label_words else []
        self._slots += [("template", len(self._templates))] if spec.templates else []
        library = Library([spec.text or "", *(spec.instructions or plain_instructions(label_words))])
        self.choices = Choices(library, len(library), tuple(size for _, size in self._slots))

    def prompt(self, candidate: NDArray[np.float64]) -> TextPrompt:
        """The prompt of a candidate (D,)."""
        number, *chosen = (int(value) for value in candidate)
        of: dict[str, list[int]] = {}
        for (slot, _), value in zip(self._slots, chosen, strict=True):
            of.setdefault(slot, []).append(value)
        template = self._templates[of.get("template", [0])[0]]
        words = self._words[of.get("words", [0])[0]]
        instruction = [self.choices.library[number], *(self.keywords[c - 1] for c in of.get("keyword", []) if c)]
        demonstrations = [self._solved(c - 1, template, words) for c in of.get("demonstration", []) if c]
        said = " ".join(filter(None, instruction))
        return TextPrompt(f"{said}\n\n" if said else "", template, words, tuple(dict.fromkeys(demonstrations)))

    def _solved(self, index: int, template: Template, words: Words) -> tuple[Example, str]:
        """A train example, and as it is put with its label word or answer."""
        example = self._train[index]
        answer = answer_of(example, words)
        whole = template.render(cut_fields(example, self.characters), answer)
        return example, whole if template.has_mask else f"{whole} {answer}"


def every_words(spec: TextPromptSpec, label_words: Words) -> list[Words]:
    """The label words that a search starts from, and all that it may choose instead."""
    return [label_words, *(words_per_label(words) for words in spec.label_words)]


def answer_of(example: Example, label_words: Words) -> str:
    """The right answer to an example: its own, or the first word of its label."""
    return label_words[example.label][0] if example.answer is None else example.answer


def cut_fields(example: Example, characters: int) -> dict[str, str]:
    """The fields of an example, each cut at the end of a word."""
    return {name: _cut(text, characters) for name, text in example.fields().items()}


def _cut(text: str, characters: int) -> str:
    if len(text) <= characters:
        return text
    kept = text[: characters + 1].rsplit(maxsplit=1)[0]
    return kept if len(kept) <= characters else text[:characters]


def plain_instructions(label_words: Words) -> list[str]:
    """Instructions that name the labels, or ask for a short answer where there are none, for a job without any."""
    if not label_words:
        return [
            "Answer the question.",
            "Give a short answer.",
            "Answer in as few words as possible.",
            "Reply with the answer alone.",
            "Read the text and answer with a word or two.",
            "Say what the answer is, and nothing else.",
        ]
    names = [words[0] for words in label_words]
    listed = f"{', '.join(names[:-1])} or {names[-1]}"
    return [
        f"Classify the text as {listed}.",
        f"Which of these fits the text best: {listed}?",
        f"Read the text and answer with one of these words: {listed}.",
        f"The answer is one of: {', '.join(names)}.",
        f"Decide whether this is about {listed}. Answer with one word.",
        f"Label each text with {listed}.",
    ]


def keywords(train: Sequence[Example], count: int) -> tuple[str, ...]:
    """Words of the train texts that say most about a label, by pointwise mutual information (BDPL, section 3.2).

    Words of a single text are left out.
    """
    labels = Counter(example.label for example in train)
    texts: Counter[str] = Counter()
    together: Counter[tuple[str, int]] = Counter()
    for example in train:
        found = set(re.findall(r"[^\W\d_]{3,}", " ".join(example.fields().values()).lower()))
        texts.update(found)
        together.update((word, example.label) for word in found)

    def information(word: str) -> float:
        shares = [together[word, label] * len(train) / (texts[word] * labels[label]) for label in labels]
        return float(np.log(max(shares)) * np.log1p(texts[word]))

    known = [word for word, times in texts.items() if times > 1]
    return tuple(sorted(known, key=lambda word: (-information(word), word))[:count])
