"""The runs of a server: finished, with prompts in hidden states, and all of one model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bbtune.backbone.sources import ModelCard, read_model_card
from bbtune.errors import BackboneError, BbtuneError
from bbtune.serving.book import Book
from bbtune.serving.offered import Model, offers

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
NAME_RULE = "1 to 100 letters, digits, dots, dashes and underscores, a letter or digit first"
_SHOWN = 100  # characters


def check_same(model: Model, other: Model, run: str) -> None:
    """Refuse a run of another model than the one that is served.

    Raises:
        BbtuneError: if it is of another.
    """
    if different := model.unlike(other):
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
        raise BbtuneError(f"expected a name of {NAME_RULE}, got {shortened(name)!r}; choose one: NAME=RUN")


def shortened(told: str) -> str:
    """What somebody has sent, for messages."""
    return told if len(told) <= _SHOWN else told[:_SHOWN] + "..."


def fill(book: Book, told: Sequence[str]) -> tuple[str, ...]:
    """Put runs into a book, all of them or none; returns their prompts' names.

    Args:
        told: ``RUN`` or ``NAME=RUN``, the folder or address of a run, or the folder of an export; a name defaults to
            that of the job.

    Raises:
        BbtuneError: if a run cannot be served, two have one name, or not all are of one model.
    """
    found: dict[str, Path] = {}
    model: Model | None = None
    with ExitStack() as fetched:
        for one in told:
            head, equals, rest = one.partition("=")
            given, run = (head, rest) if equals and "/" not in head else ("", one)
            folder, offer = fetched.enter_context(offers(run))
            if model is None:
                model = offer.model
                check_files(read_model_card(offer.plan.spec.backbone), model)
            check_same(model, offer.model, run)
            name = given or offer.name
            check_name(name)
            if name in found:
                both = f"{name!r} for {found[name]} and {run}"
                raise BbtuneError(f"expected a name of its own for each run, got {both}; choose: NAME=RUN")
            found[name] = folder
        for name, folder in found.items():
            book.put(name, folder)
    return tuple(found)
