"""Hand a finished run on: in a form that others use, and to MLflow's registries."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from bbtune.api import sync
from bbtune.errors import ExportError, TrackingError
from bbtune.exporting.formats import check_format, write
from bbtune.exporting.registry import register_model
from bbtune.journal import read_journal
from bbtune.mlflow_store import Store
from bbtune.prompt_registry import register, tuned_prompt
from bbtune.result import JOURNAL, TuneResult
from bbtune.storage.home import fetched
from bbtune.storage.place import place_named
from bbtune.tracking import record_uri

_REGISTERED = ("mlflow", "text")  # forms
_NAME = re.compile(r"\w[\w.-]{0,255}", re.ASCII)  # of a prompt; of a model MLflow would take more


def export(
    folder: str | Path, form: str, to: str | Path, register_as: str | None = None, tracking_uri: str | None = None
) -> list[str]:
    """Write what a run has found in a form that others use; kept only where it gives the same when it is read back.

    Args:
        folder: of a finished run, or its address.
        form: ``safetensors``, ``peft``, ``peft-prefix``, ``text`` or ``mlflow``.
        to: folder, new or empty.
        register_as: name in MLflow's Model Registry (form ``mlflow``) or Prompt Registry (``text``).
        tracking_uri: MLflow server or database; without it the one that has the run's record.

    Returns:
        Sentences: what was found when it was read back, and where it is registered.

    Raises:
        BbtuneError: if the form cannot hold what the run has found, or gives something else; nothing is left then.
    """
    check_format(form)
    _check_registered(form, register_as)
    with fetched(place_named(str(folder))) as path:
        result = TuneResult.load(path)
        if register_as is None:
            return [f"{to}: {form}, {write(result, form, to)}"]
        run_id = sync(folder, tracking_uri)  # first: a server that is down is told before anything is written
        store = Store(tracking_uri or record_uri(path, result.spec))
        said = f"{to}: {form}, {write(result, form, to)}"
        try:
            if form == "mlflow":
                where = register_model(store, run_id, Path(to), register_as)
            else:
                prompt = tuned_prompt(result, read_journal(path / JOURNAL)[0]["uid"])
                where = register(store, run_id, replace(prompt, name=register_as))
            return [said, f"registered: {where}"]
        except TrackingError as error:
            again = f"{to} is written; export again to another --to once this is mended"
            raise TrackingError(f"{register_as} is not registered: {error}; {again}") from error


def _check_registered(form: str, name: str | None) -> None:
    """Refuse what MLflow's registries do not take, before anything is done."""
    if name is None:
        return
    if form not in _REGISTERED:
        expected = f"expected --format {' or '.join(_REGISTERED)} with --register"
        raise ExportError(f"{expected}, for the others MLflow has no registry, got {form}")
    if not _NAME.fullmatch(name):
        raise ExportError(f"--register: expected letters, digits, dots, dashes and underscores, got {name!r}")
