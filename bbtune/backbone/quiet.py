"""Silence library chatter: progress bars, advice and telemetry."""

from __future__ import annotations

import os
import warnings

_SWITCHES = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}


def quiet_transformers() -> None:
    """Set the switches that the libraries read at import, then those that they only have as functions."""
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*The given NumPy array is not writable.*")
    warnings.filterwarnings("ignore", message=".*torch_dtype.*")
