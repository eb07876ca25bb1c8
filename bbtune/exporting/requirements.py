"""The packages that a run's predictions need, pinned to the versions that are here."""

from __future__ import annotations

from importlib import metadata

from bbtune.errors import ExportError
from bbtune.spec import BaseJob

_ALWAYS = ["mlflow", "numpy", "openai", "packaging", "pandas", "psutil", "pydantic", "pyyaml", "safetensors", "scipy"]
_ALWAYS += ["tenacity", "threadpoolctl", "torch", "transformers"]
_OF_METHODS = {
    "ia3": ["peft"],
    "logistic-regression": ["scikit-learn"],
    "lora": ["peft"],
    "prefix-tuning": ["peft"],
    "setfit": ["scikit-learn", "sentence-transformers", "setfit"],
}


def requirements(spec: BaseJob) -> list[str]:
    """``name==version`` of each package.

    Raises:
        ExportError: if one of them is not installed here.
    """
    names = [*_ALWAYS, *_OF_METHODS.get(spec.method_name, [])]
    scheme, _, name = str(spec.backbone.model).partition(":")
    if scheme == "package":
        names.append(name)
    if spec.backbone.model is not None and name.endswith(".gguf"):
        names += ["accelerate", "gguf"]
    return [f"{name}=={_version(name)}" for name in sorted(names)]


def _version(name: str) -> str:
    try:
        return metadata.version(name).partition("+")[0]  # a build, such as torch's for CPUs, is not on every index
    except metadata.PackageNotFoundError as error:
        raise ExportError(f"expected the package {name}, which predictions need, it is not installed here") from error
