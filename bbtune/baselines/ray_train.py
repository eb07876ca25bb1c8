"""Training on the workers of Ray Train: gloo on CPUs, nccl on GPUs, checkpoints, and another try where one is lost."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import nn

from bbtune.backbone.memory import peak_memory
from bbtune.baselines.crew import Crew, Save
from bbtune.baselines.inbox import Ended, Inbox
from bbtune.baselines.learner import Learner
from bbtune.baselines.learners import make_learner
from bbtune.baselines.training import learned_in, train
from bbtune.errors import BbtuneError, EvaluationError, ResourcesError
from bbtune.evaluation.ray_cluster import (
    FEWER,
    amounts,
    check_cluster,
    import_ray,
    joined_cluster,
    last_line,
    on_this_machine,
)
from bbtune.loop import Generation
from bbtune.method import Fitted
from bbtune.plan import Plan
from bbtune.run_spec import EvaluatorsSpec
from bbtune.task.metrics import Metric

_TRIES = 3  # after a worker is lost, from the last checkpoint each
_WAITS = 1  # more than one, a minute each, for the cluster to have room for the workers
_POLL_S = 0.2
_END_S = 60.0  # longest wait for workers to stop
_RUN = "ray"  # folder of Ray Train's own files, in that of the training


class RayTraining:
    """A training on workers of a Ray cluster, as one may go on with it after any loss.

    Args:
        plan: of the job, whose evaluators are the workers.
        metric: of the task.
        folder: for Ray Train's files; all machines of the cluster must see it.
    """

    def __init__(self, plan: Plan, metric: Metric, folder: Path) -> None:
        self._plan = plan
        self._metric = metric
        self._folder = folder.absolute()
        self.peak_memory = 0  # bytes, of the worker that has used most
        self._running: Generator[Generation | Fitted, None, None] | None = None

    def run(self) -> Iterator[Generation | Fitted]:
        """The steps of the training, each once, and its end.

        Raises:
            BbtuneError: what a worker raised on purpose, at once; other losses are told after some tries.
        """
        self._running = self._run()
        return self._running

    def close(self) -> None:
        """Stop workers that still train, at their next step."""
        if self._running is not None:
            self._running.close()

    def _run(self) -> Generator[Generation | Fitted, None, None]:
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # reports are collected at this pace
        ray = import_ray()
        with joined_cluster(ray) as owned:
            check_cluster(ray, self._plan.spec.evaluators)
            here = on_this_machine(ray, only=True)
            inbox = ray.remote(Inbox).options(num_cpus=0, scheduling_strategy=here).remote()
            fit = _Fit(self._trainer(inbox))
            fit.start()
            try:
                yield from self._told(ray, inbox, fit)
            finally:
                if not owned:  # else the training ends with the cluster
                    with suppress(ray.exceptions.RayError):  # of a cluster that is gone
                        ray.get(inbox.close.remote())
                    fit.join(_END_S)

    def _told(self, ray: Any, inbox: Any, fit: _Fit) -> Iterator[Generation | Fitted]:
        """What the workers tell, until the training is over."""
        ended, seen = None, 0
        while True:
            over = not fit.is_alive()  # asked before the inbox is emptied, so that nothing is missed
            for item in self._taken(ray, inbox):
                if isinstance(item, BbtuneError):
                    raise item
                if isinstance(item, Ended):
                    ended = item
                elif item.number >= seen:  # after a loss, steps are done again
                    seen = item.number + 1
                    yield item
            if over:
                break
            fit.join(_POLL_S)
        yield self._end(fit, ended)

    def _taken(self, ray: Any, inbox: Any) -> list[Any]:
        try:
            return list(ray.get(inbox.take.remote()))
        except ray.exceptions.RayError as error:
            lost = f"the process that collects the steps was lost ({last_line(error)})"
            raise EvaluationError(f"{lost}; nothing is lost up to the last checkpoint: bbtune resume") from error

    def _end(self, fit: _Fit, ended: Ended | None) -> Fitted:
        if fit.error is not None:
            raise self._translated(fit.error) from fit.error
        if ended is None or fit.result is None or fit.result.checkpoint is None:
            raise EvaluationError("the training ended without a checkpoint; please report this")
        self.peak_memory = ended.peak_memory
        with fit.result.checkpoint.as_directory() as folder:
            return Fitted(ended.reason, ended.cost, learned_in(Path(folder)), ended.parameters)

    def _translated(self, error: Exception) -> BbtuneError:
        """A failure of the training in words."""
        workers = self._plan.spec.evaluators
        if type(getattr(error, "controller_failure", None)).__name__ == "WorkerGroupStartupTimeoutError":
            expected = f"expected room for {workers.count} workers of {amounts(workers)} each"
            return ResourcesError(f"{expected}, the cluster had none in time; {FEWER}, or wait until other work ends")
        cause = [error, *getattr(error, "worker_failures", {}).values()][-1]
        return EvaluationError(f"the training failed: {last_line(cause)}; nothing is lost up to the last checkpoint")

    def _trainer(self, inbox: Any) -> Any:
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        workers: EvaluatorsSpec = self._plan.spec.evaluators
        each = {"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})}
        self._folder.mkdir(parents=True, exist_ok=True)
        return TorchTrainer(
            _work,
            train_loop_config={"plan": self._plan, "metric": self._metric, "inbox": inbox},
            scaling_config=ScalingConfig(
                num_workers=workers.count, use_gpu=workers.gpus > 0, resources_per_worker=each
            ),
            run_config=RunConfig(
                name=_RUN,
                storage_path=str(self._folder),
                failure_config=FailureConfig(max_failures=_TRIES, controller_failure_limit=_WAITS),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
            # nccl does not let two workers share a GPU
            torch_config=TorchConfig(backend="nccl" if workers.gpus >= 1 else "gloo"),
        )


class _Fit(threading.Thread):
    """The trainer's blocking call, beside which steps are collected."""

    def __init__(self, trainer: Any) -> None:
        super().__init__(name="bbtune-train", daemon=True)
        self._trainer = trainer
        self.result: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.result = self._trainer.fit()
        except Exception as error:  # Ray's own kinds; told in the main thread
            self.error = error


