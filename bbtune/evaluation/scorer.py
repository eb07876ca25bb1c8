"""A frozen model with the head that a plan's label words make: texts in, label logits out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from bbtune.backbone.encoding import Encoder, Row
from bbtune.backbone.frozen import FrozenModel, load_frozen
from bbtune.backbone.heads import CosineHead, WordHead
from bbtune.backbone.memory import keep_freed_memory, peak_memory
from bbtune.backbone.paths import choose_path
from bbtune.backbone.products import ONEDNN, Products, fastest_product, onednn_works
from bbtune.backbone.prompted import Prompts
from bbtune.backbone.sources import read_model_card
from bbtune.errors import EvaluationError
from bbtune.plan import Plan
from bbtune.task.task import Example
from bbtune.task.verbalizer import label_token_ids

_MIB = 2**20
_SPLIT = "one candidate on the whole split"
_ADVICE = "use backbone.dtype bfloat16, a smaller model, a lower backbone.max_tokens"
TRAINING_MEMORY = (
    "a batch with its gradients",
    "use a lower method.batch_size or backbone.max_tokens, a smaller model",
)

Head = WordHead | CosineHead


class Scorer:
    """One frozen model.

    Results depend on the arguments alone: the same rows share a forward whatever else happens, and the number of
    threads is set.

    Args:
        plan: of the job.
        with_prompt: whether rows have room for the job's prompt.
        model: the job's, where it is loaded already.

    Attributes:
        model: as it was loaded.
    """

    def __init__(self, plan: Plan, with_prompt: bool, model: FrozenModel | None = None) -> None:
        self.model = model or load_model(plan)
        self._encoder = plan.encoder(self.model.card, with_prompt)
        self._plain = plan.encoder(self.model.card, with_prompt=False)
        weights, threads = self.model.embeddings.dtype, plan.spec.evaluators.threads
        product = plan.product or fastest_product(weights, self.model.device.type, threads)
        if product == ONEDNN and not onednn_works(weights):
            raise EvaluationError(
                f"expected torch {torch.__version__} to have the matrix product that the run began with ({ONEDNN}), it "
                "lacks it; use the version in the journal's first line, or start a new run"
            )
        self._path = choose_path(self.model, self._encoder, Products(product, weights))
        self._head = label_head(plan, self.model)

    def untouched(
        self, examples: Sequence[Example], encoder: Encoder | None = None, head: Head | None = None
    ) -> NDArray[np.float32]:
        """Label logits (N, C) of the model as it is.

        Args:
            examples: any.
            encoder: of their rows; without it the job's, with the prompt text in words, if any.
            head: of their label words; without it the job's.
        """
        return self._once(encoder or self._plain, examples, None, head)

    def peak_memory_mib(self) -> float:
        """Highest memory of this process so far, or of its GPU."""
        return peak_memory(self.model.device) / _MIB

    @torch.inference_mode()
    def _once(
        self, encoder: Encoder, examples: Sequence[Example], prompts: Prompts | None, head: Head | None = None
    ) -> NDArray[np.float32]:
        """Label logits (N, C) of texts that are asked about once."""
        rows, order = sorted_rows(encoder, examples)
        tokens = encoder.prompt_length if prompts else 0
        with memory_in_words():
            states = self._path.read_once(rows, tokens, prompts is not None and prompts.sets, prompts or Prompts())
            return np.asarray(self._ordered(states, order, head)[0])

    def _ordered(self, states: torch.Tensor, order: NDArray[np.int64], head: Head | None = None) -> NDArray[np.float32]:
        """Label logits (P, N, C) of states (P, N, H), each text back at its place."""
        logits = (head or self._head)(states.flatten(0, 1)).reshape(*states.shape[:2], -1)
        found = np.empty(logits.shape, dtype=np.float32)
        found[:, order] = logits.float().cpu().numpy()
        return found


def load_model(plan: Plan) -> FrozenModel:
    """The job's model, in this process, with its number of threads."""
    torch.set_num_threads(plan.spec.evaluators.threads)
    keep_freed_memory()
    return load_frozen(read_model_card(plan.spec.backbone), plan.spec.backbone)


def label_head(plan: Plan, model: FrozenModel) -> Head:
    """The head of a plan's label words: their tokens, or embeddings of each label's descriptions."""
    if model.card.kind != "sentence-encoder":
        ids, _ = label_token_ids(plan.label_words, model.card.tokenizer, plan.template.word_follows_space)
        return WordHead(model, [torch.tensor(of_label) for of_label in ids])
    plain = plan.encoder(model.card, with_prompt=False)
    labels = [torch.cat([_described(model, plain, text) for text in texts]) for texts in plan.label_words]
    return CosineHead(labels, plan.spec.backbone.temperature)


def _described(model: FrozenModel, encoder: Encoder, text: str) -> torch.Tensor:
    """The mean state (1, H) of a label's description."""
    batch = encoder.batch([encoder.plain_row(text)])
    return model.readout(batch, model.states(batch), 0)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out, of a GPU or of the machine."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def memory_in_words(what: str = _SPLIT, advice: str = _ADVICE) -> Iterator[None]:
    """Says what to do where memory runs out.

    Args:
        what: did not fit.
        advice: what would.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise EvaluationError(f"memory does not hold {what}; {advice} or fewer evaluators on this machine") from error


def sorted_rows(encoder: Encoder, examples: Sequence[Example]) -> tuple[list[Row], NDArray[np.int64]]:
    """Rows sorted by length, and each one's place before."""
    rows = [encoder.row(example) for example in examples]
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    return [rows[i] for i in order], np.array(order, dtype=np.int64)
