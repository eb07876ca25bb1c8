"""What an editor wants to know of job files."""

from __future__ import annotations

import json

import typer

app = typer.Typer()


@app.command()
def schema() -> None:
    """Print the JSON Schema of a job file, by which editors complete, explain and check its keys."""
    from bbtune.job_schema import job_schema

    typer.echo(json.dumps(job_schema(), indent=2, ensure_ascii=False))
