"""Search the settings of a job."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bbtune.commands.studies import worked_through
from bbtune.commands.terminal import JobFile, Set, interrupt
from bbtune.errors import BbtuneError, TrackingError

app = typer.Typer()


@app.command()
def hpo(
    job: JobFile,
    space: Annotated[Path, typer.Option(help="Space file (YAML), such as search_spaces/bbtv2.yaml.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder, seen by all machines [default: runs/<name>-hpo-<hash>].")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="[default: of the space file, else 20]", min=1)] = None,
    searcher: Annotated[
        str | None, typer.Option(help="random, optuna, nevergrad or bayes [default: of the space file, else optuna].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the searcher.", min=0)] = 0,
    asha: Annotated[bool, typer.Option(help="Whether trials that lag behind are stopped early.")] = True,
    concurrent: Annotated[
        int | None, typer.Option(help="Trials at a time [default: as many as evaluators].", min=1)
    ] = None,
    retrain_seeds: Annotated[int, typer.Option(help="Fresh seeds for the best and the job as it was.", min=1)] = 5,
    overrides: Set = None,
) -> None:
    """Search settings of a job on dev, then compare the best with the job as it was, on test, over fresh seeds.

    The same command goes on with a study that was cut off.
    """
    from bbtune.hpo.outcome import fresh_seeds, gap_sentences, trained_again, tuned_sentences, write_best
    from bbtune.hpo.study import Options, read_study

    study = read_study(job, space, Options(trials, searcher, seed, asha, concurrent), overrides or [])
    folder = (out or study.default_folder).absolute()
    seeds = fresh_seeds(study.spec, retrain_seeds)
    tuned = _tuned(study, folder)
    best = write_best(study, tuned, folder)
    for line in tuned_sentences(study, tuned, best):
        typer.echo(line)
    again = trained_again(study, tuned, folder, seeds)
    try:
        worked_through(again)
    except BbtuneError:  # of some runs; what is done is told
        _ended(study, tuned, gap_sentences(study, tuned, again, seeds), best)
        raise
    _ended(study, tuned, gap_sentences(study, tuned, again, seeds), best)


def _tuned(study: Any, folder: Path) -> Any:
    from bbtune.hpo.tuning import tune
    from bbtune.loop import Limits
    from bbtune.progress import make_show

    signal.signal(signal.SIGTERM, interrupt)
    try:
        with make_show(Console(stderr=True), Limits()) as view:
            return tune(study, folder, view)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on with it", err=True)
        raise typer.Exit(130) from None


def _ended(study: Any, tuned: Any, said: list[str], best: Path) -> None:
    """Tell the end of a study, and give it to MLflow; what goes wrong there is told."""
    from bbtune.hpo.tracking import finish_study

    for line in said:
        typer.echo(line)
    if not study.spec.tracking.enabled:
        return
    try:
        finish_study(study.spec.tracking, tuned.uid, tuned.best, [best, best.parent / "space.yaml"])
    except TrackingError as error:
        typer.echo(f"MLflow lacks the end of the study ({error}); the same command sends it", err=True)
