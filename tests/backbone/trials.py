"""Workers on exchangeable texts, tuned layers and paths, and the plain forward that they are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_models import CORPUS, MAKERS

from bbtune.backbone.frozen import FrozenModel, load_frozen
from bbtune.backbone.products import TORCH
from bbtune.backbone.replay import ReplayStack
from bbtune.evaluation.worker import Worker, prompt_space
from bbtune.examine import make_plan
from bbtune.search_plan import SearchPlan
from bbtune.task.task import Example

PACKED = ["bert", "roberta", "xlm-roberta", "distilbert", "electra", "encoder", "roberta-encoder"]
DECODERS = ["llama", "mistral", "qwen2", "qwen3", "gemma"]
CAUSAL = ["gpt2", "opt", "gpt_neox", *DECODERS, "gemma2", "gemma3_text", "windowed"]
WORDS = sorted({word for line in CORPUS for word in line.split()})
DEPTH, DIM, TOKENS = 3, 6, 4  # of make_job's models and prompts

Setting = tuple[str, str, str, bool]  # family, kind of prompt, its place, whether the stock layers are replayed


def settings_of(family: str) -> list[Setting]:
    """Every way a family can be run."""
    places = ["before", "after"] if family in CAUSAL else ["before"]
    replays = [False, True] if family in PACKED + DECODERS else [False]
    return [(family, kind, place, again) for kind in ("offset", "prefix") for place in places for again in replays]


SETTINGS = [setting for family in MAKERS for setting in settings_of(family)]
BY_CHOICE = [setting for setting in SETTINGS if not setting[3]]  # on the path that the model is given
EVERY_WAY = [setting for setting in BY_CHOICE if setting[0] in ("bert", "encoder", "llama", "qwen3", "gpt2")]
AS_OFFSETS = [setting for setting in BY_CHOICE if setting[1] == "offset"]
REPLAYED = [setting for setting in SETTINGS if setting[3] or setting[0] not in PACKED + DECODERS]

WITHIN = 1e-4  # of the plain forward's label logits
MIXED = (3, 1, 7, 3, 12, 5)  # words of each text, not in order


def named(setting: Setting) -> str:
    """A setting as the id of a test."""
    family, kind, place, replays = setting
    return f"{family}-{kind}-{place}{'-replayed' if replays else ''}"


def examples(lengths: Sequence[int], seed: int = 0) -> tuple[Example, ...]:
    """Texts of so many words."""
    rng = np.random.default_rng(seed)
    return tuple(Example(" ".join(rng.choice(WORDS, length)), None, i % 2) for i, length in enumerate(lengths))


_loaded: dict[tuple[Any, ...], FrozenModel] = {}


def _load_once(card: Any, spec: Any) -> FrozenModel:
    key = (card.files.name, spec.dtype, spec.device)
    if key not in _loaded:
        _loaded[key] = load_frozen(card, spec)
    return _loaded[key]


class Trial(Worker):
    """A worker whose data and tuned layers can be exchanged; trials on one model share its weights."""

    def __init__(self, plan: SearchPlan, replays: bool = False) -> None:
        plan = replace(plan, product=plan.product or TORCH)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bbtune.evaluation.scorer.load_frozen", _load_once)
            super().__init__(plan)
        if replays:
            self._path = ReplayStack(self.model, self._encoder, "asked for")
        self._most = 5  # candidates share forwards, as they do on a GPU
        self.path, self.encoder, self.head = self._path, self._encoder, self._head
        self.space = self._space
        self.plan = plan

    def use(
        self, train: Sequence[Example], dev: Sequence[Example] = (), layers: Sequence[int] = tuple(range(DEPTH))
    ) -> None:
        """Start anew with other texts and tuned layers."""
        self._plan = replace(self._plan, train=tuple(train), dev=tuple(dev), layers=tuple(layers))
        self.restart()

    def restart(self) -> None:
        """Forget what earlier calls left behind."""
        self._splits = {}
        self._space = prompt_space(self._plan, self.model, self._encoder)
        # The worker's own one tells by object identity what has not changed.
        self.space = prompt_space(self._plan, self.model, self._encoder)

    def texts(self, split: str) -> tuple[Example, ...]:
        """Examples of a split."""
        return self._plan.train if split == "train" else self._plan.dev

    def kept(self, split: str) -> Any:
        """What the path keeps of a split."""
        return self._splits[split][0].kept

    def plain(self, z: NDArray[np.float64], example: Example) -> NDArray[np.float32]:
        """Label logits (C,) under scaled z (L, D) by the plain forward, the example alone: nothing is padded."""
        batch = self.encoder.batch([self.encoder.row(example)])
        states = self.model.states(batch, self.space.prompts(z))
        hidden_prompt = self.encoder.prompt_length if self.space.sets else 0
        return self.head(self.model.readout(batch, states, hidden_prompt))[0].float().cpu().numpy()

    def off(self, z: NDArray[np.float64], split: str, got: NDArray[np.float32], most: int = 8) -> float:
        """How far label logits (P, N, C) of z (P, L, D) lie from those of the plain forward, at most.

        The plain forward is slow: at most ``most`` pairs of candidate and text are compared, each candidate and each
        text as often as the others.
        """
        texts = self.texts(split)
        assert got.shape[:2] == (len(z), len(texts))
        count = max(len(z), len(texts))
        differ = []
        for p, n in enumerate(range(0, count, max(1, count // most))):
            one, example = z[p % len(z)], texts[n % len(texts)]
            differ.append(got[p % len(z), n % len(texts)] - self.plain(one, example))
        return float(np.abs(differ).max())


def make_trial(make_job: Any, setting: Setting, **parts: Any) -> Trial:
    """A trial on one of the tiny models."""
    family, kind, place, replays = setting
    prompt = {"kind": kind, "place": place, **parts.pop("prompt", {})}
    plan, _, _ = make_plan(make_job(family, prompt=prompt, **parts))
    return Trial(plan, replays)


def numbers(population: int, first: int, seed: int, layers: int = DEPTH) -> NDArray[np.float64]:
    """Scaled z (P, L, D) that differ from layer ``first`` upwards."""
    rng = np.random.default_rng(seed)
    z = np.repeat(rng.standard_normal((1, layers, DIM)), population, axis=0)
    z[:, first:] = rng.standard_normal((population, layers - first, DIM))
    return z
