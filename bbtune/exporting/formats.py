"""Names of export formats, and what writes each; a folder is there whole, checked, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

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
    to = Path(to).resolve()  # a link to a folder stays one
    check_format(form)
    inside = to.is_dir()
    if to.exists() and (not inside or any(to.iterdir())):
        raise ExportError(f"{to}: expected a new or empty folder, {_what_is(to)}; give another --to")
    beside = to if inside else next(folder for folder in to.parents if folder.exists())
    part = beside / f".{to.name}.{uuid4().hex[:8]}.part"
    with _translated(to):
        part.mkdir()
    try:
        said = FORMATS[form](result, part)
        _open_to_others(part)
        with _translated(to):
            _put(part, to, inside)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return said


def _what_is(to: Path) -> str:
    return f"it holds {min(path.name for path in to.iterdir())}" if to.is_dir() else "it is a file"


@contextmanager
def _translated(to: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # read-only, below a file, or another export was quicker
        reason = error.strerror or type(error).__name__
        raise ExportError(f"{to}: expected a folder that can be made ({reason}); give another --to") from error


def _put(part: Path, to: Path, inside: bool) -> None:
    """Bring a folder to its place; one that was there before stays: it may be a volume, or the working folder."""
    if inside:
        for path in part.iterdir():
            path.rename(to / path.name)
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        part.rename(to)


def _open_to_others(folder: Path) -> None:
    """Give files the modes that this user's files have: safetensors leaves its own to their owner alone."""
    mode = folder.stat().st_mode & 0o777
    for path in folder.rglob("*"):
        path.chmod(mode if path.is_dir() else mode & 0o666)


def check_format(form: str) -> None:
    """Refuse unknown names.

    Raises:
        ExportError: with those that are known.
    """
    if form not in FORMATS:
        raise ExportError(
            f"--format: expected one of {', '.join(FORMATS)}, got {form!r}{did_you_mean(form, list(FORMATS))}"
        )
