"""Our searches of prompts in words as an optimizer of MLflow's, for ``mlflow.genai.optimize_prompts``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import mlflow
from mlflow.genai.optimize import BasePromptOptimizer, PromptOptimizerOutput
from pydantic import ValidationError

from bbtune.cost import Sizes
from bbtune.errors import OptimizerError, TaskError, did_you_mean
from bbtune.jobfile import faults_in
from bbtune.loop import Generation, Ledger, Limits, run_search
from bbtune.mlflow_store import reason
from bbtune.scored_prompts import PromptEvaluator, Prompts, ScoredPrompts
from bbtune.search import Search
from bbtune.selection import Selection
from bbtune.target_prompt import PlainWriter, TargetPrompt, has_markup
from bbtune.text_search import check_search_name, make_text_search
from bbtune.text_search.choices import Choices, Library
from bbtune.text_search.minibatch import Minibatches
from bbtune.text_search.writer import Writer
from bbtune.text_spec import TextMethodSpec

_logger = logging.getLogger(__name__)


class TextSearchOptimizer(BasePromptOptimizer):  # type: ignore[misc]  # MLflow has no types
    """Searches the instruction of each prompt, scored by MLflow's scorers on the train data; no gradients, no judge.

    An instruction is edited by phrases, and by a writer where there is one; variables and the text around them stay
    (:class:`bbtune.target_prompt.TargetPrompt` says what of a template is its instruction). Several prompts are tuned
    one after another, each with an equal share of the evaluations and the others as they are by then, in the order in
    which they were given: what only a change of two at once would better is not found.

    What is handed out is the prompt with the best mean score on all train data, of those that were the best of a
    generation. Every prompt is asked once on every example: predict_fn should give the same answer again.

    Args:
        search: as ``method.search`` of a job.
        population: candidates in a generation, the best so far among them.
        evaluations: candidates in all, at most; each is at most one call of predict_fn for every example.
        minibatch: train examples that a generation is scored on; None for all. A new best is scored on all.
        instructions: further instructions to start from, by the prompt's name.
        writer: of new instructions, such as :class:`bbtune.evaluation.instruction_writer.InstructionWriter`.
        seed: of all random numbers.

    Raises:
        OptimizerError: for an unknown search, or numbers out of their range.
    """

    def __init__(
        self,
        search: str = "genetic",
        *,
        population: int = 8,
        evaluations: int = 80,
        minibatch: int | None = None,
        instructions: Mapping[str, Sequence[str]] | None = None,
        writer: Writer | None = None,
        seed: int = 0,
    ) -> None:
        check_search_name(search)
        try:
            self._method = TextMethodSpec(search=search, population=population, minibatch=minibatch)
        except ValidationError as error:
            raise OptimizerError("; ".join(str(fault) for fault in faults_in(error, TextMethodSpec))) from error
        self._evaluations = evaluations
        self._instructions = {name: list(texts) for name, texts in (instructions or {}).items()}
        self._writer = None if writer is None else PlainWriter(writer)
        self._seed = seed
        self._share(1)

    def optimize(
        self,
        eval_fn: Callable[[dict[str, str], list[dict[str, Any]]], list[Any]],
        train_data: list[dict[str, Any]],
        target_prompts: dict[str, str],
        enable_tracking: bool = True,
    ) -> PromptOptimizerOutput:
        """Search the prompts; MLflow calls this.

        Args:
            eval_fn: scores prompts on records.
            train_data: records.
            target_prompts: templates by name; those of chats as JSON.
            enable_tracking: whether to log the best score so far, with evaluations as the step, to the active run.

        Raises:
            TaskError: without train data.
            OptimizerError: for too few evaluations, and for prompts or instructions that leave nothing to search.
            EvaluationError: if predict_fn fails, or there is no scorer.
        """
        if not train_data or eval_fn is None:
            raise TaskError("expected train_data and scorers to search by, got no train_data; give some examples")
        share = self._share(len(target_prompts))
        targets = {name: TargetPrompt.read(template) for name, template in target_prompts.items()}
        self._check_instructions(list(targets))
        searches = {name: self._search(name, target, len(train_data)) for name, target in targets.items()}
        if enable_tracking:
            self._log_settings()
        scored = ScoredPrompts(eval_fn, train_data)
        best: Prompts = dict(target_prompts)
        for turn, (name, (search, library)) in enumerate(searches.items()):
            evaluator = PromptEvaluator(scored, best, name, targets[name], library)
            for best, evaluations in _bests(search, evaluator, share, len(train_data)):
                if enable_tracking:
                    _log_best(scored, best, turn * share + evaluations)
        return _output(scored, target_prompts, best)

    def _share(self, prompts: int) -> int:
        """Evaluations of each prompt."""
        share, population = self._evaluations // prompts, self._method.population
        if share < population:
            least = f"{population * prompts}, one generation for each of {prompts}" if prompts > 1 else population
            raise OptimizerError(f"evaluations: expected at least {least}, got {self._evaluations}")
        return share

    def _search(self, name: str, target: TargetPrompt, train: int) -> tuple[Search, Library]:
        """The search of a prompt, at the instruction that it has, and where that enters what it writes."""
        library = Library([target.instruction, *self._instructions.get(name, [])])
        choices = Choices(library, len(library), ())
        search = make_text_search(self._method, choices, self._seed, self._writer)
        alone = not any(library[i] for i in range(len(library))) or search.stop_reasons()
        if alone:
            has = f"got {target.instruction!r} alone" if target.instruction else "got none"
            more = f"instructions={{{name!r}: [...]}}"
            raise OptimizerError(
                f"prompt {name}: {self._method.search} expected instructions to make others from, {has}; give {more}"
            )
        size = self._method.minibatch
        return (search if size is None else Minibatches(search, train, size, self._seed)), library

    def _check_instructions(self, known: Sequence[str]) -> None:
        for name, texts in self._instructions.items():
            if name not in known:
                wanted = f"expected names of the prompts that are optimized, {', '.join(known)}"
                raise OptimizerError(f"instructions: {wanted}, got {name!r}{did_you_mean(name, known)}")
            for text in filter(has_markup, texts):
                raise OptimizerError(f"instructions of {name}: expected plain text, variables stay, got {text!r}")

    def _log_settings(self) -> None:
        settings = {**self._method.model_dump(include={"search", "population", "minibatch"}), "seed": self._seed}
        settings |= {"evaluations": self._evaluations, "writer": self._writer is not None}
        _logged(lambda: mlflow.log_params({f"bbtune.{name}": value for name, value in settings.items()}))


def _bests(search: Search, evaluator: PromptEvaluator, evaluations: int, train: int) -> Iterator[tuple[Prompts, int]]:
    """The best prompts so far, and the candidates scored by then, after every generation of a search."""
    selection = Selection(search.incumbent)
    ledger = Ledger(Limits(evaluations=evaluations), Sizes(train, train, (0,), 0))
    for event in run_search(search, evaluator, ledger, selection):
        if isinstance(event, Generation):
            yield evaluator.prompts(selection.z), event.cost.evaluations


def _output(scored: ScoredPrompts, first: Prompts, best: Prompts) -> PromptOptimizerOutput:
    """What MLflow is handed."""
    return PromptOptimizerOutput(
        optimized_prompts=best,
        initial_eval_score=scored.mean(first),
        final_eval_score=scored.mean(best),
        initial_eval_score_per_scorer=scored.per_scorer(first),
        final_eval_score_per_scorer=scored.per_scorer(best),
    )


def _log_best(scored: ScoredPrompts, best: Prompts, evaluations: int) -> None:
    """The mean score on all train data of the best so far, under the names that MLflow's own optimizers give it."""
    found = {"eval_score": scored.mean(best)}
    found |= {f"eval_score.{name}": value for name, value in scored.per_scorer(best).items()}
    _logged(lambda: mlflow.log_metrics(found, step=evaluations))


def _logged(log: Callable[[], object]) -> None:
    """Log; a search does not end because MLflow is gone."""
    try:
        log()
    except Exception as error:  # whatever MLflow, requests, urllib3 and SQLAlchemy raise
        _logger.warning("MLflow lacks part of the record of this search (%s)", reason(error))
