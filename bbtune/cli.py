"""The command line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import bbtune
from bbtune.commands import models, runs, service
from bbtune.errors import BbtuneError, JobError

app = typer.Typer(
    help="Tune prompts of frozen language models without gradients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(runs.app)
app.add_typer(service.app)
app.add_typer(models.app, name="models")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(bbtune.__version__)
        raise typer.Exit


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
