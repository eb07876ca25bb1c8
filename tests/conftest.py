"""Folders of tiny models, and jobs on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest
from hypothesis import settings
from small_task import save_task
from tiny_models import MAKERS, save_model

from bbtune.backbone.products import TORCH
from bbtune.jobfile import parse_job
from bbtune.spec import JobSpec

pytest_plugins = ["server_fixtures"]

# The same examples on every machine: what fails somewhere fails everywhere.
settings.register_profile("bbtune", derandomize=True, database=None)
settings.load_profile("bbtune")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests have more time."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session", autouse=True)
def _one_product() -> Iterator[None]:
    """Runs that are compared have the same matrix product; each would measure for itself which is the fastest."""
    with pytest.MonkeyPatch.context() as patch:
        for user in ("bbtune.prompt_search", "bbtune.evaluation.scorer"):
            patch.setattr(f"{user}.fastest_product", lambda *_: TORCH)
        yield


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny random models by family."""
    root = tmp_path_factory.mktemp("models")
    return {name: save_model(name, root / name) for name in MAKERS}


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task folder with eight short texts in every split."""
    return save_task(tmp_path_factory.mktemp("task"))


MakeJob = Callable[..., JobSpec]


@pytest.fixture(scope="session")
def make_job(tiny_models: dict[str, Path], tiny_task: Path) -> MakeJob:
    """Jobs on the tiny models: ``make_job("bert", prompt={"kind": "offset"})``; layerwise CMA-ES without a preset."""
    layerwise = {"optimizer": "cma-diagonal", "blocks": "layerwise"}

    def make(family: str, **parts: Any) -> JobSpec:
        raw: dict[str, Any] = {
            "name": f"tiny-{family}",
            "task": {"source": f"folder:{tiny_task}"},
            "backbone": {"model": f"path:{tiny_models[family]}"},
            "prompt": {"tokens": 4, "intrinsic_dim": 6},
            "method": {"population": 4, **({} if "preset" in parts.get("method", {}) else layerwise)},
            "budget": {"evaluations": 40},
            "tracking": {"enabled": False},
            "seed": 3,
        }
        if family.endswith("encoder"):  # compares texts with descriptions of the labels
            raw["task"]["label_words"] = ["a bad end", "a great film"]
        for part, values in parts.items():
            raw[part] = {**raw.get(part, {}), **values} if isinstance(values, dict) else values
        spec, faults, _ = parse_job(raw)
        assert not faults, faults
        assert spec is not None
        return spec

    return make


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An MLflow database made once, its migrations take seconds; experiments are to be given a name of their own."""
    import mlflow

    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # artifacts go to where the database was first opened
        mlflow.MlflowClient(uri).search_experiments()
    return uri


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """One local Ray cluster of three logical CPUs for the whole session."""
    import shutil

    import ray

    folder = f"/tmp/bbt{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # as on a cluster that the product starts
        ray.init(
            address="local",
            num_cpus=3,
            object_store_memory=200 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=folder,
        )
    yield ray
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
