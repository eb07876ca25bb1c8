"""Scores candidates on one frozen model; the same object in this process and in an actor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bbtune.backbone.calibration import layer_stds
from bbtune.backbone.encoding import Encoder
from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.memory import held, used_memory
from bbtune.backbone.packing import chunks
from bbtune.backbone.prompted import Prompts
from bbtune.backbone.stack import Texts
from bbtune.evaluation.scorer import Scorer, is_out_of_memory, memory_in_words, sorted_rows
from bbtune.objective import Subset
from bbtune.prompts.space import PromptSpace, prefix_bases
from bbtune.search_plan import SearchPlan
from bbtune.task.task import Example

_ROWS = 16  # of a calibration batch
_MIB = 2**20

Prepared = tuple[Texts, NDArray[np.int64]]  # texts sorted by length, and each one's place before


class Worker(Scorer):
    """A scorer with the plan's train and dev splits and its prompts.

    Args:
        plan: of the search.
        model: the job's, where others have loaded it already.
    """

    def __init__(self, plan: SearchPlan, model: FrozenModel | None = None) -> None:
        super().__init__(plan, with_prompt=True, model=model)
        self._plan = plan
        self._space = prompt_space(plan, self.model, self._encoder)
        self._splits: dict[str, Prepared] = {}
        self._part: tuple[str, Subset, Prepared] | None = None  # of a split; the last one asked for
        # Candidates of one forward, halved when memory runs out. One fills the products of a CPU.
        self._most = 1 if self.model.device.type == "cpu" else plan.spec.method.population
        self._loaded = used_memory(self.model.device)

    @torch.inference_mode()
    def describe(self) -> str:
        """The path that candidates take through the model and the memory it takes, found out by a first one."""
        self._first_candidate()
        parts = [self._part[2]] if self._part else []
        kept = sum(held(texts) for texts, _ in [*self._splits.values(), *parts])
        model = held(list(self.model.model.parameters()))
        work = max(0, used_memory(self.model.device) - self._loaded - kept)  # calibration's, too
        return (
            f"{self._path.name}; model {model / _MIB:.0f} MiB, kept states {kept / _MIB:.0f} MiB, "
            f"working space {work / _MIB:.0f} MiB"
        )

    @torch.inference_mode()
    def together(self) -> int:
        """How many candidates to score in one call: fixed for a run, so that no pool changes a bit.

        One on a CPU, where a candidate's rows fill the products already; on a GPU as many as half the free memory
        holds, up to a population.
        """
        if self.model.device.type == "cpu":
            return 1
        self._first_candidate()
        torch.cuda.reset_peak_memory_stats(self.model.device)
        before = torch.cuda.memory_allocated(self.model.device)
        self._first_candidate()
        each = max(1, torch.cuda.max_memory_allocated(self.model.device) - before)
        free, _ = torch.cuda.mem_get_info(self.model.device)
        return int(min(self._most, max(1, free // 2 // each)))

    @torch.inference_mode()
    def calibrate(self) -> NDArray[np.float64]:
        """Natural scales (L,) of the tuned layers (BBTv2 section 3.3).

        Layer 0 of offset prompts has the input embeddings' standard deviation, every other layer that of the
        hidden states that enter it on the train examples.
        """
        rows = sorted((self._encoder.row(example) for example in self._plan.train), key=lambda row: len(row.ids))
        batches = [self._encoder.batch(rows[some]) for some in chunks(len(rows), _ROWS)]
        stds = layer_stds(self.model, batches, self._space.bases)
        if not self._space.sets:
            stds[0] = float(self.model.embeddings.double().std(unbiased=False))
        return np.asarray(stds[list(self._plan.layers)])

    @torch.inference_mode()
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
        with memory_in_words():
            texts = self._texts(split, subset)
            if min(self._most, len(prompts)) <= 1:
                found = [self._logits(texts, [one], layer) for one in prompts]
                return np.concatenate(found)
        parts = chunks(len(prompts), self._most)
        try:
            return np.concatenate([self._logits(texts, prompts[some], layer) for some in parts])
        except RuntimeError as error:
            if not is_out_of_memory(error):
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
        if z is None:
            return self.untouched(examples)
        return self._once(self._encoder, examples, self._space.prompts(z))

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
        rows, order = sorted_rows(self._encoder, examples)
        return self._path.prepare(rows, self._encoder.prompt_length, self._space.sets), order

    def _logits(self, prepared: Prepared, prompts: Sequence[Prompts], layer: int) -> NDArray[np.float32]:
        texts, order = prepared
        return self._ordered(self._path.read(texts, prompts, layer), order)


def prompt_space(plan: SearchPlan, model: FrozenModel, encoder: Encoder) -> PromptSpace:
    """From scaled z to the prompts of a search, on its model.

    Args:
        encoder: of rows with the prompt.
    """
    spec = plan.spec
    bases = prefix_bases(model, encoder) if spec.prompt.kind == "prefix" else []
    shape = (encoder.prompt_length, model.hidden_size)
    return PromptSpace(spec.seed, plan.layers, shape, spec.prompt.intrinsic_dim, bases, model.device)
