"""What answers, from a finished run or from a prompt that was exported."""

from __future__ import annotations

from pathlib import Path

from bbtune.exporting.prompt_folder import is_prompt_folder, read_prompt
from bbtune.predictor import Predictor
from bbtune.storage.home import load_result
from bbtune.storage.place import Place


def open_predictor(place: Place) -> Predictor:
    """The model with what a run has learned.

    Args:
        place: of a run, or a folder of ``bbtune export --format safetensors``.

    Raises:
        BbtuneError: if there is none, or its model cannot be read.
    """
    if isinstance(place, Path) and is_prompt_folder(place):
        return Predictor(read_prompt(place))
    return Predictor(load_result(place))
