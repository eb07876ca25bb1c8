"""Hand finished runs on."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from bbtune.commands.terminal import RunFolder, TrackingUri, interrupt

app = typer.Typer()


@app.command()
def export(
    folder: RunFolder,
    form: Annotated[
        str, typer.Option("--format", help="safetensors, peft, peft-prefix, text or mlflow.", show_default=False)
    ],
    to: Annotated[Path, typer.Option(help="Folder; new or empty.", show_default=False)],
    register: Annotated[
        str | None,
        typer.Option(help="Name in MLflow's Model or Prompt Registry (mlflow, text).", show_default=False),
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Write what a run has found for use elsewhere; it is read back and compared before it is kept."""
    from bbtune.exports import export as write

    signal.signal(signal.SIGTERM, interrupt)
    try:
        said = write(folder, form, to, register, tracking_uri)
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing that was not whole is left", err=True)
        raise typer.Exit(130) from None
    for sentence in said:
        typer.echo(sentence)
