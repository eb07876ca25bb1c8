"""The runs of a server: finished, with prompts in hidden states, and all of one model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bbtune.backbone.sources import ModelCard, read_model_card
from bbtune.errors import BackboneError, BbtuneError
from bbtune.result import TuneResult
from bbtune.serving.book import Book
from bbtune.storage.home import finished
from bbtune.storage.place import place_named

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
NAME_RULE = "1 to 100 letters, digits, dots, dashes and underscores, a letter or digit first"


@dataclass(frozen=True)
class Model:
    """What runs must have in common to be served together.

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


def model_of(result: TuneResult) -> Model:
    """The model of a run."""
    spec = result.spec.backbone
    return Model(result.fingerprints["model"], spec.named, spec.dtype, spec.device, spec.kind)


def check_servable(result: TuneResult, run: str) -> None:
    """Refuse runs whose prompts are no hidden states of a model that is here.

    Args:
        run: as it was named, for messages.

    Raises:
        BbtuneError: if a run has learned something else.
    """
    from bbtune.tuned import check_continuous

    if result.spec.backbone.api is not None:
        where = "its model is asked there, not here"
        raise BbtuneError(f"{run}: expected a run on a model that is here, got one that asks an API; {where}")
    try:
        check_continuous(result)
    except BbtuneError as error:
        todo = "weights and prompts in words are used with bbtune predict"
        raise BbtuneError(f"{run}: {error}; {todo}") from error


def check_same(model: Model, result: TuneResult, run: str) -> None:
    """Refuse a run of another model than the one that is served.

    Raises:
        BbtuneError: if it is of another.
    """
    if different := model.unlike(model_of(result)):
        todo = "start another bbtune serve for it"
        raise BbtuneError(
            f"{run}: expected a run of the model that is served ({model.source}), got {different}; {todo}"
        )


def check_files(card: ModelCard, model: Model) -> None:
    """Refuse a model whose files are not those that the prompts were tuned on.

    Raises:
        BackboneError: if they are others.
    """
    if (found := card.fingerprint) != model.fingerprint:
        expected = f"expected the files that the prompts were tuned on ({model.fingerprint[:12]})"
        raise BackboneError(f"{model.source}: {expected}, got others ({found[:12]}); restore them")


def check_name(name: str) -> None:
    """Refuse what cannot stand in an address.

    Raises:
        BbtuneError: if it cannot.
    """
    if not _NAME.fullmatch(name):
        raise BbtuneError(f"expected a name of {NAME_RULE}, got {name!r}; choose one: NAME=RUN")


def fill(book: Book, told: Sequence[str]) -> tuple[str, ...]:
    """Put runs into a book, all of them or none; returns their prompts' names.

    Args:
        told: ``RUN`` or ``NAME=RUN``, a folder or an address; a name defaults to that of the run's job.

    Raises:
        BbtuneError: if a run cannot be served, two have one name, or not all are of one model.
    """
    found: dict[str, Path] = {}
    model: Model | None = None
    with ExitStack() as fetched:
        for one in told:
            head, equals, rest = one.partition("=")
            given, run = (head, rest) if equals and "/" not in head else ("", one)
            folder, result = fetched.enter_context(finished(place_named(run)))
            check_servable(result, run)
            if model is None:
                model = model_of(result)
                check_files(read_model_card(result.spec.backbone), model)
            check_same(model, result, run)
            name = given or result.spec.name
            check_name(name)
            if name in found:
                both = f"{name!r} for {found[name]} and {run}"
                raise BbtuneError(f"expected a name of its own for each run, got {both}; choose: NAME=RUN")
            found[name] = folder
        for name, folder in found.items():
            book.put(name, folder)
    return tuple(found)
