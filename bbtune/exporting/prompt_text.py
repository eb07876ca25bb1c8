"""A prompt in words as a text file."""

from __future__ import annotations

from pathlib import Path

from bbtune.errors import ExportError
from bbtune.exporting.card import card_of, write_card
from bbtune.exporting.probes import probes
from bbtune.prompts.text import CHARACTERS, TextPrompt
from bbtune.result import TuneResult
from bbtune.spec import JobSpec, TextJob
from bbtune.task.template import FIELDS, Template

PROMPT = "prompt.txt"
_USAGE = """\
`{file}` is the whole prompt; put a text in the place of {fields} and let the model go on.{answers}"""


def write_text(result: TuneResult, folder: Path) -> str:
    """Write the prompt that a search in words has found, and read it back.

    Raises:
        ExportError: if the run has found numbers, or the file gives another prompt.
    """
    spec, reading = result.spec, result.reading
    if not isinstance(spec, TextJob):
        what = "a prompt in hidden states" if isinstance(spec, JobSpec) else f"what {spec.method_name} has learned"
        raise ExportError(
            f"expected a prompt in words (prompt.kind: text), got {what}, which no words stand for; "
            "use --format safetensors, or --format mlflow"
        )
    template = Template(reading.template, reading.kind)
    prompt = TextPrompt(reading.preamble, template, reading.label_words)
    shown = {name: f"{{{name}}}" for name in FIELDS[reading.kind]}
    (folder / PROMPT).write_text(reading.preamble + template.render(shown, None), encoding="utf-8", newline="")
    characters = CHARACTERS * spec.backbone.max_tokens
    text = (folder / PROMPT).read_bytes().decode("utf-8")
    for example in probes(reading.kind):
        expected, got = prompt.render(example, characters), _filled(text, example.fields())
        if expected != got:  # such as where the prompt itself says {text}
            raise ExportError(
                f"expected {PROMPT}, with texts in the place of {' and '.join(shown.values())}, to give the prompts of "
                f"the run, for {example} it gives {got!r}; use --format mlflow"
            )
    answers = f" It answers with one of the label words: {_listed(result)}." if reading.label_words else ""
    fields = " and ".join(f"`{field}`" for field in shown.values())
    write_card(folder, card_of(result), _USAGE.format(file=PROMPT, fields=fields, answers=answers))
    return f"{len(text)} characters; read back, the prompts of {len(probes(reading.kind))} texts are the same"


def _filled(text: str, fields: dict[str, str]) -> str:
    """The file with the texts in it, as its user would put them there."""
    for name, value in fields.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _listed(result: TuneResult) -> str:
    return ", ".join(words[0] for words in result.reading.label_words)
