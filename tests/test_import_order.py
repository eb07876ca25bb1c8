"""Imports flow one way, heavy libraries stay in their places, and ``import bbtune`` stays light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bbtune

PACKAGE = Path(bbtune.__file__).parent

# From the bottom up. A part (a module, or a folder of modules) imports from lower layers only; parts of one
# layer do not know each other. "bbtune" is the package itself: its version, and names loaded on first use.
LAYERS: list[set[str]] = [
    {"bbtune"},
    {"errors", "seeds", "presets", "versions", "cost", "objective", "schedule", "methods", "source_names"},
    {"endpoint_spec", "figures", "files", "html", "optimizers", "mlflow_store", "yaml_text"},
    {"service", "text_spec", "search", "backbone_spec", "prompt_spec", "run_spec"},
    {"task_spec", "text_search"},
    {"spec"},
    {"combinations", "auto", "job_schema"},
    {"jobfile", "target_prompt", "task"},
    {"backbone", "fused", "own", "statistics"},
    {"prompts", "plan", "endpoint"},
    {"search_plan", "text_plan"},
    {"evaluation", "forecast"},
    {"forecast_embeddings"},
    {"selection"},
    {"loop", "journal"},
    {"build", "method", "learned", "scored_prompts", "written"},
    {"functions", "mlflow_optimizer", "plot", "progress", "baselines", "prompt_search"},
    {"tuned"},
    {"predictor"},
    {"result"},
    {"prompt_registry", "storage", "tracked_metrics"},
    {"assess", "tracking", "compare", "study", "text_tuning"},
    {"examine", "tracking_groups", "fan_out", "suite"},
    {"exporting", "session", "probing", "report"},
    {"api", "serving"},
    {"exports", "study_run"},
    {"hpo", "submission"},
    {"doctor"},
    {"commands"},
    {"cli", "coordinator"},
    {"__main__"},
]
HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer}

# What the lower half may know at most; "numpy only" and "knows neither torch nor ray nor mlflow" of the design.
FOREIGN = {
    "optimizers": {"numpy", "threadpoolctl", "cma", "nevergrad"},
    "objective": {"numpy"},
    "schedule": {"numpy"},
    "search": {"numpy"},
    "text_search": {"numpy", "nevergrad"},
    "loop": {"numpy"},
    "journal": {"numpy"},
    "errors": set(),
    "seeds": {"numpy"},
}
HOMES = {
    "fsspec": {"storage/remote.py"},
    "mlflow": {"mlflow_store.py", "mlflow_optimizer.py", "exporting/pyfunc.py", "exporting/pyfunc_model.py"},
    "ray": {
        "evaluation/ray_cluster.py",
        "baselines/ray_train.py",
        "hpo/ray_tune.py",
        "hpo/tune_parts.py",
        "submission/ray_jobs.py",
        "serving/ray_serve.py",
    },
    "fastapi": {"serving/app.py", "serving/refusal.py"},
    "uvicorn": {"serving/listener.py"},
    "prometheus_client": {"serving/meters.py"},
    "cma": {"optimizers/cma.py"},
    "openai": {"endpoint/client.py"},
    "tenacity": {"endpoint/patience.py"},
    "xllamacpp": {"endpoint/serve.py"},
    "peft": {"baselines/learner.py"},
    "optuna": {"hpo/searchers/optuna.py"},
    "bayes_opt": {"hpo/searchers/bayes.py"},
    "setfit": {"baselines/setfit.py"},
}
HEAVY = ["torch", "ray", "mlflow", "cma", "nevergrad", "transformers", "scipy", "matplotlib", "pandas"]
HEAVY += ["peft", "sklearn", "setfit", "sentence_transformers", "openai", "httpx2", "optuna", "bayes_opt", "fastapi"]


def modules() -> dict[str, Path]:
    """Files by module name, ``bbtune.task.rows``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        names = ["bbtune", *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


MODULES = modules()


@cache
def imported(module: str) -> frozenset[str]:
    """Absolute names of all modules that a module imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import in line {node.lineno}; write the whole name"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else str(node.module) for name in whole}
    return frozenset(names)


def part(module: str) -> str:
    """``task`` for ``bbtune.task.rows``."""
    return [*module.split("."), "bbtune"][1]


def ours(module: str) -> set[str]:
    return {name for name in imported(module) if name.split(".")[0] == "bbtune"}


def foreign(module: str) -> set[str]:
    """Top-level names of libraries that a module imports, the standard library left out."""
    return {name.split(".")[0] for name in imported(module)} - {"bbtune"} - set(sys.stdlib_module_names)


def loaded(statement: str) -> tuple[set[str], int]:
    """Heavy libraries that a statement loads in a fresh process, and how many modules it loads in all."""
    code = (
        f"import json, sys; before = set(sys.modules); {statement}; new = set(sys.modules) - before; "
        f"sys.stdout.write(json.dumps([[name for name in {HEAVY} if name in sys.modules], len(new)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    heavy, count = json.loads(done.stdout)
    return set(heavy), int(count)


def test_every_module_has_its_layer() -> None:
    """A new module is put into LAYERS, a removed one taken out."""
    assert {part(module) for module in MODULES} == set(HEIGHT)
    assert sum(len(layer) for layer in LAYERS) == len(HEIGHT)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_lower_layers_or_its_own_folder(module: str) -> None:
    here = part(module)
    upward = {name for name in ours(module) if part(name) != here and HEIGHT[part(name)] >= HEIGHT[here]}
    assert not upward, f"{module} (layer {HEIGHT[here]}) imports from its own layer or above: {sorted(upward)}"


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    order = TopologicalSorter({module: ours(module) for module in MODULES}).static_order()
    assert set(order) >= set(MODULES)


def test_every_import_of_ours_names_a_module_that_is_there() -> None:
    assert {name for module in MODULES for name in ours(module)} <= set(MODULES)


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) in FOREIGN])
def test_the_lower_half_knows_few_libraries(module: str) -> None:
    assert foreign(module) <= FOREIGN[part(module)]


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_imported_in_one_file_only(library: str) -> None:
    files = {str(MODULES[module].relative_to(PACKAGE)) for module in MODULES if library in foreign(module)}
    assert files == HOMES[library]


def test_optimizers_and_search_know_nothing_of_ours_but_errors_the_objective_and_whose_turn_it_is() -> None:
    here = [module for module in MODULES if part(module) in {"optimizers", "search"}]
    known = {part(name) for module in here for name in ours(module)}
    assert known == {"errors", "objective", "optimizers", "schedule"}


def test_importing_bbtune_loads_next_to_nothing() -> None:
    heavy, count = loaded("import bbtune")
    assert heavy == set()
    assert count < 20


def test_reading_a_job_loads_no_heavy_library() -> None:
    assert loaded("import bbtune; bbtune.JobSpec, bbtune.load_job, bbtune.JobError")[0] == set()


def test_the_loop_and_all_below_it_load_no_heavy_library() -> None:
    lower = [f"bbtune.{name}" for name in FOREIGN]
    assert loaded(f"import {', '.join(lower)}")[0] == set()


def test_ray_mlflow_and_the_optimizers_libraries_wait_until_they_are_used() -> None:
    heavy, _ = loaded("import bbtune.study_run, bbtune.cli, bbtune.evaluation.ray_pool, bbtune.predictor")
    assert heavy & {"ray", "mlflow", "nevergrad", "cma", "peft", "sklearn", "setfit"} == set()


def test_the_api_imports_no_model_library_before_it_is_made_quiet():
    code = (
        "import sys, bbtune.api; print([name for name in ('transformers', 'huggingface_hub') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
