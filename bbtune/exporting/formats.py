"""Names of export formats, and what writes each; a folder is there whole, checked, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

from bbtune.errors import ExportError, did_you_mean
from bbtune.exporting.peft_adapter import write_adapter, write_prefix
from bbtune.exporting.prompt_folder import write_prompt
from bbtune.exporting.prompt_text import write_text
from bbtune.exporting.pyfunc import write_pyfunc
from bbtune.result import TuneResult

FORMATS: dict[str, Callable[[TuneResult, Path], str]] = {
    "safetensors": write_prompt,
    "peft": write_adapter,
    "peft-prefix": write_prefix,
    "text": write_text,
    "mlflow": write_pyfunc,
}


def write(result: TuneResult, form: str, to: str | Path) -> str:
    """Write what a run has found in a form that others use, read it back, and keep it where it gives the same.

    Args:
        form: one of :data:`FORMATS`.
        to: folder; new or empty.

    Returns:
        What was found when it was read back, in words.

    Raises:
        BbtuneError: if the form cannot hold what the run has found, or gives something else; nothing is left then.
    """
    to = Path(to)
    check_format(form)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ExportError(f"{to}: expected a new or empty folder, it holds something; give another --to")
    to.parent.mkdir(parents=True, exist_ok=True)
    part = Path(mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        said = FORMATS[form](result, part)
        _open_to_all(part)
        part.replace(to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return said


def _open_to_all(folder: Path) -> None:
    """Give a folder and its files the usual modes: mkdtemp and safetensors leave them to their owner alone."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def check_format(form: str) -> None:
    """Refuse unknown names.

    Raises:
        ExportError: with those that are known.
    """
    if form not in FORMATS:
        raise ExportError(
            f"--format: expected one of {', '.join(FORMATS)}, got {form!r}{did_you_mean(form, list(FORMATS))}"
        )
