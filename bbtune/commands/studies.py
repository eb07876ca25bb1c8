"""A study on a terminal: run what it lacks, then compare its methods."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from bbtune.commands.terminal import interrupt
from bbtune.errors import BbtuneError, JobError, TrackingError


def seeded(spec: Any, seeds: str, out: Path | None) -> Any:
    """The study of a job over seeds, such as ``13,21,42``."""
    from bbtune.storage.place import study_folder
    from bbtune.study import seeded_study

    name = f"{spec.name}-{spec.spec_hash[:8]}-seeds"
    try:
        numbers = [int(part) for part in seeds.split(",")]
    except ValueError as error:
        raise BbtuneError(f"--seeds: expected numbers with commas between them, got {seeds!r}") from error
    return seeded_study(spec, numbers, out or study_folder([spec], name))


def worked_through(study: Any) -> None:
    """Run a study, then compare its methods."""
    from bbtune.loop import Limits
    from bbtune.progress import make_show
    from bbtune.study_run import run_study

    signal.signal(signal.SIGTERM, interrupt)
    try:
        with make_show(Console(stderr=True), Limits()) as view:
            faults = run_study(study, view)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on with it", err=True)
        raise typer.Exit(130) from None
    except JobError:  # nothing more can be run; what is done is shown all the same
        for line in _compare_done(study):
            typer.echo(line, err=True)
        raise
    told = [f"{len(faults)} of {len(study.members)} runs failed", *faults] if faults else []
    told += _compare_done(study)
    if told:
        raise BbtuneError("\n  ".join(told))


def _compare_done(study: Any) -> list[str]:
    """Compare what is done of a study; a sentence if that cannot be."""
    try:
        if any(member.is_done for member in study.members):
            _compare_study(study)
    except BbtuneError as error:
        return [f"what is done cannot be compared: {error}"]
    return []


def _compare_study(study: Any) -> None:
    """Table and sentences of what is done; what goes wrong with MLflow is told, the runs stand."""
    from bbtune.study_run import compared, record_comparison

    runs, tracking, out = [str(study.folder)], study.members[0].spec.tracking, study.folder / "comparison"
    try:
        found = compared(runs, study.reference, out, tracking.uri)
    except BbtuneError as error:  # a study of which only part is done may lack its reference
        if study.reference is None:
            raise
        typer.echo(str(error), err=True)
        found = compared(runs, None, out, tracking.uri)
    typer.echo(found.text())
    typer.echo(f"study folder: {study.folder}")
    if tracking.enabled:
        try:
            record_comparison(found, runs, tracking.uri, tracking.experiment)
        except TrackingError as error:
            typer.echo(f"MLflow lacks the comparison ({error}); the same command sends it", err=True)
