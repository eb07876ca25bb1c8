"""An exported MLflow model in MLflow's Model Registry, one version for each run and name."""

from __future__ import annotations

from pathlib import Path

from bbtune.mlflow_store import Store, translated

_MODEL = "model"  # folder of the run's artifacts


@translated
def register_model(store: Store, run_id: str, folder: Path, name: str) -> str:
    """Keep a model among the artifacts of its MLflow run, and enter it in the registry.

    Args:
        folder: of the exported model.
        name: of the registered model, made where it is not there yet.

    Returns:
        Where it is, ``models:/NAME/VERSION``.

    Raises:
        TrackingError: if MLflow cannot be reached, or refuses.
    """
    client = store.client
    client.log_artifacts(run_id, str(folder), _MODEL)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    versions = client.search_model_versions(f"name = '{name}' AND run_id = '{run_id}'")
    if versions:  # of this run, and its files have just been replaced
        return f"models:/{name}/{versions[0].version}"
    source = f"{client.get_run(run_id).info.artifact_uri}/{_MODEL}"
    return f"models:/{name}/{client.create_model_version(name, source, run_id).version}"
