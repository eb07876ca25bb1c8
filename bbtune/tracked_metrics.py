"""The numbers of a run as MLflow's metrics, the same names for every method; money where an API is asked."""

from __future__ import annotations

from dataclasses import asdict, fields

from bbtune.cost import Spent
from bbtune.loop import Cost, Generation
from bbtune.result import TuneResult
from bbtune.spec import BaseJob

_MONEY = {field.name for field in fields(Spent)}


def event_metrics(event: Generation) -> dict[str, float]:
    """Metrics of one generation."""
    cost = event.cost
    found: dict[str, float | None] = {
        "loss": event.loss,
        "best_loss": event.best_loss,
        "train_score": event.train_metric,
        "dev_score": event.dev_metric,
        "dev_score_incumbent": event.dev.metric if event.dev else None,
        "dev_loss_incumbent": event.dev.loss if event.dev else None,
        "layer": event.layers[0] if len(event.layers) == 1 else None,
        "examples": cost.examples,
        "layer_forwards": cost.layer_forwards,
        "evaluations_per_s": cost.evaluations / cost.seconds if cost.seconds else None,
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def money_metrics(cost: Cost, spec: BaseJob) -> dict[str, float]:
    """``requests``, ``cached``, ``tokens``, and where the job gives a price ``dollars``; nothing without an API."""
    if spec.backbone.api is None:
        return {}
    found = {"requests": cost.requests, "cached": cost.cached, "tokens": cost.input_tokens + cost.output_tokens}
    priced = {"dollars": cost.dollars} if spec.backbone.api.price else {}
    return {name: float(value) for name, value in (found | priced).items()}


def result_metrics(result: TuneResult) -> dict[str, float]:
    """Final scores: ``test_tuned``, ``test_tuned_low``, ..., ``gain``, size, cost, and of an API all that was paid."""
    found = {"gain": result.gain.value, "gain_low": result.gain.low, "gain_high": result.gain.high}
    for name, scored in result.scores.items():
        for split, estimate in (("dev", scored.dev), ("test", scored.test)):
            found |= {
                f"{split}_{name}": estimate.value,
                f"{split}_{name}_low": estimate.low,
                f"{split}_{name}_high": estimate.high,
            }
    found |= {"parameters": float(result.parameters), "peak_memory_mib": result.peak_memory_mib}
    cost = {name: float(value) for name, value in asdict(result.cost).items() if name not in _MONEY}
    return found | cost | money_metrics(result.cost, result.spec) | _paid(result)


def _paid(result: TuneResult) -> dict[str, float]:
    """``paid_requests``, ``paid_input_tokens``, ...: the probe, the writer and the test split included."""
    asked = result.spec.apis.values()
    unknown = set() if any(api.price for api in asked) else {"dollars"}
    paid = asdict(result.paid) if asked else {}
    return {f"paid_{name}": float(value) for name, value in paid.items() if name not in unknown}
