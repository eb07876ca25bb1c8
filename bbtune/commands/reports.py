"""Pages about what runs left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bbtune.commands.terminal import RunFolder

app = typer.Typer()

_OUT = "File [default: report.html in the run's folder; of an address, NAME-report.html in the working folder]."


@app.command()
def report(
    folder: RunFolder,
    out: Annotated[Path | None, typer.Option(help=_OUT, show_default=False)] = None,
    beside: Annotated[
        list[str] | None, typer.Option(help="Finished run on the same test split, to stand beside it; repeatable.")
    ] = None,
) -> None:
    """Write a page about a finished run, for readers who do not know bbtune: one HTML file, nothing beside it."""
    from bbtune.report.page import write_report

    typer.echo(f"page: {write_report(folder, out, beside or [])}")
