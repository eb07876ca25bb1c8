"""Submit jobs to a Ray cluster, and look after them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bbtune.commands.terminal import JobFile, MethodName, Set

app = typer.Typer()

_ADDRESS = "Job server, such as http://HOST:8265 [default: $RAY_API_SERVER_ADDRESS, else the service of this machine]."
Address = Annotated[str | None, typer.Option(help=_ADDRESS, show_default=False)]
JobId = Annotated[str, typer.Argument(help="Id of the job, see: bbtune jobs.", show_default=False, metavar="ID")]
_ENVIRONMENT = "YAML file with a runtime environment of Ray (pip, env_vars ...); nothing secret."


@app.command()
def submit(
    job: JobFile,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show its log, and exit as it does.")] = False,
    method: MethodName = None,
    seeds: Annotated[str | None, typer.Option(help="Several runs, such as 13,21,42.", show_default=False)] = None,
    overrides: Set = None,
    runtime_env: Annotated[Path | None, typer.Option(help=_ENVIRONMENT, show_default=False)] = None,
    id: Annotated[
        str | None, typer.Option("--id", help="Id of the job [default: <name>-<hash>].", show_default=False)
    ] = None,
) -> None:
    """Submit a job or suite; what was cut off before goes on, what has ended prints its result."""
    from bbtune.submission.submit import submit as submitted
    from bbtune.submission.work import read_work

    jobs = _jobs(address)[0]
    work, notes = read_work(job, overrides or [], method, seeds)
    for note in notes:
        typer.echo(note, err=True)
    number = submitted(jobs, work, runtime_env, id)
    typer.echo(f"submitted {number}")
    if follow:
        _follow(jobs, number)
    else:
        typer.echo(f"see it with: bbtune logs {number} --follow; end it with: bbtune stop {number}")


@app.command("jobs")
def jobs_list(address: Address = None) -> None:
    """List the jobs of a cluster, and what earlier ones have left in the storage of this machine's service."""
    from bbtune.submission.listing import table

    jobs, storage = _jobs(address)
    for line in table(jobs.all(), storage):
        typer.echo(line)


@app.command()
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", help="Until it ends, and exit as it does.")] = False,
    address: Address = None,
) -> None:
    """Print what a job has printed."""
    jobs = _jobs(address)[0]
    if follow:
        _follow(jobs, job)
    else:
        typer.echo(jobs.logs(job), nl=False)


@app.command()
def stop(job: JobId, address: Address = None) -> None:
    """End a job; what it has done is kept, and goes on when it is submitted again."""
    jobs = _jobs(address)[0]
    before = jobs.one(job)
    if before.is_over:
        typer.echo(f"{job} has ended before ({before.status.lower()})")
        return
    after = jobs.stop(job)
    if after.status in {"SUCCEEDED", "FAILED"}:
        typer.echo(f"{job} has ended by itself meanwhile ({after.status.lower()})")
        return
    said = "stopped" if after.is_over else "told to stop, and has not ended yet"
    typer.echo(f"{job} {said}; the same bbtune submit goes on with it")


def _jobs(address: str | None) -> tuple[Any, Path | None]:
    """The jobs of the server that is meant, and where its runs lie if that is known here."""
    from bbtune.submission.server import find_server

    server = find_server(address)  # before Ray is loaded, which takes seconds
    from bbtune.submission.ray_jobs import RayJobs

    return RayJobs(server), server.storage


def _follow(jobs: Any, job: str) -> None:
    try:
        state = jobs.follow(job, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        typer.echo(f"{job} goes on; see it with: bbtune logs {job} --follow; end it with: bbtune stop {job}", err=True)
        raise typer.Exit(130) from None
    if state.status == "SUCCEEDED":
        return
    typer.echo(f"{job}: {state.status.lower()}; the same bbtune submit goes on with it", err=True)
    raise typer.Exit(130 if state.status == "STOPPED" else state.exit_code or 1)
