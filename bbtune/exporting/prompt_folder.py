"""A continuous prompt as safetensors, one tensor a layer, with its card and its job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.prompted import Prompts
from bbtune.errors import BbtuneError, ExportError
from bbtune.evaluation.scorer import load_model
from bbtune.exporting.card import CARD, card_of, write_card
from bbtune.exporting.probes import check_same, probes
from bbtune.jobfile import load_job
from bbtune.plan import Plan, Reading
from bbtune.result import SPEC, TuneResult
from bbtune.task.verbalizer import words_per_label
from bbtune.tuned import Tuned, plan_here, tuned

PROMPT = "prompt.safetensors"
_LAYER = "layer."
_USAGE = """\
`{file}` has one float32 tensor (T, H) for each of layers {layers}: what is {how} the hidden states at the {tokens} \
prompt positions before that layer.

    bbtune predict DIR "a text"
    bbtune serve DIR

or in Python, with the label logits:

    from bbtune.exporting.prompt_folder import read_prompt
    from bbtune.task.task import Example
    read_prompt("DIR").label_logits([Example("a text", None, 0)])
"""


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

    found = tuned(result)
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
    usage = _USAGE.format(file=PROMPT, layers=prompt["layers"], how=how, tokens=encoder.prompt_length)
    write_card(folder, card_of(result, prompt=prompt), usage)
    texts = probes(found.plan.kind)
    again = read_prompt(folder, found.model)
    dtype = result.spec.backbone.dtype
    difference = check_same(found.label_logits(texts), again.label_logits(texts), dtype, "the prompt")
    size = sum(tensor.numel() for tensor in tensors.values())
    return f"{len(tensors)} tensors, {size} numbers; read back, label logits differ by {difference:.1g} at the most"


def read_prompt(folder: str | Path, model: FrozenModel | None = None) -> Tuned:
    """An exported prompt on its model; neither the run nor the task's data are needed.

    Where the model lies elsewhere on this machine, change ``backbone.model`` in the folder's spec.yaml.

    Args:
        folder: that ``bbtune export --format safetensors`` wrote.
        model: the prompt's, where it is loaded already.

    Raises:
        BbtuneError: if the folder holds no such prompt, or the model cannot be read or is another.
    """
    folder = Path(folder)
    if not is_prompt_folder(folder):
        expected = f"a folder of bbtune export --format safetensors ({CARD}, {PROMPT}, {SPEC})"
        raise ExportError(f"{folder}: expected {expected}, found none")
    try:
        card, layers = json.loads((folder / CARD).read_text(encoding="utf-8")), _layers(folder / PROMPT)
        plan, labels, prompt = _plan(folder, card), card["task"]["labels"], card["prompt"]
        sets, shape = prompt["sets"], (len(prompt["token_ids"]), prompt["hidden_size"])
    except BbtuneError:
        raise
    except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise ExportError(f"{folder}: the prompt cannot be read ({type(error).__name__}: {error})") from error
    model = model or load_model(plan)
    if model.hidden_size != shape[1] or any(tensor.shape != shape for tensor in layers.values()):
        got = f"a model of width {model.hidden_size} and tensors {sorted({tuple(of.shape) for of in layers.values()})}"
        raise ExportError(f"{folder}: expected prompts of shape {shape} on a model as wide, got {got}")
    return Tuned(plan, labels, model, Prompts({n: of.to(model.device) for n, of in layers.items()}, sets))


def _layers(path: Path) -> dict[int, torch.Tensor]:
    from safetensors.torch import load_file

    return {int(name.removeprefix(_LAYER)): tensor for name, tensor in load_file(path).items()}


def _plan(folder: Path, card: dict[str, Any]) -> Plan:
    raw = card["reading"]
    words = {key: words_per_label(raw[key]) for key in ("label_words", "first_words")}
    return plan_here(load_job(folder / SPEC), Reading(**{**raw, **words}))
