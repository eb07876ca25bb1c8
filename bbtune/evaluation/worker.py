"""Scores candidates on one frozen model; the same object in this process and in an actor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from bbtune.backbone.calibration import layer_stds
from bbtune.backbone.encoding import Encoder, Row
from bbtune.backbone.frozen import FrozenModel, load_frozen
from bbtune.backbone.heads import CosineHead, WordHead
from bbtune.backbone.memory import held, keep_freed_memory, used_memory
from bbtune.backbone.packing import chunks
from bbtune.backbone.paths import choose_path
from bbtune.backbone.products import ONEDNN, Products, fastest_product, onednn_works
from bbtune.backbone.prompted import Prompts
from bbtune.backbone.sources import read_model_card
from bbtune.backbone.stack import Texts
from bbtune.errors import EvaluationError
from bbtune.objective import Subset
from bbtune.plan import Plan
from bbtune.prompts.space import PromptSpace, prefix_bases
from bbtune.task.task import Example
from bbtune.task.verbalizer import label_token_ids

_ROWS = 16  # of a calibration batch
_MIB = 2**20

Prepared = tuple[Texts, NDArray[np.int64]]  # texts sorted by length, and each one's place before


class Worker:
    """One frozen model with the plan's data.

    Results depend on the arguments alone: the same rows share a forward whatever else happens, and the number of
    threads is set.
    """

    def __init__(self, plan: Plan) -> None:
        torch.set_num_threads(plan.spec.evaluators.threads)
        keep_freed_memory()
        spec = plan.spec
        card = read_model_card(spec.backbone)
        self._plan = plan
        self._model = load_frozen(card, spec.backbone)
        self._encoder = plan.encoder(card, with_prompt=True)
        self._plain = plan.encoder(card, with_prompt=False)
        weights, threads = self._model.embeddings.dtype, spec.evaluators.threads
        product = plan.product or fastest_product(weights, self._model.device.type, threads)
        if product == ONEDNN and not onednn_works(weights):
            raise EvaluationError(
                f"expected torch {torch.__version__} to have the matrix product that the run began with ({ONEDNN}), it "
                "lacks it; use the version in the journal's first line, or start a new run"
            )
        self._path = choose_path(self._model, self._encoder, Products(product, weights))
        self._space = self._prompt_space()
        self._splits: dict[str, Prepared] = {}
        self._part: tuple[str, Subset, Prepared] | None = None  # of a split; the last one asked for
        self._head = self._label_head()
        # Candidates of one forward, halved when memory runs out. One fills the products of a CPU.
        self._most = 1 if self._model.device.type == "cpu" else spec.method.population
        self._loaded = used_memory(self._model.device)

    def describe(self) -> str:
        """The path that candidates take through the model and the memory it takes, found out by a first one."""
        self._first_candidate()
        parts = [self._part[2]] if self._part else []
        kept = sum(held(texts) for texts, _ in [*self._splits.values(), *parts])
        model = held(list(self._model.model.parameters()))
        work = max(0, used_memory(self._model.device) - self._loaded - kept)  # calibration's, too
        return (
            f"{self._path.name}; model {model / _MIB:.0f} MiB, kept states {kept / _MIB:.0f} MiB, "
            f"working space {work / _MIB:.0f} MiB"
        )

    def together(self) -> int:
        """How many candidates to score in one call: fixed for a run, so that no pool changes a bit.

        One on a CPU, where a candidate's rows fill the products already; on a GPU as many as half the free memory
        holds, up to a population.
        """
        if self._model.device.type == "cpu":
            return 1
        self._first_candidate()
        torch.cuda.reset_peak_memory_stats(self._model.device)
        before = torch.cuda.memory_allocated(self._model.device)
        self._first_candidate()
        each = max(1, torch.cuda.max_memory_allocated(self._model.device) - before)
        free, _ = torch.cuda.mem_get_info(self._model.device)
        return int(min(self._most, max(1, free // 2 // each)))

    def calibrate(self) -> NDArray[np.float64]:
        """Natural scales (L,) of the tuned layers (BBTv2 section 3.3).

        Layer 0 of offset prompts has the input embeddings' standard deviation, every other layer that of the
        hidden states that enter it on the train examples.
        """
        rows = sorted((self._encoder.row(example) for example in self._plan.train), key=lambda row: len(row.ids))
        batches = [self._encoder.batch(rows[some]) for some in chunks(len(rows), _ROWS)]
        stds = layer_stds(self._model, batches, self._space.bases)
        if not self._space.sets:
            stds[0] = float(self._model.embeddings.double().std(unbiased=False))
        return np.asarray(stds[list(self._plan.layers)])

    def candidates(
        self, z: NDArray[np.float64], split: str, first: int, subset: Subset | None = None
    ) -> NDArray[np.float32]:
        """Label logits (P, N, C) of scaled z (P, L, D) on the train or dev split.

        Args:
            first: index of the lowest tuned layer whose numbers differ between the candidates. The states that enter
                it are kept for the next call that has the same numbers below.
            subset: examples of the split; None for all.

        Raises:
            EvaluationError: if memory does not even hold one candidate.
        """
        prompts = [self._space.prompts(one) for one in z]
        while (found := self._tried(prompts, split, subset, self._plan.layers[first])) is None:
            # Memory ran out. What the failed forward held is free only here, behind the handler of its error.
            self._most = min(self._most, len(prompts)) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return found

    def _tried(
        self, prompts: Sequence[Prompts], split: str, subset: Subset | None, layer: int
    ) -> NDArray[np.float32] | None:
        """Label logits of candidates, so many at a time as memory has held so far; None where it did not."""
        with _memory_in_words():
            texts = self._texts(split, subset)
            if min(self._most, len(prompts)) <= 1:
                found = [self._logits(texts, [one], layer) for one in prompts]
                return np.concatenate(found)
        parts = chunks(len(prompts), self._most)
        try:
            return np.concatenate([self._logits(texts, prompts[some], layer) for some in parts])
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        return None

    def _first_candidate(self) -> None:
        """Score the starting point, so that all that is kept is there."""
        z = np.zeros((1, len(self._plan.layers), self._plan.spec.prompt.intrinsic_dim))
        for split in ("train", "dev"):
            if getattr(self._plan, split):
                for first in sorted({0, min(1, len(self._plan.layers) - 1)}):  # the most that is kept: of two layers
                    self.candidates(z, split, first)
        if (part := self._plan.spec.method.probe_examples) and part < len(self._plan.train):
            self.candidates(z, "train", 0, tuple(range(part)))

    def label_logits(self, z: NDArray[np.float64] | None, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) of any examples; z None is the untouched model with the prompt text in words, if any."""
        encoder = self._plain if z is None else self._encoder
        prompts = Prompts() if z is None else self._space.prompts(z)
        rows, order = _sorted(encoder, examples)
        tokens = encoder.prompt_length if z is not None else 0
        with _memory_in_words():
            states = self._path.read_once(rows, tokens, self._space.sets and tokens > 0, prompts)
            return np.asarray(self._ordered(states, order)[0])

    def _texts(self, split: str, subset: Subset | None) -> Prepared:
        """A whole split, kept for the life of the worker, or a part of it, kept until another is asked for."""
        examples: Sequence[Example] = getattr(self._plan, split)
        if subset is None:
            if split not in self._splits:
                self._splits[split] = self._prepared(examples)
            if split == "train":  # the probes of a round are over
                self._part = None
            return self._splits[split]
        if self._part is None or self._part[:2] != (split, subset):
            self._part = None  # so that memory holds one
            self._part = split, subset, self._prepared([examples[i] for i in subset])
        return self._part[2]

    def _prepared(self, examples: Sequence[Example]) -> Prepared:
        rows, order = _sorted(self._encoder, examples)
        return self._path.prepare(rows, self._encoder.prompt_length, self._space.sets), order

    def _logits(self, prepared: Prepared, prompts: Sequence[Prompts], layer: int) -> NDArray[np.float32]:
        texts, order = prepared
        return self._ordered(self._path.read(texts, prompts, layer), order)

    def _ordered(self, states: torch.Tensor, order: NDArray[np.int64]) -> NDArray[np.float32]:
        """Label logits (P, N, C) of states (P, N, H), each text back at its place."""
        logits = self._head(states.flatten(0, 1)).reshape(*states.shape[:2], -1)
        found = np.empty(logits.shape, dtype=np.float32)
        found[:, order] = logits.float().cpu().numpy()
        return found

    def _prompt_space(self) -> PromptSpace:
        spec, model = self._plan.spec, self._model
        bases = prefix_bases(model, self._encoder) if spec.prompt.kind == "prefix" else []
        shape = (self._encoder.prompt_length, model.hidden_size)
        return PromptSpace(spec.seed, self._plan.layers, shape, spec.prompt.intrinsic_dim, bases, model.device)

    def _label_head(self) -> WordHead | CosineHead:
        """Token ids of each label's words, or embeddings of each label's descriptions."""
        plan, tokenizer = self._plan, self._model.card.tokenizer
        if self._model.card.kind != "sentence-encoder":
            ids, _ = label_token_ids(plan.label_words, tokenizer, plan.template.word_follows_space)
            return WordHead(self._model, [torch.tensor(of_label) for of_label in ids])
        labels = [
            torch.cat([_described(self._model, self._plain, text) for text in texts]) for texts in plan.label_words
        ]
        return CosineHead(labels, plan.spec.backbone.temperature)


def _described(model: FrozenModel, encoder: Encoder, text: str) -> torch.Tensor:
    """The mean state (1, H) of a label's description."""
    batch = encoder.batch([encoder.plain_row(text)])
    return model.readout(batch, model.states(batch), 0)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def _memory_in_words() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise EvaluationError(
            "memory does not hold one candidate on the whole split; use backbone.dtype bfloat16, a smaller model, "
            "a lower backbone.max_tokens or fewer evaluators on this machine"
        ) from error


def _sorted(encoder: Encoder, examples: Sequence[Example]) -> tuple[list[Row], NDArray[np.int64]]:
    """Rows sorted by length, and each one's place before."""
    rows = [encoder.row(example) for example in examples]
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    return [rows[i] for i in order], np.array(order, dtype=np.int64)
