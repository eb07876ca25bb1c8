"""SetFit, through its library: a sentence encoder fine-tuned on pairs, then a logistic regression (2209.11055)."""

from __future__ import annotations

import logging
import os
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.sources import ModelCard
from bbtune.baselines.features import Head, head_of, logits_of, pooled_features
from bbtune.baselines.untrained import Learned, Logits, Untrained, known
from bbtune.errors import BackboneError
from bbtune.evaluation.scorer import TRAINING_MEMORY, load_model, memory_in_words
from bbtune.loop import Generation
from bbtune.method import Fitted
from bbtune.methods import SetFitSpec, settings_of
from bbtune.plan import Plan
from bbtune.seeds import generator
from bbtune.task.task import Example

_BODY, _HEAD = "body.", "head."
_LOGGERS = ("setfit", "sentence_transformers")


class SetFit(Untrained):
    """Pairs of train texts, of one label or of two, pull the encoder's mean states together or push them apart.

    The library trains; texts are scored by our own forward, with the weights that came of it.
    """

    _learned: Learned | None = None
    _head: Head | None = None

    def fit(self) -> Iterator[Generation | Fitted]:
        """One step, of all epochs.

        Raises:
            BackboneError: if the library is not there.
        """
        settings, train, dev = settings_of(self._plan.spec, SetFitSpec), len(self._plan.train), len(self._plan.dev)
        import_setfit()
        self._learned = None
        self.__dict__.pop("_tuned", None)  # an earlier fit's
        _ = self._tuned
        account = self._open()
        done = trained(self._plan, self._card, self._tuned, self._past.cost.backward_examples // 2)
        self.restore(done.learned)
        paired = 2 * done.pairs
        epochs = ceil(done.pairs / settings.pairs(train))
        account.spend(evaluations=epochs, examples=paired + train + dev, backward=paired)
        yield account.judge(self.label_logits(self._plan.dev))
        sizes = [weight.numel() for weight in self._tuned.model.parameters()]
        parameters = sum(sizes) + sum(part.size for part in known(self._head))
        whole = settings.epochs * settings.pairs(train)
        yield Fitted("done" if done.pairs == whole else "budget.seconds", account.cost, done.learned, parameters)

    def label_logits(self, examples: Sequence[Example]) -> Logits:
        """Label logits (N, C)."""
        self.__dict__.pop("_scorer", None)  # one model at a time
        encoder = self._plan.encoder(self._card, with_prompt=False)
        return logits_of(pooled_features(self._tuned, encoder, examples), known(self._head))

    def restore(self, learned: Learned) -> None:
        """Take the encoder's weights and the classifier's."""
        self._learned = learned
        self._head = learned[f"{_HEAD}weight"], learned[f"{_HEAD}bias"]
        self.__dict__.pop("_tuned", None)

    def untouched(self, examples: Sequence[Example]) -> Logits:
        """Label logits (N, C) of the model as it was."""
        self.__dict__.pop("_tuned", None)
        return super().untouched(examples)

    def close(self) -> None:
        """Let the models go."""
        super().close()
        self.__dict__.pop("_tuned", None)

    @cached_property
    def _tuned(self) -> FrozenModel:
        """The model that takes what was learned, in float32: steps of fine-tuning are too small for bfloat16."""
        backbone = self._plan.spec.backbone.model_copy(update={"dtype": "float32"})
        model = load_model(replace(self._plan, spec=self._plan.spec.model_copy(update={"backbone": backbone})))
        self._device = model.device
        if self._learned is not None:
            body = {name: values for name, values in self._learned.items() if name.startswith(_BODY)}
            model.model.load_state_dict({name.removeprefix(_BODY): torch.tensor(of) for name, of in body.items()})
        return model


@dataclass(frozen=True)
class Tuning:
    """What came of a training: weights by name, and how many pairs it had."""

    learned: Mapping[str, NDArray[Any]]
    pairs: int


def trained(plan: Plan, card: ModelCard, model: FrozenModel, pairs: int) -> Tuning:
    """Train a copy of a model, and a classifier on its L2-normalised mean states.

    Args:
        pairs: that an earlier session had until its seconds were spent: so many again, whatever the clock says; 0
            where there was none.

    Raises:
        BackboneError: if the library is not there.
    """
    rng = generator(plan.spec.seed, "setfit")
    # The library pairs texts by a seed of its own: the order that it gets them in makes the pairs depend on the job's.
    train = [plan.train[i] for i in rng.permutation(len(plan.train))]
    texts, labels = [as_text(plan, example) for example in train], [example.label for example in train]
    quiet, memory = quiet_library(plan.spec.backbone.device), memory_in_words(*TRAINING_MEMORY)
    with quiet, memory, tempfile.TemporaryDirectory() as folder:
        model.model.save_pretrained(folder)
        card.tokenizer.save_pretrained(folder)
        room = plan.encoder(card, with_prompt=False).max_tokens
        trainer = _trainer(plan, folder, room, int(rng.integers(2**31)))
        if plan.spec.budget.seconds is not None:
            trainer.add_callback(_stop_after(plan, plan.spec.budget.seconds, pairs))
        trainer.train_embeddings(texts, labels)
        trainer.train_classifier(texts, labels)
    body = trainer.model.model_body[0].auto_model.state_dict()
    weight, bias = head_of(trainer.model.model_head, len(plan.label_words))
    learned = {f"{_BODY}{name}": values.cpu().numpy() for name, values in body.items()}
    steps = int(trainer.st_trainer.state.global_step)
    return Tuning({**learned, f"{_HEAD}weight": weight, f"{_HEAD}bias": bias}, _pairs_of(plan, steps))


def as_text(plan: Plan, example: Example) -> str:
    """What zero-shot reads of an example, as text: the instruction in words, if any, and the filled template."""
    prompt = plan.spec.prompt.text or ""
    joint = " " if prompt and not prompt[-1].isspace() else ""
    return prompt + joint + plan.template.render(example.fields(), "")


@contextmanager
def quiet_library(device: str) -> Iterator[None]:
    """Nothing on the terminal, and the computer's random numbers, logging and environment left as they were."""
    name, before = "ACCELERATE_USE_CPU", os.environ.get("ACCELERATE_USE_CPU")
    levels = {logger: logging.getLogger(logger).level for logger in _LOGGERS}
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the library seeds the global ones
    try:
        if device == "cpu":
            os.environ[name] = "true"  # else its trainer takes a GPU where there is one
        with torch.random.fork_rng():
            yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before
        for logger, level in levels.items():
            logging.getLogger(logger).setLevel(level)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def import_setfit() -> Any:
    """The library, with the level of its logger as it was: its import sets it to INFO.

    Raises:
        BackboneError: if it is not there.
    """
    levels = {logger: logging.getLogger(logger).level for logger in _LOGGERS}
    try:
        import setfit
    except ImportError as error:
        raise BackboneError(f"setfit needs its library ({error}); pip install bbtune[baselines]") from error
    finally:
        for logger, level in levels.items():
            logging.getLogger(logger).setLevel(level)
    return setfit


def _trainer(plan: Plan, folder: str, room: int, seed: int) -> Any:
    """The library's trainer of the model in a folder, in which it may write.

    Args:
        room: tokens of a text at most.
    """
    setfit = import_setfit()
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from sklearn.linear_model import LogisticRegression
    from transformers.trainer_callback import PrinterCallback

    for logger in _LOGGERS:
        logging.getLogger(logger).setLevel(logging.ERROR)
    device = plan.spec.backbone.device
    words = Transformer(folder, max_seq_length=room, model_kwargs={"dtype": torch.float32})
    body = SentenceTransformer(modules=[words, Pooling(words.get_embedding_dimension(), "mean")], device=device)
    model = setfit.SetFitModel(body, LogisticRegression(), normalize_embeddings=True)
    arguments = _settings_of_library(settings_of(plan.spec, SetFitSpec), seed)
    trainer = setfit.Trainer(model, setfit.TrainingArguments(folder, **arguments))
    trainer.pop_callback(PrinterCallback)
    trainer.st_trainer.args._n_gpu = min(trainer.st_trainer.args.n_gpu, 1)  # a batch would grow with the GPUs in sight
    trainer.st_trainer.args.dataloader_pin_memory = device != "cpu"
    return trainer


def _settings_of_library(spec: SetFitSpec, seed: int) -> dict[str, Any]:
    """The job's under the library's names, and nothing said or kept on the way."""
    return {
        "seed": seed,
        "batch_size": spec.batch_size,
        "num_epochs": spec.epochs,
        "num_iterations": spec.pairs_per_example,
        "body_learning_rate": spec.learning_rate,
        "report_to": "none",
        "logging_strategy": "no",
        "logging_first_step": False,
        "save_strategy": "no",
        "show_progress_bar": False,
    }


def _stop_after(plan: Plan, seconds: float, pairs: int) -> Any:
    """A callback that ends the training behind so many pairs, or, for 0, at the first step behind so many seconds."""
    from transformers import TrainerCallback

    deadline = time.monotonic() + seconds

    class Stop(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            late = _pairs_of(plan, state.global_step) >= pairs if pairs else time.monotonic() >= deadline
            control.should_training_stop = control.should_training_stop or late

    return Stop()


def _pairs_of(plan: Plan, steps: int) -> int:
    """Pairs of so many steps; the last step of an epoch may have fewer than a batch."""
    spec = settings_of(plan.spec, SetFitSpec)
    of_epoch = spec.pairs(len(plan.train))
    epochs, rest = divmod(steps, ceil(of_epoch / spec.batch_size))
    return epochs * of_epoch + rest * spec.batch_size
