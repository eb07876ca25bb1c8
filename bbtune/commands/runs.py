"""Run jobs, and use what they leave."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bbtune.commands.studies import seeded, worked_through
from bbtune.commands.terminal import JobFile, MethodName, RunFolder, Set, TrackingUri, shown
from bbtune.errors import BbtuneError, JobError

app = typer.Typer()

_OUT = "Folder [default: STORAGE/<name>-<hash>, with --seeds STORAGE/<name>-<hash>-seeds, of a suite STORAGE/<name>]."


@app.command()
def run(
    job: JobFile,
    out: Annotated[str | None, typer.Option(help=_OUT)] = None,
    method: MethodName = None,
    seeds: Annotated[str | None, typer.Option(help="Several runs, such as 13,21,42.", show_default=False)] = None,
    overrides: Set = None,
    tracking_uri: TrackingUri = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what an API would be paid.")] = False,
) -> None:
    """Run a job and print its result; with --seeds, or of a suite file, many runs and how they compare."""
    from bbtune import api
    from bbtune.jobfile import load_job
    from bbtune.storage.place import place_named, run_place
    from bbtune.study_run import validate_suite
    from bbtune.suite import is_suite, read_suite

    changes = [*(overrides or []), *([f"tracking.uri={tracking_uri}"] if tracking_uri else [])]
    if is_suite(job):
        _refuse_for_suite(method, seeds, dry_run)
        try:
            study = read_suite(job, changes, Path(out) if out else None)
        except JobError as error:  # as of a single job
            raise JobError(validate_suite(job, changes) or error.faults, error.what) from error
        worked_through(study)
        return
    try:
        spec = load_job(job, changes, method)
    except JobError as error:  # of the text alone; tell those that data and model show, too
        raise JobError(api.validate(job, changes, method) or error.faults) from error
    if dry_run:
        typer.echo(api.dry_run(spec))
        return
    if seeds is not None:
        worked_through(seeded(spec, seeds, Path(out) if out else None))
    else:
        place = place_named(out) if out else run_place(spec)
        shown(spec, place, lambda show: api.run(spec, place, show))


@app.command()
def resume(
    folder: RunFolder,
    evaluators: Annotated[int | None, typer.Option(help="Another number of evaluators.", min=0)] = None,
    overrides: Set = None,
) -> None:
    """Go on with a run that was cut off; --set changes what is not of its trace, such as budget.dollars."""
    from bbtune import api
    from bbtune.storage.place import place_named

    changes = [*(overrides or []), *([] if evaluators is None else [f"evaluators.count={evaluators}"])]
    shown(api.begun_job(place_named(folder), changes), folder, lambda show: api.resume(folder, changes, show))


@app.command()
def probe(job: JobFile, overrides: Set = None) -> None:
    """Find out what the endpoint of a job really does, by asking it, and say what a run would use."""
    from bbtune.jobfile import load_job
    from bbtune.probing import probe_job

    for sentence in probe_job(load_job(job, overrides or [])):
        typer.echo(sentence)


@app.command()
def show(folder: RunFolder) -> None:
    """Print the result of a finished run."""
    from bbtune.storage.home import load_result
    from bbtune.storage.place import place_named

    typer.echo(load_result(place_named(folder)).summary())


@app.command()
def validate(job: JobFile, method: MethodName = None, overrides: Set = None) -> None:
    """List every fault of a job or of a suite's jobs, without reading the model's weights."""
    from bbtune import api
    from bbtune.study_run import validate_suite
    from bbtune.suite import is_suite

    if is_suite(job):
        _refuse_for_suite(method)
        what, faults = "suite", validate_suite(job, overrides or [])
    else:
        what, faults = "job", api.validate(job, overrides or [], method)
    if faults:
        raise JobError(faults, what)
    typer.echo(f"{job}: no faults")


@app.command()
def predict(
    folder: RunFolder,
    texts: Annotated[list[str], typer.Argument(help="Texts, or - for lines of standard input.", show_default=False)],
) -> None:
    """Label texts with a tuned prompt: label, probability, text; tab-separated. Pairs are joined by a tab.

    Where answers are words: answer, text.
    """
    from bbtune.exporting.opened import open_predictor
    from bbtune.storage.place import place_named

    lines = [line.rstrip("\r") for line in sys.stdin.read().split("\n")] if texts == ["-"] else texts
    asked = [line for line in lines if line.strip()]
    with open_predictor(place_named(folder)) as predictor:
        found = iter(predictor.predict([tuple(t.split("\t")) if predictor.kind == "pair" else t for t in asked]))
    for line in lines if lines[-1:] != [""] else lines[:-1]:
        if line.strip():
            prediction = next(found)
            share = "" if prediction.probability is None else f"\t{prediction.probability:.3f}"
            typer.echo(f"{' '.join(prediction.label.split())}{share}\t{line}")
        else:
            typer.echo()  # a line out for each line in


@app.command()
def sync(folder: RunFolder, tracking_uri: TrackingUri = None) -> None:
    """Send a run's whole record to MLflow; what it has already is not doubled."""
    from bbtune import api

    typer.echo(f"MLflow run {api.sync(folder, tracking_uri)} has the record of {folder}")


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Folders of runs, or MLflow experiments.", show_default=False)],
    reference: Annotated[
        str | None, typer.Option(help="Method that the others are compared with.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for table, page and plots.")] = Path("comparison"),
    tracking_uri: TrackingUri = None,
    experiment: Annotated[
        str | None, typer.Option(help="MLflow experiment that gets the comparison.", show_default=False)
    ] = None,
) -> None:
    """Say which method is better, and whether that is more than chance."""
    from bbtune.study_run import compared, record_comparison

    found = compared(runs, reference, out, tracking_uri)
    typer.echo(found.text())
    typer.echo(f"page: {out / 'page.html'}")
    record_comparison(found, runs, tracking_uri, experiment)


def _refuse_for_suite(method: str | None, seeds: str | None = None, dry_run: bool = False) -> None:
    if dry_run:
        raise BbtuneError("expected a job with --dry-run, got a suite; ask for its jobs one by one")
    if method:
        raise BbtuneError("expected a suite without --method: its jobs have their own")
    if seeds:
        raise BbtuneError("expected a suite without --seeds: the file names them")
