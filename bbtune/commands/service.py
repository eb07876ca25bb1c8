"""The local service: start it, stop it, look at it."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bbtune.commands.terminal import interrupt_once

app = typer.Typer()

_STATE = "State folder [default: $BBTUNE_SERVICE, else ~/.bbtune/service]."
_ADDRESS = "Address of another job server [default: $RAY_API_SERVER_ADDRESS, else the service]."
State = Annotated[Path | None, typer.Option(help=_STATE, show_default=False)]


def _port(of: str, habit: int) -> Any:
    told = f"Port of the {of} [default: {habit} if free, else another]."
    return typer.Option(help=told, min=1, max=65535, show_default=False)


@app.command()
def up(
    state: State = None,
    port_ray: Annotated[int | None, _port("Ray head", 6379)] = None,
    port_dashboard: Annotated[int | None, _port("job server", 8265)] = None,
    port_mlflow: Annotated[int | None, _port("MLflow server", 5000)] = None,
    cpus: Annotated[int | None, typer.Option(help="CPUs that jobs share [default: all].", min=1)] = None,
) -> None:
    """Start a Ray head with a job server, and an MLflow server, on this machine; what runs already is left alone."""
    from bbtune.service.ports import Wanted
    from bbtune.service.up import bring_up

    signal.signal(signal.SIGTERM, interrupt_once)
    signal.signal(signal.SIGINT, interrupt_once)
    wanted = Wanted(ray=port_ray, dashboard=port_dashboard, mlflow=port_mlflow)
    try:
        with _progress() as say:
            service, started = bring_up(_folder(state), wanted, cpus, say)
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing that it started is left", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"started: {', '.join(started)}" if started else "the service is up already")
    typer.echo(f"job server  {service.dashboard}\nRay head    {service.ray_address}\nMLflow      {service.mlflow}")
    typer.echo(f"token       {service.token_file}\nruns        {service.storage}")
    if state is not None:
        typer.echo(f"first       export BBTUNE_SERVICE={shlex.quote(str(service.folder))}")
    typer.echo("next        bbtune submit JOB, bbtune status, bbtune down")


@app.command()
def down(state: State = None) -> None:
    """Stop the service of this machine; runs, artifacts and the MLflow database stay."""
    from bbtune.service.down import take_down

    folder = _folder(state)
    service = take_down(folder)
    typer.echo(f"no service is up in {folder}" if service is None else f"stopped; its data stay in {folder}")


@app.command()
def status(state: State = None) -> None:
    """Say what the service is doing; exit 1 if something of it died or does not answer, or none is up."""
    from bbtune.service.state import read_service
    from bbtune.service.status import look

    folder = _folder(state)
    service = read_service(folder)
    if service is None:
        typer.echo(f"no service is up in {folder}; start one: bbtune up")
        raise typer.Exit(1)
    seen = look(service)
    typer.echo("\n".join(seen.lines))
    if not seen.healthy:
        raise typer.Exit(1)


@app.command()
def doctor(
    job: Annotated[Path | None, typer.Argument(help="Job file to be judged, too.", show_default=False)] = None,
    address: Annotated[str | None, typer.Option(help=_ADDRESS, show_default=False)] = None,
    state: State = None,
) -> None:
    """Look at versions, GPUs, disks, ports, token, servers, a job; say what to do; exit 1 if there is a problem."""
    from bbtune.doctor.examination import findings

    problems = 0
    for finding in findings(_folder(state), address, job):
        typer.echo(str(finding))
        problems += bool(finding.todo)
    if problems:
        typer.echo(f"{problems} {'problem' if problems == 1 else 'problems'}")
        raise typer.Exit(1)
    typer.echo("no problems")


def _folder(state: Path | None) -> Path:
    from bbtune.service.state import service_folder

    return state.expanduser().absolute() if state else service_folder()


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Something to say what is waited for: one live line on a terminal, a line for each change elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("starting") as line:
            yield line.update
        return
    said: list[str] = []

    def say(text: str) -> None:
        if text not in said:
            said.append(text)
            typer.echo(text, err=True)

    yield say
