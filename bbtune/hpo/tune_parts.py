"""Ray Tune's searcher, scheduler and callback in terms of a study's record, which they find by the study's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search import Searcher

from bbtune.evaluation.ray_cluster import last_line
from bbtune.hpo.progress import WATCHED
from bbtune.hpo.record import FIRST, Standing

FAULT = "fault.txt"
_STANDING = [field.name for field in fields(Standing)]


class Proposals(Searcher):  # type: ignore[misc]
    """Hands out what the study's record proposes; all that a searcher learns, it learns there."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder
        self.next = 0

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **_: Any) -> bool:
        """Metric and mode are known."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """Number and settings of the next trial."""
        settings = WATCHED[self.folder].record.propose(self.next)
        if settings is None:
            return Searcher.FINISHED
        self.next += 1
        return {"number": self.next - 1, "settings": settings}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The record hears of it from :class:`Watch`."""

    def save(self, checkpoint_path: str) -> None:
        """The number of the next trial."""
        Path(checkpoint_path).write_text(json.dumps(self.next), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Take up what was saved."""
        self.next = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))


class Asha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA that never stops the job as it is, and knows ended trials again when a study goes on."""

    def __init__(self, folder: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.folder = folder

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Of a trial that has ended before, put what it scored on the rungs."""
        super().on_trial_add(tune_controller, trial)
        known = WATCHED[self.folder].record.ended.get(trial.config["number"])
        for used, value in known.curve if known else ():
            self._trial_info[trial.trial_id].on_result(trial, used, value)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """What the rungs say, but of the job as it is, and of a trial that ends by itself."""
        said = str(super().on_trial_result(tune_controller, trial, result))
        return TrialScheduler.CONTINUE if trial.config["number"] == FIRST or result["reason"] else said


class Watch(tune.Callback):  # type: ignore[misc]
    """Tells the study's record what trials do."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """A generation."""
        WATCHED[self.folder].heard(trial.config["number"], _standing(result))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """The end, or a stop before it."""
        WATCHED[self.folder].ended(trial.config["number"], _standing(trial.last_result), trial.last_result["reason"])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A fault of its own, else of its process."""
        watched = WATCHED[self.folder]
        place = watched.trials.place(trial.config["number"], trial.config["settings"]) / FAULT
        lost = f"its process was lost ({last_line(trial.get_error())})"
        watched.failed(trial.config["number"], place.read_text(encoding="utf-8") if place.is_file() else lost)


def _standing(result: Mapping[str, Any]) -> Standing:
    return Standing(**{name: result[name] for name in _STANDING})