class _RayCrew(Crew):
    """The worker group of Ray Train that this process is part of."""

    def __init__(self) -> None:
        import ray.train

        self._train = ray.train
        context = ray.train.get_context()
        self.rank, self.size = context.get_world_rank(), context.get_world_size()

    def wrap(self, learner: Learner) -> nn.Module:
        from ray.train.torch import prepare_model

        return prepare_model(learner)  # type: ignore[no-any-return]

    def gathered(self, value: Any) -> list[Any]:
        import torch.distributed

        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    @contextmanager
    def checkpoint(self) -> Iterator[Path | None]:
        kept = self._train.get_checkpoint()
        if kept is None:
            yield None
            return
        with kept.as_directory() as folder:
            yield Path(folder)

    def report(self, step: Generation, save: Save | None) -> None:
        if save is None:
            return
        metrics = {"step": step.number}
        if self.rank:
            self._train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder))
            self._train.report(metrics, checkpoint=self._train.Checkpoint.from_directory(folder))


def _work(config: dict[str, Any]) -> None:
    """What every worker runs."""
    import ray

    plan, inbox = config["plan"], config["inbox"]
    crew = _RayCrew()
    if not crew.gathered(ray.get(inbox.is_open.remote()))[0]:  # another try of Ray's, and nobody waits for it
        return
    try:
        learner = make_learner(plan)
        for event in train(learner, plan, config["metric"], crew):
            told: Any = event
            if isinstance(event, Fitted):
                peak = max(crew.gathered(peak_memory(learner.device)))
                told = Ended(event.reason, event.cost, event.parameters, peak)
            # The others go on or stop with the first.
            if not crew.gathered(crew.rank > 0 or ray.get(inbox.put.remote(told)))[0]:
                return
    except BbtuneError as error:
        ray.get(inbox.put.remote(error))
        raise
