"""A finished run as an MLflow model, written from code: no pickle is in it."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bbtune
from bbtune.backbone.sources import read_model_card
from bbtune.errors import BbtuneError, ExportError
from bbtune.exporting.card import card_of
from bbtune.exporting.found import check_model
from bbtune.exporting.probes import probes
from bbtune.exporting.requirements import requirements
from bbtune.mlflow_store import patient_mlflow, reason
from bbtune.predictor import Prediction, Predictor
from bbtune.result import SPEC, TuneResult
from bbtune.task.template import FIELDS

_SCRIPT = Path(__file__).with_name("pyfunc_model.py")
_CHECKED = 8  # texts; an answer in words takes a second
_EXAMPLE = 5  # of them is shown as an input
_NEAR = 1e-4  # of probabilities
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib")


def write_pyfunc(result: TuneResult, folder: Path) -> str:
    """Write a run, our code, and a model that lies on this machine, as one MLflow model, and read it back.

    A model of a hub, or of a package, is fetched again where the export is used.

    Raises:
        BbtuneError: if what is read back answers otherwise, or MLflow refuses.
    """
    api = result.spec.backbone.api
    if api is not None and api.serve is not None:
        raise ExportError(
            f"expected an API with an address (backbone.api.base_url), got a model that is served here ({api.serve}), "
            "which an MLflow model does not bring along; use --format text"
        )
    with TemporaryDirectory(prefix=".", dir=folder.parent) as stage:  # weights may be too large for /tmp
        _save(result, folder, {name: str(path) for name, path in _staged(result, Path(stage)).items()})
    model = _loaded(folder)
    with model.unwrap_python_model().predictor:
        if api is not None:
            return "read back; the API was not asked, which would be paid"
        examples = probes(result.reading.kind, _CHECKED)
        with Predictor(result) as predictor:
            expected = predictor.predict([tuple(example.fields().values()) for example in examples])
        _check(expected, _answers(model, [example.fields() for example in examples]))
    return f"read back, it answers {len(examples)} texts as bbtune predict does"


@contextmanager
def _translated() -> Iterator[None]:
    """What MLflow and pandas raise, in words; no server has to do with it."""
    try:
        yield
    except BbtuneError:
        raise
    except Exception as error:
        raise ExportError(
            f"the MLflow model cannot be written or read back ({type(error).__name__}: {reason(error)}); see that the "
            "disk has room for the weights, and that MLflow is the version in constraints.txt"
        ) from error


@_translated()
def _save(result: TuneResult, folder: Path, artifacts: dict[str, str]) -> None:
    mlflow = _mlflow()
    import pandas as pd
    from mlflow.types.schema import ColSpec, Schema

    card, fields = card_of(result), FIELDS[result.reading.kind]
    answers = {"label": "string"} | ({"probability": "double"} if result.labels else {})
    mlflow.pyfunc.save_model(
        path=str(folder),
        python_model=str(_SCRIPT),
        artifacts=artifacts,
        code_paths=[str(Path(bbtune.__file__).parent)],
        signature=mlflow.models.ModelSignature(
            Schema([ColSpec("string", name) for name in fields]),
            Schema([ColSpec(kind, name) for name, kind in answers.items()]),
        ),
        input_example=pd.DataFrame([probes(result.reading.kind)[_EXAMPLE].fields()]),
        pip_requirements=requirements(result.spec),
        metadata={key: card[key] for key in ("name", "task", "model", "scores", "method", "spec_hash")},
    )


@_translated()
def _loaded(folder: Path) -> Any:
    path = list(sys.path)
    try:
        return _mlflow().pyfunc.load_model(str(folder))
    finally:
        sys.path[:] = path  # MLflow puts the folder's code there, and the folder is about to move


@_translated()
def _staged(result: TuneResult, stage: Path) -> dict[str, Path]:
    """What the model is made of, by name."""
    run = stage / "run"
    run.mkdir()
    result.save(run)
    (run / SPEC).write_text(result.spec.to_yaml(), encoding="utf-8")
    scheme, backbone = str(result.spec.backbone.model).partition(":")[0], result.spec.backbone
    if scheme not in ("path", "cache") or backbone.api is not None:
        return {"run": run}
    card = read_model_card(backbone)
    check_model(card, backbone, result.fingerprints["model"])
    files, kept = card.files, stage / "model"
    if files.gguf:
        kept = stage / files.gguf
        _linked(str(Path(files.name) / files.gguf), str(kept))
    else:
        ignored = partial(_no_part, [".*", *([] if backbone.allow_pickle else _PICKLES)])
        shutil.copytree(files.name, kept, ignore=ignored, copy_function=_linked)
    return {"run": run, "model": kept}


def _no_part(patterns: list[str], folder: str, names: list[str]) -> set[str]:
    """What a model's folder holds beside it: pickles, checkpoints, logs; modules of a sentence encoder are numbered."""
    others = {name for name in names if (Path(folder) / name).is_dir() and not name[0].isdigit()}
    return shutil.ignore_patterns(*patterns)(folder, names) | others


def _linked(source: str, target: str) -> None:
    """One more name for a file, MLflow copies it; it refuses symbolic links, as models of the hub's cache are."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another disk, or somebody else's file
        shutil.copy2(source, target)


def _mlflow() -> Any:
    """The library with its models; it warns of itself when they are imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = patient_mlflow()
        import_module("mlflow.pyfunc")
    return library


@_translated()
def _answers(model: Any, fields: list[dict[str, str]]) -> list[dict[str, Any]]:
    import pandas as pd

    return list(model.predict(pd.DataFrame(fields)).to_dict("records"))


def _check(expected: list[Prediction], got: list[dict[str, Any]]) -> None:
    for wanted, answer in zip(expected, got, strict=True):
        near = wanted.probability is None or abs(wanted.probability - answer["probability"]) <= _NEAR
        if wanted.label != answer["label"] or not near:
            raise ExportError(f"expected the MLflow model to answer {wanted}, it answers {answer}; it was not kept")


def restored(artifacts: dict[str, str]) -> Predictor:
    """What answers, from the files of an MLflow model.

    Args:
        artifacts: their places by name: ``run``, and ``model`` where it came along.
    """
    result = TuneResult.load(artifacts["run"])
    if "model" in artifacts:
        moved = result.spec.backbone.model_copy(update={"model": f"path:{artifacts['model']}"})
        result = replace(result, spec=result.spec.model_copy(update={"backbone": moved}))
    return Predictor(result)
