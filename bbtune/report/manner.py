"""How a run tuned, in plain words."""

from __future__ import annotations

from bbtune.methods import OWN_WEIGHTS
from bbtune.report.numbers import count
from bbtune.result import TuneResult
from bbtune.spec import BaseJob, JobSpec, TextJob

_TRAINED = "by gradient descent"
BASELINES = {
    "majority": "always answers the label that the examples have most often",
    "zero-shot": "asks the model as it is, with the instruction in words",
    "template-ensemble": "asks the model as it is under several wordings and takes the mean",
    "in-context": "shows the model solved examples before each text",
    "calibration": "asks the model as it is and corrects its leaning towards some labels",
    "logistic-regression": "puts a linear classifier on what the model makes of a text",
    "mlp": "puts a small network on what the model makes of a text",
    "bilstm": "puts a small recurrent network on what the model makes of a text",
    "setfit": "trains the encoder to tell texts of different labels apart, and puts a linear classifier on it",
    "prompt-tuning": f"trains a prompt of numbers at the model's input {_TRAINED}",
    "deep-prompts": f"trains prompts of numbers at every layer {_TRAINED}",
    "prefix-tuning": f"trains keys and values before every layer's own {_TRAINED}",
    "low-rank-prompt": f"trains a small change of the prompt at the input {_TRAINED}",
    "dept": f"trains a prompt and a small change of the word embeddings {_TRAINED}",
    "bitfit": f"trains the model's biases {_TRAINED}",
    "lora": f"trains small additions to the model's matrices {_TRAINED}",
    "ia3": f"trains factors of the model's activations {_TRAINED}",
    "adapter": f"trains a small network behind every layer {_TRAINED}",
    "fine-tuning": f"trains all of the model's weights {_TRAINED}",
}


def manner(result: TuneResult) -> str:
    """What was tuned, how many numbers it is, and how they were found."""
    spec, numbers = result.spec, count(result.parameters, "number")
    if isinstance(spec, JobSpec):
        return _continuous(result, spec)
    if isinstance(spec, TextJob):
        return (
            "The prompt is made of words: an instruction, and the way in which texts and labels are worded. The search "
            f"“{spec.method_name}” tried out wordings, described by {numbers}, and looked at the scores alone."
        )
    learned = f" {numbers} {'was' if result.parameters == 1 else 'were'} learned." if result.parameters else ""
    return f"The method is the baseline “{spec.method_name}”, which {BASELINES[spec.method_name]}.{learned}"


def _continuous(result: TuneResult, spec: JobSpec) -> str:
    where = "in front of" if spec.prompt.place == "before" else "behind"
    layers = count(len(result.learned["z"]), "layer")
    kind = f"a few virtual words {where} each text, whose inner states are set" if spec.prompt.kind == "prefix" else ""
    kind = kind or f"numbers that are added to the inner states of the prompt's words {where} each text,"
    return (
        f"The prompt is continuous, not a sentence: {kind} at {layers} of the model. {result.parameters:,} numbers "
        f"decide it. The search “{spec.method_name}” found them by trying out candidates and looking at the model's "
        "answers alone, without gradients."
    )


def untouched(spec: BaseJob) -> str:
    """Whether the model's own weights are as they were."""
    if spec.method_name in (*OWN_WEIGHTS, "setfit"):
        return "The model's own weights were trained: serving the result needs a copy of them."
    return "The model's own weights were not touched: one copy of the model serves this result and any other."
