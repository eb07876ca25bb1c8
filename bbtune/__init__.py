"""bbtune: tune prompts of frozen language models without gradients."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Loaded on first use, so that `import bbtune` stays quick and free of torch, ray and mlflow.
_HOMES = {
    "AskTell": "bbtune.optimizers.base",
    "BbtuneError": "bbtune.errors",
    "JobError": "bbtune.errors",
    "JobSpec": "bbtune.spec",
    "load_job": "bbtune.jobfile",
    "TaskData": "bbtune.task.data",
    "TuneResult": "bbtune.result",
    "export": "bbtune.exports",
    "minimize": "bbtune.functions",
    "resume": "bbtune.api",
    "run": "bbtune.api",
    "validate": "bbtune.api",
}

__all__ = [
    "AskTell",
    "BbtuneError",
    "JobError",
    "JobSpec",
    "TaskData",
    "TuneResult",
    "__version__",
    "export",
    "load_job",
    "minimize",
    "resume",
    "run",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bbtune' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
