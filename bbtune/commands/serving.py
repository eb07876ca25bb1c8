"""Serve tuned prompts."""

from __future__ import annotations

import json
import signal
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from bbtune.commands.terminal import interrupt_once

app = typer.Typer()

_RUNS = (
    "Runs or exported prompts on one model, folders or addresses; NAME=RUN names a prompt [default: the job's name]."
)
_STATE = "Folder for the key and the servers' files [default: ~/.bbtune/serve]."
_TEXT = "The bill has the same item twice"


@app.command()
def serve(
    runs: Annotated[list[str], typer.Argument(help=_RUNS, show_default=False, metavar="RUN...")],
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen at; others than the loopback need a key.")] = "127.0.0.1",
    replicas: Annotated[int, typer.Option(help="Processes, each with a copy of the model.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Threads of a forward.", min=1)] = 1,
    no_key: Annotated[bool, typer.Option("--no-key", help="Ask for no key; on the loopback alone.")] = False,
    max_texts: Annotated[int, typer.Option(help="Texts of a request.", min=1)] = 256,
    max_characters: Annotated[int, typer.Option(help="Characters of a text.", min=1)] = 20_000,
    max_bytes: Annotated[int, typer.Option(help="Bytes of a request.", min=1)] = 2**20,
    batch: Annotated[int, typer.Option(help="Texts that share a forward at the most.", min=1)] = 32,
    queue: Annotated[int, typer.Option(help="Texts that wait at the most; then requests are refused.", min=1)] = 1024,
    grace: Annotated[float, typer.Option(help="Seconds for requests under way at the end.", min=0, max=50)] = 30.0,
    state: Annotated[Path | None, typer.Option(help=_STATE, show_default=False)] = None,
) -> None:
    """Serve tuned prompts over HTTP: one copy of the frozen model, a prompt for each run; until interrupted."""
    from bbtune.serving.place import check_installed, state_folder
    from bbtune.serving.settings import Front, Limits, Wish

    check_installed()
    folder = state.expanduser().absolute() if state else state_folder()
    front = Front(host, port, replicas, threads, grace)
    limits = Limits(max_bytes, max_texts, max_characters, batch, queue)
    _until_interrupted(Wish(runs, front, limits, folder, with_key=not no_key))


def _until_interrupted(wish: Any) -> None:
    from bbtune.serving.server import up

    signal.signal(signal.SIGTERM, interrupt_once)
    signal.signal(signal.SIGINT, interrupt_once)
    answers = False
    try:
        with up(wish, lambda text: typer.echo(text, err=True)) as server:
            answers = True
            for line in _told(server):
                typer.echo(line)
            with server.log.open("a") as log, redirect_stdout(log):  # where Ray says what befalls its processes
                while True:
                    signal.pause()
    except KeyboardInterrupt:
        typer.echo("stopped" if answers else "interrupted; nothing that it started is left", err=True)
        if not answers:
            raise typer.Exit(130) from None


def _told(server: Any) -> list[str]:
    """What is served, and how to ask for it."""
    count = len(server.prompts)
    shown = ", ".join(server.prompts[:10]) + (" ..." if count > 10 else "")
    body = json.dumps({"prompt": server.prompts[0], "texts": [_TEXT]})
    key = "" if server.key is None else f' -H "Authorization: Bearer {server.key_in_shell}"'
    return [
        f"serving {count} {'prompt' if count == 1 else 'prompts'}: {shown}",
        f"address  {server.address}, its page {server.address}/docs",
        f"key      {server.key or 'none is asked for'}",
        f"log      {server.log}",
        f"try      curl {server.address}/v1/classify{key} -H 'Content-Type: application/json' -d '{body}'",
    ]
