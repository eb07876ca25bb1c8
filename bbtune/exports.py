"""Hand a finished run on: in a form that others use, and to MLflow's registries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bbtune.api import sync
from bbtune.errors import ExportError
from bbtune.exporting.formats import check_format, write
from bbtune.exporting.registry import register_model
from bbtune.journal import read_journal
from bbtune.mlflow_store import Store
from bbtune.prompt_registry import register, tuned_prompt
from bbtune.result import JOURNAL, TuneResult
from bbtune.storage.home import fetched
from bbtune.storage.place import place_named
from bbtune.tracking import record_uri


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
    if register_as is not None and form not in _REGISTRIES:
        expected = f"expected --format {' or '.join(_REGISTRIES)} with --register"
        raise ExportError(f"{expected}, for the others MLflow has no registry, got {form}")
    with fetched(place_named(str(folder))) as path:
        result = TuneResult.load(path)
        said = [f"{to}: {form}, {write(result, form, to)}"]
        if register_as is not None:
            run_id = sync(folder, tracking_uri)
            store = Store(tracking_uri or record_uri(path, result.spec))
            said.append(f"registered: {_REGISTRIES[form](store, run_id, path, Path(to), register_as)}")
    return said


def _registered_model(store: Store, run_id: str, run: Path, exported: Path, name: str) -> str:
    return register_model(store, run_id, exported, name)


def _registered_prompt(store: Store, run_id: str, run: Path, exported: Path, name: str) -> str:
    uid = read_journal(run / JOURNAL)[0]["uid"]
    return register(store, run_id, replace(tuned_prompt(TuneResult.load(run), uid), name=name))


_REGISTRIES: dict[str, Callable[[Store, str, Path, Path, str], str]] = {
    "mlflow": _registered_model,
    "text": _registered_prompt,
}
