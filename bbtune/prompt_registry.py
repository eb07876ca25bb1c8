"""The prompt in words that a search has found, in MLflow's Prompt Registry: one version for each run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bbtune.errors import TrackingError
from bbtune.mlflow_store import UID, Store, translated
from bbtune.plan import Reading
from bbtune.result import TuneResult
from bbtune.task.template import Template

ALIAS = "tuned"  # of the newest version
PROMPT = "bbtune.prompt"  # tag of the MLflow run: the version that it gave
_LONGEST_NAME = 256  # characters that MLflow's databases have for a name
# Tags that MLflow itself reads.
_IS_PROMPT, _EXPERIMENTS, _LINKED = "mlflow.prompt.is_prompt", "_mlflow_experiment_ids", "mlflow.linkedPrompts"


@dataclass(frozen=True)
class TunedPrompt:
    """What the registry is given.

    Attributes:
        name: of the prompt.
        template: in MLflow's form, ``{{ text }}``.
        tags: of the version; the uid of the run among them, by which it is found again.
    """

    name: str
    template: str
    tags: dict[str, str]


def tuned_prompt(result: TuneResult, uid: str) -> TunedPrompt:
    """The prompt of a finished search in words.

    Args:
        uid: of the run folder.
    """
    spec, tuned, words = result.spec, result.scores["tuned"], result.reading.label_words
    tags = {
        UID: uid,
        "bbtune.spec_hash": spec.spec_hash,
        "bbtune.task": result.task,
        "bbtune.model": spec.backbone.named,
        "bbtune.metric": result.metric,
        "bbtune.dev_score": f"{tuned.dev.value:.4f}",
        "bbtune.test_score": f"{tuned.test.value:.4f}",
    }
    if words:
        tags["bbtune.label_words"] = json.dumps(words)
    return TunedPrompt(spec.name[:_LONGEST_NAME], mlflow_template(result.reading), tags)


def mlflow_template(reading: Reading) -> str:
    """Preamble and template as MLflow writes them: ``{{ text }}``, braces that are text single, no ``{mask}``.

    MLflow knows no way to write double braces that are text, except in Jinja templates, which it takes those for that
    hold ``{% %}``: a prompt with double braces, as a demonstration may have them, becomes one, its texts marked raw.
    """
    texts, fields = [reading.preamble], []
    for literal, field in Template(reading.template, reading.kind).parts:
        texts[-1] += literal
        if field == "mask":
            break
        if field is not None:
            fields.append(field)
            texts.append("")
    texts[-1] = texts[-1].removesuffix(" ")  # it belongs to the label word
    if any("{{" in text or "{%" in text for text in texts):
        texts = [f"{{% raw %}}{text}{{% endraw %}}" if text else "" for text in texts]
    return texts[0] + "".join(f"{{{{ {field} }}}}{text}" for field, text in zip(fields, texts[1:], strict=True))


@translated
def register(store: Store, run_id: str, prompt: TunedPrompt) -> str:
    """Enter a prompt, link it with its MLflow run, and let the alias ``tuned`` follow; done once for each run.

    Returns:
        Where it is, ``prompts:/NAME/VERSION``.

    Raises:
        TrackingError: if MLflow cannot be reached, or refuses.
    """
    run = store.client.get_run(run_id)
    if (uri := str(run.data.tags.get(PROMPT, ""))).startswith(f"prompts:/{prompt.name}/"):
        return uri  # all of it was done; since then the alias may have been moved by hand
    version = _version(store, prompt)
    # As client.link_prompt_version_to_run, which looks for the run in the default database, not in this one.
    store.client.set_tag(run_id, _LINKED, json.dumps([{"name": prompt.name, "version": version}]))
    _show_in(store, prompt.name, run.info.experiment_id)
    if _newest(store, prompt.name) == version:
        store.client.set_prompt_alias(prompt.name, ALIAS, version)
    uri = f"prompts:/{prompt.name}/{version}"
    store.client.set_tag(run_id, PROMPT, uri)
    return uri


def _version(store: Store, prompt: TunedPrompt) -> str:
    """The version of the run, made where it is not there yet."""
    if found := _versions(store, f"name = '{prompt.name}' AND tags.`{UID}` = '{prompt.tags[UID]}'"):
        return str(found[0].version)
    if store.client.get_prompt(prompt.name) is None:
        if store.client.search_registered_models(f"name = '{prompt.name}'"):
            raise TrackingError(
                f"expected a name for the prompt that MLflow's registry has not given to a model, got {prompt.name!r}; "
                "change the name in spec.yaml, and send the run again with bbtune sync"
            )
        store.client.create_prompt(prompt.name)
    # register_prompt would look for an experiment in the default database, too
    return str(store.client.create_prompt_version(prompt.name, prompt.template, tags=prompt.tags).version)


def _newest(store: Store, name: str) -> str:
    return str(_versions(store, f"name = '{name}'")[0].version)


def _versions(store: Store, where: str) -> list[Any]:
    """The newest version that a filter finds, if any."""
    where = f"{where} AND tags.`{_IS_PROMPT}` = 'true'"
    return list(store.client.search_model_versions(where, max_results=1, order_by=["version_number DESC"]))


def _show_in(store: Store, name: str, experiment_id: str) -> None:
    """Put the prompt on the page of an experiment."""
    said = store.client.get_prompt(name).tags.get(_EXPERIMENTS, "")
    known = [one for one in said.split(",") if one]
    if experiment_id not in known:
        store.client.set_prompt_tag(name, _EXPERIMENTS, f",{','.join([*known, experiment_id])},")
