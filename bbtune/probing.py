"""What a user can know of an endpoint before a run: what it does, and what the run will cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bbtune.backbone.sources import read_model_card
from bbtune.cost import Spent
from bbtune.endpoint.request import Style
from bbtune.endpoint_spec import ApiSpec
from bbtune.errors import BackboneError, BbtuneError
from bbtune.evaluation.text_models import TextModels
from bbtune.examine import make_plan
from bbtune.forecast import Asking, Count, Forecast, Item, count_roughly
from bbtune.spec import BackboneSpec, BaseJob, TextJob
from bbtune.task.task import Task
from bbtune.text_plan import TextPlan


def probe_job(spec: BaseJob) -> list[str]:
    """What the endpoint of a job does, in words; answers are bought anew, whatever is in the cache.

    Raises:
        JobError: with every fault of the job.
        BbtuneError: for a job that is no search for a prompt in words, or has no endpoint.
        EndpointError: if it cannot be reached, or refuses.
    """
    others = "others load their model here, or find out what the server does in the run"
    plan, task, api = _planned(spec, f"expected a job with backbone.api to probe, and prompt.kind text; {others}")
    backbone = spec.backbone.model_copy(update={"api": api.model_copy(update={"cache": False})})
    fresh = plan.spec.model_copy(update={"backbone": backbone})
    with TemporaryDirectory() as folder:
        models = TextModels(replace(plan, spec=fresh), Path(folder))
        try:
            return models.reader(models.probe(), task.metric)[1]
        finally:
            models.close()


def forecast_text(spec: BaseJob) -> str:
    """A table of what a run will ask of an API, and pay for it, at the most.

    Raises:
        JobError: with every fault of the job.
        BbtuneError: for a job that is no search for a prompt in words, or has no endpoint.
    """
    others = "other jobs are not forecast"
    plan, task, api = _planned(spec, f"expected a search for a prompt in words with backbone.api: {others}")
    count, how = _counter(plan.spec.backbone)
    most_words = max(sum(map(len, words)) for words in plan.every_words)
    forecast = Forecast(plan, plan.space(), count, _asking(api, most_words, plan.spec.prompt.answer_tokens))
    test = forecast.volume(task.test)
    items = forecast.items(test)
    total = Item("total", sum(item.texts for item in items), sum((item.spent for item in items), Spent()))
    head = f"{'':<16}{'texts':>9}{'requests':>10}{'tokens in':>12}{'tokens out':>12}{'dollars':>11}"
    rows = [
        f"{item.name:<16}{item.texts:>9}{item.spent.requests:>10}{item.spent.input_tokens:>12}"
        f"{item.spent.output_tokens:>12}{item.spent.dollars:>11.4f}"
        for item in [*items, total]
    ]
    budget = plan.spec.budget.model_dump(exclude_none=True)
    most = "about" if {"tokens", "dollars"} & set(budget) else "at most"  # a request may cost less than is foreseen
    return "\n".join(
        [
            f"{plan.spec.name}: {most} {int(forecast.generations(test))} generations, nothing is sent; {how}",
            head,
            *rows,
            f"hard limits: {', '.join(f'{name} {limit:g}' for name, limit in budget.items())}",
            "what the cache holds, and what a race or a prompt that stays as it is saves, is not taken off",
            *([] if api.price else ["no backbone.api.price is given, so dollars are 0"]),
        ]
    )


def _planned(spec: BaseJob, expected: str) -> tuple[TextPlan, Task, ApiSpec]:
    """Plan, task and endpoint of a search for a prompt in words; other jobs are refused before their data are read."""
    if isinstance(spec, TextJob) and spec.backbone.api is not None:
        plan, task, _ = make_plan(spec)
        if isinstance(plan, TextPlan):
            return plan, task, spec.backbone.api
    raise BbtuneError(expected)


def _asking(api: ApiSpec, words: int, answer_tokens: int) -> Asking:
    """What a text takes: an answer, what the job demands, else what most endpoints can do, one token and its chances.

    Args:
        words: of all labels; 0 where truths are text.
        answer_tokens: most tokens of an answer in words.
    """
    if api.read == "prompt-logprobs":
        return Asking(words, words, "completion")
    style: Style = "completion" if api.style == "completion" else "chat"
    return Asking(1, answer_tokens if api.read == "generated" or not words else 1, style)


def _counter(backbone: BackboneSpec) -> tuple[Count, str]:
    """How tokens are counted, and what to say of it."""
    served = backbone.api.serve if backbone.api else None
    source = backbone.model or served
    if source is None:
        return count_roughly, "tokens are guessed from characters (backbone.model may name a tokenizer)"
    try:
        tokenizer = read_model_card(BackboneSpec(model=source)).tokenizer
    except BackboneError as error:
        return count_roughly, f"tokens are guessed from characters ({error})"
    return lambda text: len(tokenizer(text)["input_ids"]), f"tokens are counted by the tokenizer of {source}"
