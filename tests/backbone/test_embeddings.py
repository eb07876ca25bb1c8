"""Input embeddings are read alone, and what cannot be tuned through them is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import save_file
from tiny_models import save_model

from bbtune.backbone.embeddings import read_embeddings, wire_faults
from bbtune.backbone.sources import ModelFiles, read_model_card
from bbtune.errors import BackboneError

AT_THE_INPUT = {"kind": "offset", "layers": "input"}


def test_embeddings_are_found_in_one_of_several_files(make_job, tiny_models, tmp_path):
    folder = tmp_path / "parts"
    whole = read_embeddings(read_model_card(make_job("gpt2").backbone), make_job("gpt2").backbone)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_models["gpt2"])
    model.save_pretrained(folder, max_shard_size="60KB")
    transformers.AutoTokenizer.from_pretrained(tiny_models["gpt2"]).save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 1
    spec = make_job("gpt2", backbone={"model": f"path:{folder}"}).backbone
    assert torch.equal(read_embeddings(read_model_card(spec), spec).weight, whole.weight)


def test_of_a_model_of_the_hub_the_file_with_the_embeddings_alone_is_fetched(make_job, tiny_models, monkeypatch):
    spec = make_job("llama").backbone
    here = read_model_card(spec)
    there = replace(here, files=ModelFiles("someone/llama", revision="main"))
    with pytest.raises(BackboneError, match=r"expected model.safetensors, or its index"):  # there is no network
        read_embeddings(there, spec)
    asked = []

    def fetch(name, file, revision):
        asked.append((name, file, revision))
        if (path := tiny_models["llama"] / file).is_file():
            return str(path)
        raise EntryNotFoundError(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    assert torch.equal(read_embeddings(there, spec).weight, read_embeddings(here, spec).weight)
    files = ("model.safetensors.index.json", "model.safetensors")
    assert asked == [("someone/llama", file, "main") for file in files]


def test_files_without_embeddings_are_told_in_words(make_job, tmp_path):
    folder = save_model("llama", tmp_path / "llama")
    spec = make_job("llama", backbone={"model": f"path:{folder}"}).backbone
    card = read_model_card(spec)
    for written, words in [
        (
            lambda: save_file({"other": torch.ones(2)}, folder / "model.safetensors"),
            r"expected one tensor .* found \[\]",
        ),
        (lambda: save_file({"wte.weight": torch.ones(2, 5)}, folder / "model.safetensors"), r"width 32, got \(2, 5\)"),
        (lambda: (folder / "model.safetensors").write_bytes(b"cut"), "cannot be read"),
        (lambda: (folder / "model.safetensors").unlink(), "expected model.safetensors, or its index"),
    ]:
        written()
        with pytest.raises(BackboneError, match=words):
            read_embeddings(card, spec)


def test_what_cannot_be_tuned_behind_an_api_is_told_all_at_once(make_job, tiny_models):
    api = {"base_url": "http://127.0.0.1:1/v1", "model": "tiny", "style": "chat", "read": "generated"}
    good = make_job("llama", prompt=AT_THE_INPUT, backbone={"api": {**api, "style": "auto", "read": "auto"}})
    assert wire_faults(good, read_model_card(good.backbone)) == []
    assert wire_faults(good.model_copy(update={"prompt": good.prompt.model_copy(update={"layers": [0]})}), None) == []
    bad = make_job("bert", prompt={"kind": "prefix"}, evaluators={"count": 2}, backbone={"api": api})
    paths = [fault.path for fault in wire_faults(bad, read_model_card(bad.backbone))]
    assert paths == [
        "prompt.kind",
        "prompt.layers",
        "evaluators.count",
        "backbone.api.style",
        "backbone.api.read",
        "backbone.model",
    ]
    serve = make_job("llama", prompt=AT_THE_INPUT, backbone={"api": {"serve": "cache:smollm2-135m"}})
    assert [fault.path for fault in wire_faults(serve, None)] == ["backbone.api.serve"]
