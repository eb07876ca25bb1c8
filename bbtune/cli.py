"""The command line."""

from __future__ import annotations

from typing import Annotated

import typer

import bbtune
from bbtune.commands import exports, hpo, jobs, models, reports, runs, schema, service, serving
from bbtune.commands.terminal import exit_in_words

app = typer.Typer(
    help="Tune prompts of frozen language models without gradients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(runs.app)
app.add_typer(exports.app)
app.add_typer(reports.app)
app.add_typer(schema.app)
app.add_typer(hpo.app)
app.add_typer(jobs.app)
app.add_typer(service.app)
app.add_typer(serving.app)
app.add_typer(models.app, name="models")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(bbtune.__version__)
        raise typer.Exit


def main() -> None:
    """Entry point."""
    exit_in_words(app)
