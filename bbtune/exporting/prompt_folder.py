"""A continuous prompt as safetensors, one tensor a layer, with its card and its job."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.prompted import Prompts
from bbtune.errors import BbtuneError, ExportError
from bbtune.evaluation.scorer import load_model
from bbtune.exporting.card import CARD, card_of, write_card
from bbtune.exporting.found import check_model, found_prompt
from bbtune.exporting.probes import check_same, probes
from bbtune.jobfile import load_job
from bbtune.plan import Plan, Reading
from bbtune.result import SPEC, TuneResult
from bbtune.task.verbalizer import words_per_label
from bbtune.tuned import Tuned, plan_here

PROMPT = "prompt.safetensors"
_LAYER = "layer."
_USAGE = """\
`{file}` has one float32 tensor (T, H) for each of layers {layers}: what is {how} the hidden states at the {tokens} \
prompt positions before that layer.

    bbtune predict DIR {texts}
    bbtune serve DIR

or in Python, with the label logits:

    from bbtune.exporting.prompt_folder import read_prompt
    from bbtune.task.task import Example
    read_prompt("DIR").label_logits([Example({example}, 0)])"""

_ASKED = {"single": ('"a text"', '"a text", None'), "pair": (r"$'a text\tanother'", '"a text", "another"')}


def is_prompt_folder(folder: Path) -> bool:
    """Whether a folder holds an exported prompt rather than a run."""
    return (folder / CARD).is_file() and (folder / PROMPT).is_file()


def write_prompt(result: TuneResult, folder: Path) -> str:
    """Write the prompt of a run, and read it back.

    Returns:
        What was found, in words.

    Raises:
        BbtuneError: if the run has learned something else, or what is read back gives other label logits.
    """
    from safetensors.torch import save_file

    found = found_prompt(result)
    tensors = {f"{_LAYER}{layer}": prompt.cpu().contiguous() for layer, prompt in found.prompts.layers.items()}
    encoder, how = found.encoder, "put in the place of" if found.prompts.sets else "added to"
    prompt = {
        "sets": found.prompts.sets,
        "place": encoder.prompt.place,
        "joint": encoder.prompt.joint,
        "token_ids": list(encoder.prompt.ids),
        "layers": sorted(found.prompts.layers),
        "hidden_size": found.model.hidden_size,
    }
    save_file(tensors, folder / PROMPT)
    (folder / SPEC).write_text(result.spec.to_yaml(), encoding="utf-8")
    texts, example = _ASKED[found.plan.kind]
    usage = _USAGE.format(
        file=PROMPT, layers=prompt["layers"], how=how, tokens=encoder.prompt_length, texts=texts, example=example
    )
    write_card(folder, card_of(result, prompt=prompt), usage)
    asked = probes(found.plan.kind)
    again = read_prompt(folder, found.model)
    dtype = result.spec.backbone.dtype
    difference = check_same(found.label_logits(asked), again.label_logits(asked), dtype, "the prompt")
    size = sum(tensor.numel() for tensor in tensors.values())
    return f"{size} numbers in {len(tensors)} layers; read back, label logits differ by {difference:.1g} at the most"


@dataclass(frozen=True)
class StoredPrompt:
    """An exported prompt, before its model is read.

    Attributes:
        card: as it was written.
        plan: how texts are put; without data.
        labels: C names.
        layers: tensors (T, H) by layer.
        sets: whether they take the place of hidden states, or are added.
        token_ids: under the prompt.
        fingerprint: SHA-256 (hex) of the model's files.
    """

    folder: Path
    card: dict[str, Any]
    plan: Plan
    labels: tuple[str, ...]
    layers: dict[int, torch.Tensor]
    sets: bool
    token_ids: tuple[int, ...]
    fingerprint: str

    def on(self, model: FrozenModel) -> Tuned:
        """The prompt on its model.

        Raises:
            ExportError: if the tensors are not those of the job and the model.
        """
        layers = {number: tensor.to(model.device) for number, tensor in self.layers.items()}
        found = Tuned(self.plan, self.labels, model, Prompts(layers, self.sets))
        _check_fits(self.folder, found, self.token_ids)
        return found


def read_prompt(folder: str | Path, model: FrozenModel | None = None) -> Tuned:
    """An exported prompt on its model; neither the run nor the task's data are needed.

    Where the model lies elsewhere on this machine, change ``backbone.model`` in the folder's spec.yaml.

    Args:
        folder: that ``bbtune export --format safetensors`` wrote.
        model: the prompt's, where it is loaded already.

    Raises:
        BbtuneError: if the folder holds no such prompt, or the model cannot be read or is another.
    """
    stored = stored_prompt(Path(folder))
    if model is not None:
        return stored.on(model)
    found = stored.on(load_model(stored.plan))
    check_model(found.model.card, stored.plan.spec.backbone, stored.fingerprint)
    return found


def stored_prompt(folder: Path) -> StoredPrompt:
    """An exported prompt, before its model is read.

    Raises:
        BbtuneError: if the folder holds none, or one that cannot be read.
    """
    if not is_prompt_folder(folder):
        expected = f"a folder of bbtune export --format safetensors ({CARD}, {PROMPT}, {SPEC})"
        raise ExportError(f"{folder}: expected {expected}, found none")
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        plan, labels, prompt = _plan(folder, card), tuple(card["task"]["labels"]), card["prompt"]
        if len(labels) != len(plan.label_words):
            raise ValueError(f"{len(labels)} labels, words of {len(plan.label_words)}")
        tensors, sets, token_ids = _layers(folder / PROMPT), bool(prompt["sets"]), tuple(prompt["token_ids"])
        return StoredPrompt(folder, card, plan, labels, tensors, sets, token_ids, str(card["model"]["fingerprint"]))
    except BbtuneError:
        raise
    except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise ExportError(f"{folder}: the prompt cannot be read ({type(error).__name__}: {error})") from error


def _check_fits(folder: Path, found: Tuned, token_ids: tuple[int, ...]) -> None:
    """Refuse tensors that are not those of the job beside them.

    Args:
        token_ids: under the prompt, as the card says.
    """
    model, layers, ids = found.model, found.prompts.layers, found.encoder.prompt.ids
    shape, shapes = (len(ids), model.hidden_size), {tuple(of.shape) for of in layers.values()}
    if ids != token_ids or shapes != {shape} or not layers.keys() <= set(range(model.card.layer_count)):
        expected = f"tensors {shape} for layers below {model.card.layer_count}, at the tokens {list(ids)}"
        got = f"{sorted(shapes)} for layers {sorted(layers)}, at {list(token_ids)}"
        raise ExportError(f"{folder}: expected {expected}, got {got}; {SPEC} has changed: export the run again")


def _layers(path: Path) -> dict[int, torch.Tensor]:
    from safetensors.torch import load_file

    return {int(name.removeprefix(_LAYER)): tensor for name, tensor in load_file(path).items()}


def _plan(folder: Path, card: dict[str, Any]) -> Plan:
    raw = card["reading"]
    words = {key: words_per_label(raw[key]) for key in ("label_words", "first_words")}
    return plan_here(load_job(folder / SPEC), Reading(**{**raw, **words}))
