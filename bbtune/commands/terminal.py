"""What commands share: their arguments, and how work is shown."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bbtune.errors import BbtuneError, EndpointError, JobError

JobFile = Annotated[Path, typer.Argument(help="Job or suite file (YAML).", show_default=False)]
RunFolder = Annotated[str, typer.Argument(help="Run folder, or its address.", show_default=False)]
Set = Annotated[list[str] | None, typer.Option("--set", help="key.path=value, over the job file; repeatable.")]
MethodName = Annotated[
    str | None, typer.Option(help="Another method than the job's: auto, spsa, lora, zero-shot ...", show_default=False)
]
TrackingUri = Annotated[
    str | None, typer.Option("--tracking-uri", help="MLflow server or database.", show_default=False)
]


def shown(spec: Any, folder: Path | str, work: Callable[[Any], Any]) -> None:
    """Run ``work`` under a progress view and print the result; an interruption says how to go on."""
    from bbtune.build import limits
    from bbtune.progress import make_show

    console = Console(stderr=True)
    signal.signal(signal.SIGTERM, interrupt)
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


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def interrupt_once(*_: object) -> None:
    """Interrupt, and let nothing interrupt the seconds in which what was started is ended."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def exit_in_words(work: Callable[[], object]) -> None:
    """Do the work of a process: errors become one plain text on standard error; exit 2 for a job at fault, else 1."""
    try:
        work()
    except JobError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except BbtuneError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # a disk that is full, a folder that is read-only
        typer.echo(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}", err=True)
        sys.exit(1)
