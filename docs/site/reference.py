"""Write the reference: python docs/site/reference.py."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from job_page import job_page
from typer.cli import get_docs_for_click
from typer.main import get_command

from bbtune.cli import app
from bbtune.job_schema import job_schema

FOLDER = Path(__file__).parents[1] / "reference"


def pages() -> dict[str, str]:
    """Content by file name."""
    command = get_command(app)
    commands = get_docs_for_click(obj=command, ctx=typer.Context(command), name="bbtune", title="Commands")
    schema = job_schema()
    return {
        "job.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        "job.md": job_page(schema),
        "commands.md": commands.rstrip() + "\n",
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
