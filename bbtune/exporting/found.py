"""The prompt that a run has found, on the model that it was found on."""

from __future__ import annotations

from bbtune.backbone.sources import ModelCard
from bbtune.backbone_spec import BackboneSpec
from bbtune.errors import BbtuneError, ExportError
from bbtune.result import TuneResult
from bbtune.spec import TextJob
from bbtune.tuned import Tuned, check_continuous, tuned


def found_prompt(result: TuneResult) -> Tuned:
    """The prompt in hidden states of a finished run.

    Raises:
        BbtuneError: if the run has learned something else, or its model cannot be read or has changed since.
    """
    try:
        check_continuous(result)
    except BbtuneError as error:
        other = "text" if isinstance(result.spec, TextJob) else "mlflow"
        raise ExportError(f"{error}; use --format {other}") from error
    found = tuned(result)
    if result.spec.backbone.api is None:
        check_model(found.model.card, result.spec.backbone, result.fingerprints["model"])
    return found


def check_model(card: ModelCard, backbone: BackboneSpec, fingerprint: str) -> None:
    """Refuse another model than the one that a prompt was found on: it would answer, and wrongly.

    Args:
        card: of the model that is here.
        backbone: of the job, which names it.
        fingerprint: SHA-256 (hex) of the files of the prompt's model.

    Raises:
        ExportError: if the files are others.
    """
    if card.files.folder is not None and card.fingerprint != fingerprint:
        raise ExportError(
            f"backbone.model: expected the files that the prompt was found on ({fingerprint[:12]}), "
            f"{backbone.model} has others ({card.fingerprint[:12]}); put those back, or run the job again"
        )
