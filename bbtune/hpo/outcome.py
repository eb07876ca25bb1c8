"""The end of an hpo study: the best settings as a job file, trained again with fresh seeds beside the job as it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import yaml

from bbtune.files import replaced
from bbtune.hpo.progress import said
from bbtune.hpo.record import FIRST, STOPPED_EARLY
from bbtune.hpo.study import HpoStudy
from bbtune.hpo.trial import shared_evaluators
from bbtune.hpo.tuning import Tuned
from bbtune.result import TuneResult
from bbtune.spec import BaseJob
from bbtune.study import Study, study_of
from bbtune.task.sources import drawn_seeds

BEST, AGAIN = "best.yaml", "retrained"


@dataclass(frozen=True)
class Seeds:
    """Seeds that the study did not use, and what is to be known of them."""

    fresh: tuple[int, ...]
    note: str
    new_draw: bool = True

    def job(self, spec: BaseJob, seed: int) -> BaseJob:
        """The job with one of them: of the few-shot draw and of everything random, or of the latter alone."""
        return spec.with_seed(seed) if self.new_draw else spec.model_copy(update={"seed": seed})


def fresh_seeds(spec: BaseJob, count: int) -> Seeds:
    """So many seeds that the trials of a study have not used, from the draws that the task has.

    Args:
        spec: the job as it is.
        count: that is wished for.
    """
    used = {spec.task.seed, spec.seed}
    draws = drawn_seeds(spec.task)
    if draws is None:
        return Seeds(tuple(_others(used, count)), "")
    left = [seed for seed in draws if seed not in used][:count]
    if not left:
        note = (
            "the task has no draw that the search has not used: what is trained again sees the same train and dev "
            "examples, with other seeds of everything random, so its dev score is optimistic too"
        )
        return Seeds(tuple(_others(used, count)), note, new_draw=False)
    fewer = f"the task has {len(left)} draws that the search has not used, {count} were asked for"
    return Seeds(tuple(left), fewer if len(left) < count else "")


def _others(used: set[int], count: int) -> list[int]:
    return [seed for seed in range(1, count + len(used) + 1) if seed not in used][:count]


def write_best(study: HpoStudy, tuned: Tuned, folder: Path) -> Path:
    """The job with the settings that dev has selected, ready to be run."""
    best = tuned.best
    head = (
        f"# Found by bbtune hpo: trial {best.number} of {len(tuned.ended)}, dev {best.standing.dev_metric:.3f} "
        f"(selected, so optimistic); the job as it was: dev {tuned.first.standing.dev_metric:.3f}.\n"
        f"# {said(best.settings)}\n"
    )
    raw = study.space.spec(best.settings).model_dump(mode="json")
    path = folder / BEST
    with replaced(path) as part:
        part.write_text(head + yaml.safe_dump(raw, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def trained_again(study: HpoStudy, tuned: Tuned, folder: Path, seeds: Seeds) -> Study:
    """Best settings and job as it was over fresh seeds; the job alone where it is the best."""
    jobs = {study.spec.name: study.space.spec({})}
    if tuned.best.number != FIRST:
        name = f"{study.spec.name}-best"
        jobs[name] = study.space.spec(tuned.best.settings).model_copy(update={"name": name})
    runs = {
        name: {f"{name}-seed{seed}": seeds.job(shared_evaluators(spec), seed) for seed in seeds.fresh}
        for name, spec in jobs.items()
    }
    return study_of(f"{study.spec.name}-retrained", folder / AGAIN, runs, study.spec.name if len(jobs) > 1 else None)


def tuned_sentences(study: HpoStudy, tuned: Tuned, path: Path) -> list[str]:
    """What the trials have shown, before anything is trained again.

    Args:
        path: of the best job.
    """
    early = sum(trial.reason == STOPPED_EARLY for trial in tuned.ended)
    spent = sum(trial.standing.evaluations for trial in tuned.ended)
    best, first = tuned.best, tuned.first.standing
    failed = f", {len(tuned.faults)} without a result" if tuned.faults else ""
    lines = [
        f"hpo of {study.spec.name}: {len(tuned.ended)} trials by {study.searcher}, {early} stopped early{failed}, "
        f"{spent} evaluations in all"
    ]
    lines += [f"  trial {number} failed: {fault}" for number, fault in sorted(tuned.faults.items())]
    was = f"dev {first.dev_metric:.3f} (loss {first.dev_loss:.3f})"
    if best.number == FIRST:
        lines.append(f"no settings did better on dev than the job as it was: {was}")
    else:
        now = f"dev {best.standing.dev_metric:.3f} (loss {best.standing.dev_loss:.3f})"
        lines.append(f"best on dev: trial {best.number}, {now}; the job as it was: {was}")
        lines.append(f"  {said(best.settings)}")
    return [*lines, f"the best job: {path}"]


def gap_sentences(study: HpoStudy, tuned: Tuned, again: Study, seeds: Seeds) -> list[str]:
    """How far the dev score of the best trial is from what the same settings reach with other seeds.

    Args:
        again: the runs with other seeds, as many as are done.
        seeds: that they have.
    """
    lines = [seeds.note] if seeds.note else []
    for group in reversed(again.groups):
        if not (results := [TuneResult.load(member.folder) for member in group.members if member.is_done]):
            continue
        dev, test = (fmean(getattr(of.scores["tuned"], split).value for of in results) for split in ("dev", "test"))
        number = "one fresh seed" if len(results) == 1 else f"{len(results)} fresh seeds"
        is_best = group.name != study.spec.name or tuned.best.number == FIRST
        whose = "the best settings" if is_best else "the job as it was"
        lines.append(f"{whose}, trained again with {number}: dev {dev:.3f}, test {test:.3f}")
        if is_best:
            chosen = tuned.best.standing.dev_metric
            away = f"{_apart(chosen - dev)} dev and {_apart(chosen - test)} test of the fresh seeds"
            lines.append(
                f"  the study saw dev {chosen:.3f}, selected of {len(tuned.ended)} trials, so optimistic: {away}"
            )
    if tuned.best.number == FIRST:
        lines.append("the best settings are the job as it was: there is nothing to compare")
    return lines


def _apart(gap: float) -> str:
    return f"{abs(gap):.3f} {'above' if gap >= 0 else 'below'}"
