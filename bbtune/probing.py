"""What a user can know of an endpoint before a run: what it does, and what the run will cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bbtune.backbone.embeddings import read_embeddings
from bbtune.backbone.sources import ModelCard, read_model_card
from bbtune.backbone_spec import BackboneSpec
from bbtune.endpoint.probe import probe
from bbtune.endpoint.request import Style
from bbtune.endpoint_spec import ApiSpec
from bbtune.errors import BackboneError, BbtuneError
from bbtune.evaluation.account import Account
from bbtune.evaluation.text_models import TextModels
from bbtune.evaluation.wire import packed
from bbtune.examine import NOTHING, make_plan
from bbtune.forecast import Asking, Count, Forecast, Item, count_roughly, summed
from bbtune.forecast_embeddings import EmbeddingsForecast
from bbtune.own import Own
from bbtune.plan import Plan
from bbtune.search_plan import SearchPlan
from bbtune.spec import BaseJob
from bbtune.text_plan import TextPlan


def probe_job(spec: BaseJob) -> list[str]:
    """What the endpoint of a job does, in words; answers are bought anew, whatever is in the cache.

    Raises:
        JobError: with every fault of the job.
        BbtuneError: for a job that has no endpoint.
        EndpointError: if it cannot be reached, or refuses.
    """
    api = _api_of(spec, "to probe")
    plan, task, _ = make_plan(spec)
    fresh_api = api.model_copy(update={"cache": False})
    backbone = plan.spec.backbone.model_copy(update={"api": fresh_api})
    with TemporaryDirectory() as folder, ExitStack() as opened:
        if isinstance(plan, TextPlan):
            fresh = replace(plan, spec=plan.spec.model_copy(update={"backbone": backbone}))
            models = TextModels(fresh, Path(folder))
            opened.callback(models.close)
            return models.reader(models.probe(), task.metric)[1]
        account = Account(plan.spec, Path(folder))
        opened.callback(account.close)
        found = probe(account.endpoint(fresh_api, 1), api, plan.label_words, _embedded(spec.backbone))
        used = "label words of a text in embeddings, by token id or among the most probable tokens"
        used = used if found.prompt_embeds else "nothing: a continuous prompt needs a server that takes prompt_embeds"
        return [*found.sentences(), f"used: {used}"]


def _embedded(backbone: BackboneSpec) -> Callable[[str], str]:
    """From a text to the embeddings that a server takes in its place."""
    card = read_model_card(backbone)
    table = read_embeddings(card, backbone)
    return lambda text: packed(table.of(card.tokenizer(text)["input_ids"]))


def forecast_job(spec: BaseJob, own: Own = NOTHING) -> str:
    """A table of what a run will ask of an API, and pay for it, at the most.

    Args:
        own: what a program gives beside the job.

    Raises:
        JobError: with every fault of the job.
        BbtuneError: for a job that has no endpoint.
    """
    api = _api_of(spec, "whose cost can be foreseen")
    plan, task, card = make_plan(spec, own)
    if isinstance(plan, TextPlan):
        count, how = _counter(plan.spec.backbone)
        most_words = max(sum(map(len, words)) for words in plan.every_words)
        forecast = Forecast(plan, plan.space(), count, _asking(api, most_words, plan.spec.prompt.answer_tokens))
        test = forecast.volume(task.test)
        return _table(plan, how, forecast.generations(test), forecast.items(test))
    if not isinstance(plan, SearchPlan) or not isinstance(card, ModelCard):
        raise TypeError(f"expected the plan of a search, got {type(plan).__name__}")
    of_rows = EmbeddingsForecast(plan, card)
    how = "rows are as they will be sent"
    return _table(plan, how, of_rows.generations(task.test), of_rows.items(task.test))


def _table(plan: Plan, how: str, generations: float, items: Sequence[Item]) -> str:
    whole = Item("total", sum(item.texts for item in items), summed(items))
    head = f"{'':<16}{'texts':>9}{'requests':>10}{'tokens in':>12}{'tokens out':>12}{'dollars':>11}"
    rows = [
        f"{item.name:<16}{item.texts:>9}{item.spent.requests:>10}{item.spent.input_tokens:>12}"
        f"{item.spent.output_tokens:>12}{item.spent.dollars:>11.4f}"
        for item in [*items, whole]
    ]
    budget, api = plan.spec.budget.model_dump(exclude_none=True), plan.spec.backbone.api
    most = "about" if {"tokens", "dollars"} & set(budget) else "at most"  # a request may cost less than is foreseen
    foreseen = set(budget) - {"seconds"}
    many = f"{most} {int(generations)} generations" if foreseen else "one generation of as many as the seconds allow"
    return "\n".join(
        [
            f"{plan.spec.name}: {many}, nothing is sent; {how}",
            head,
            *rows,
            f"hard limits: {', '.join(f'{name} {limit:g}' for name, limit in budget.items())}",
            "what the cache holds, and what a race or a prompt that stays as it is saves, is not taken off",
            *([] if api and api.price else ["no backbone.api.price is given, so dollars are 0"]),
        ]
    )


def _api_of(spec: BaseJob, wanted: str) -> ApiSpec:
    """The endpoint of a job, before its data are read."""
    if spec.backbone.api is None:
        raise BbtuneError(f"expected a job with backbone.api {wanted}, got one whose model is loaded here")
    return spec.backbone.api


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
