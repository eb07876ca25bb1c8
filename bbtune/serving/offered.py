"""Prompts that a server may take, from finished runs and from exports, before their model is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone_spec import BackboneSpec
from bbtune.errors import BbtuneError
from bbtune.exporting.prompt_folder import StoredPrompt, is_prompt_folder, stored_prompt
from bbtune.plan import Plan
from bbtune.result import TuneResult
from bbtune.storage.home import finished
from bbtune.storage.place import place_named
from bbtune.tuned import Tuned, check_continuous, plan_here, tuned


@dataclass(frozen=True)
class Model:
    """What prompts must have in common to be served together.

    Attributes:
        fingerprint: SHA-256 (hex) of its files.
        source: as the job names it.
        dtype, device: of its weights.
        kind: as the job names it, ``auto`` for what its configuration says.
    """

    fingerprint: str
    source: str
    dtype: str
    device: str
    kind: str

    def unlike(self, other: Model) -> str:
        """What of another model differs, in words; empty where it is the same."""
        if self.fingerprint != other.fingerprint:
            return f"another model ({other.source}, files {other.fingerprint[:12]}, not {self.fingerprint[:12]})"
        names = [name for name in ("dtype", "device", "kind") if getattr(self, name) != getattr(other, name)]
        return ", ".join(f"backbone.{name} {getattr(other, name)}, not {getattr(self, name)}" for name in names)


@dataclass(frozen=True)
class Offered:
    """A prompt without its model.

    Attributes:
        name: of the job that found it.
        task: name of the task that it was tuned on.
        metric, score: of the tuned prompt on the test split.
        on: puts it on its model.
    """

    name: str
    model: Model
    plan: Plan
    task: str
    metric: str
    score: float
    on: Callable[[FrozenModel], Tuned]


@contextmanager
def offers(run: str) -> Iterator[tuple[Path, Offered]]:
    """The folder and the prompt of a finished run, or of ``bbtune export --format safetensors``.

    Args:
        run: a folder, or the address of a run.

    Raises:
        BbtuneError: if there is none, or what it has learned is no prompt in hidden states of a model that is here.
    """
    place = place_named(run)
    if isinstance(place, Path) and is_prompt_folder(place):
        yield place, offered(place, run)
        return
    with finished(place) as (folder, result):
        yield folder, _of_run(result, run)


def offered(folder: Path, run: str) -> Offered:
    """As :func:`offers`, of a folder that is here.

    Args:
        run: as it was named, for messages.
    """
    if is_prompt_folder(folder):
        return _of_export(stored_prompt(folder))
    return _of_run(TuneResult.load(folder), run)


def _of_run(result: TuneResult, run: str) -> Offered:
    _check(result, run)
    score = result.scores["tuned"].test.value
    plan, model = plan_here(result.spec, result.reading), _model(result.spec.backbone, result.fingerprints["model"])
    return Offered(result.spec.name, model, plan, result.task, result.metric, score, partial(tuned, result))


def _of_export(stored: StoredPrompt) -> Offered:
    card, plan = stored.card, stored.plan
    model = _model(plan.spec.backbone, stored.fingerprint)
    score = float(card["scores"]["tuned"]["test"]["value"])
    return Offered(card["name"], model, plan, card["task"]["name"], card["task"]["metric"], score, stored.on)


def _model(spec: BackboneSpec, fingerprint: str) -> Model:
    return Model(fingerprint, spec.named, spec.dtype, spec.device, spec.kind)


def _check(result: TuneResult, run: str) -> None:
    if result.spec.backbone.api is not None:
        where = "its model is asked there, not here"
        raise BbtuneError(f"{run}: expected a run on a model that is here, got one that asks an API; {where}")
    try:
        check_continuous(result)
    except BbtuneError as error:
        todo = "weights and prompts in words are used with bbtune predict"
        raise BbtuneError(f"{run}: {error}; {todo}") from error
