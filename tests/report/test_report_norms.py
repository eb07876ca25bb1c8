"""Sizes of prompts by layer, against the formula written out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bbtune.errors import BackboneError
from bbtune.journal import read_journal
from bbtune.report.norms import searched_norms, trained_norms
from bbtune.result import TuneResult
from bbtune.seeds import generator


def test_a_norm_is_the_mean_length_of_a_tokens_part_of_the_prompt(finished: Path) -> None:
    result = TuneResult.load(finished)
    norms = searched_norms(result)
    assert norms.layers == (0, 2)
    tokens, width, dim = 4, 32, 6
    stds = np.array(next(r for r in read_journal(finished / "journal.jsonl") if r["event"] == "calibration")["stds"])
    for i, layer in enumerate(norms.layers):
        entries = generator(result.spec.seed, "projection", layer).standard_normal((tokens * width, dim), np.float32)
        prompt = entries @ (result.learned["scales"][i] * result.learned["z"][i]) / np.sqrt(dim)
        size = np.linalg.norm(prompt.reshape(tokens, width), axis=1).mean()
        assert norms.sizes[i] == pytest.approx(size, rel=1e-5)
    assert norms.natural == pytest.approx(stds * np.sqrt(width), rel=1e-6)
    assert norms.doubt == ""


def test_a_model_that_lies_elsewhere_is_doubted_and_one_with_other_layers_refused(finished: Path, copy) -> None:
    result = TuneResult.load(finished)
    moved = TuneResult.load(copy("run", fingerprints={**result.fingerprints, "model": "f" * 64}))
    assert "lie elsewhere" in searched_norms(moved).doubt
    prompt = result.spec.prompt.model_copy(update={"layers": "all"})
    with pytest.raises(BackboneError, match="has 3 layers to tune, the run tuned 2"):
        searched_norms(TuneResult.load(copy("all", spec=result.spec.model_copy(update={"prompt": prompt}))))


def test_what_belongs_to_no_layer_has_no_norms(finished: Path) -> None:
    assert trained_norms(TuneResult.load(finished)) is None
