"""An export is in its place whole or not at all, and is read back only as what it was when it was written."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tiny_models import save_model

from bbtune import BbtuneError, api, export
from bbtune.exporting.formats import FORMATS
from bbtune.exporting.prompt_folder import read_prompt, write_prompt
from bbtune.result import TuneResult

FILES = {"README.md", "card.json", "prompt.safetensors", "spec.yaml"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_empty_folder_stays_the_one_that_it_was_also_behind_a_link_and_as_working_folder(
    make_run, tmp_path, monkeypatch
):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    inode = (tmp_path / "real").stat().st_ino
    export(make_run("llama"), "safetensors", tmp_path / "link")
    assert names(tmp_path / "real") == FILES
    assert (tmp_path / "real").stat().st_ino == inode
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export(make_run("llama"), "safetensors", ".")
    assert names(tmp_path / "here") == FILES


def test_folders_above_are_made_only_for_what_is_kept(make_run, tmp_path):
    with pytest.raises(BbtuneError, match="expected a prompt in words"):
        export(make_run("llama"), "text", tmp_path / "one" / "two")
    assert names(tmp_path) == set()
    export(make_run("llama"), "safetensors", tmp_path / "one" / "two")
    assert names(tmp_path / "one" / "two") == FILES


def test_a_file_and_what_is_below_one_are_no_folders(make_run, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BbtuneError, match="expected a new or empty folder, it is a file"):
        export(make_run("llama"), "safetensors", tmp_path / "file")
    with pytest.raises(BbtuneError, match=r"expected a folder that can be made .Not a directory.; give another --to"):
        export(make_run("llama"), "safetensors", tmp_path / "file" / "out")
    assert names(tmp_path) == {"file"}


def test_of_two_exports_into_one_folder_the_first_is_kept_whole(make_run, tmp_path, monkeypatch):
    def slow(result: TuneResult, part: Path) -> str:
        monkeypatch.setitem(FORMATS, "safetensors", write_prompt)
        export(make_run("llama"), "safetensors", tmp_path / "out")  # another process, meanwhile
        return write_prompt(result, part)

    monkeypatch.setitem(FORMATS, "safetensors", slow)
    with pytest.raises(BbtuneError, match=r"expected a folder that can be made .*not empty.*; give another --to"):
        export(make_run("llama"), "safetensors", tmp_path / "out")
    assert names(tmp_path) == {"out"}
    assert names(tmp_path / "out") == FILES


def test_an_export_is_as_private_as_its_owner_has_it(make_run, tmp_path):
    before = os.umask(0o077)
    try:
        export(make_run("llama"), "safetensors", tmp_path / "out")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o600}


def test_an_export_that_is_ended_leaves_nothing(make_run, tmp_path):
    command = [sys.executable, "-m", "bbtune", "export", str(make_run("encoder")), "--format", "mlflow", "--to", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not names(tmp_path) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert (process.returncode, said) == (130, "interrupted; nothing that was not whole is left\n")
    assert names(tmp_path) == set()


def test_texts_that_the_run_would_cut_are_not_compared_with_stock_libraries_which_cut_none(make_run, tmp_path):
    said = export(make_run("llama", backbone={"max_tokens": 16}), "peft", tmp_path / "out")
    compared = int(re.search(r"(\d+) texts read back", said[0]).group(1))
    assert 0 < compared < 50
    assert "at most 16 tokens" in (tmp_path / "out" / "README.md").read_text()


def test_the_code_beside_an_adapter_says_the_type_of_the_weights(make_run, tmp_path):
    export(make_run("llama", backbone={"dtype": "bfloat16"}), "peft", tmp_path / "out")
    assert "dtype=torch.bfloat16" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda card: card["task"]["labels"].append("other"), "3 labels, words of 2"),
        (lambda card: card["prompt"].pop("sets"), "cannot be read .KeyError"),
        (lambda card: card["prompt"]["token_ids"].pop(), "spec.yaml has changed: export the run again"),
        (lambda card: card["model"].update(fingerprint="0" * 64), "expected the files that the prompt was found on"),
    ],
)
def test_a_card_that_does_not_fit_is_told(make_run, tmp_path, edit, words):
    export(make_run("llama"), "safetensors", tmp_path / "out")
    card: dict[str, Any] = json.loads((tmp_path / "out" / "card.json").read_text())
    edit(card)
    (tmp_path / "out" / "card.json").write_text(json.dumps(card))
    with pytest.raises(BbtuneError, match=words):
        read_prompt(tmp_path / "out")


def test_layers_that_the_model_lacks_are_told(make_run, tmp_path):
    export(make_run("llama"), "safetensors", tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "prompt.safetensors")
    save_file({**tensors, "layer.9": tensors["layer.0"].clone()}, tmp_path / "out" / "prompt.safetensors")
    with pytest.raises(BbtuneError, match="for layers below 3"):
        read_prompt(tmp_path / "out")


def test_another_model_in_the_place_of_the_tuned_one_is_refused(make_job, tmp_path):
    save_model("llama", tmp_path / "model")
    api.run(
        make_job("llama", backbone={"model": f"path:{tmp_path / 'model'}"}, budget={"evaluations": 5}), tmp_path / "r"
    )
    export(tmp_path / "r", "safetensors", tmp_path / "out")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    save_file(
        {name: of + 1 for name, of in weights.items()}, tmp_path / "model" / "model.safetensors", {"format": "pt"}
    )
    for form in ("safetensors", "peft", "mlflow"):
        with pytest.raises(BbtuneError, match="expected the files that the prompt was found on"):
            export(tmp_path / "r", form, tmp_path / "again")
    with pytest.raises(BbtuneError, match="expected the files that the prompt was found on"):
        read_prompt(tmp_path / "out")


def test_a_prompt_that_says_the_name_of_a_field_is_no_file_in_which_texts_are_put(tiny_models, tiny_task, tmp_path):
    job = {
        "name": "braces",
        "task": {"source": f"folder:{tiny_task}"},
        "backbone": {"model": f"path:{tiny_models['llama']}"},
        "prompt": {"kind": "text", "instructions": ["Read {text}.", "The {text} is:"]},
        "method": {"search": "random", "population": 2},
        "budget": {"evaluations": 4},
        "tracking": {"enabled": False},
    }
    api.run(job, tmp_path / "run")
    with pytest.raises(BbtuneError, match="use --format mlflow"):
        export(tmp_path / "run", "text", tmp_path / "out")
    with pytest.raises(BbtuneError, match="got a prompt in words; use --format text"):
        export(tmp_path / "run", "peft", tmp_path / "out")
    assert TuneResult.load(tmp_path / "run").reading.preamble.count("{text}") == 1
