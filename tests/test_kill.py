"""Real processes, really killed: resume gives the result of the run that was not."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from records import lines

from bbtune.spec import JobSpec

# Runs that are compared have the same matrix product; each would measure for itself which is the fastest.
PROGRAM = """
import bbtune.prompt_search
from bbtune.backbone.products import TORCH
from bbtune.cli import main

bbtune.prompt_search.fastest_product = lambda *_: TORCH
main()
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *arguments]


def final(folder: Path) -> dict[str, Any]:
    result = json.loads((folder / "result.json").read_text())
    del result["cost"]["seconds"], result["stopped_ms"], result["peak_memory_mib"]
    for point in result["curve"]:
        del point["seconds"]
    return result


def kill_when(process: subprocess.Popen[bytes], folder: Path, count: int, pause_s: float) -> bool:
    """Kill -9 once the journal has ``count`` lines and a moment has passed; False if the run ended before."""
    deadline = time.monotonic() + 120
    while lines(folder) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(pause_s)
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.wait()
    return True


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def write_job(spec: JobSpec, path: Path) -> str:
    path.write_text(spec.to_yaml())
    return str(path)


@pytest.mark.parametrize(("family", "kills"), [("bert", 1), pytest.param("gpt2", 5, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_to_the_result_of_an_uninterrupted_one(family, kills, make_job, tmp_path):
    job = write_job(make_job(family, budget={"evaluations": 400}), tmp_path / "job.yaml")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(command("run", job, "--out", str(whole)), check=True, capture_output=True)
    total = lines(whole)
    rng = random.Random(5)
    moments = sorted(rng.sample(range(1, total // 2), kills))  # later ones could come after the end
    for number, moment in enumerate(moments):
        process = start("run", job, "--out", str(cut)) if number == 0 else start("resume", str(cut))
        assert kill_when(process, cut, moment, rng.random() * 0.01), f"run ended before line {moment} of {total}"
    assert not (cut / "result.json").exists()
    done = subprocess.run(command("resume", str(cut)), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert final(cut) == final(whole)


@pytest.mark.parametrize(
    ("sent", "count"),
    [
        (signal.SIGTERM, 0),
        (signal.SIGINT, 0),
        pytest.param(signal.SIGTERM, 1, marks=[pytest.mark.ray, pytest.mark.slow]),
    ],
)
def test_an_interrupted_run_says_how_to_go_on(sent, count, make_job, tmp_path):
    spec = make_job("bert", budget={"evaluations": 100_000}, evaluators={"count": count})
    job = write_job(spec, tmp_path / "job.yaml")
    # A shell starts "&" jobs with SIGINT ignored; SIGTERM must end those, too.
    at_start = signal.SIG_IGN if sent == signal.SIGTERM else signal.default_int_handler
    kept = signal.signal(signal.SIGINT, at_start)
    try:
        arguments = command("run", job, "--out", str(tmp_path / "run"))
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, kept)
    try:
        while lines(tmp_path / "run") < 5 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"go on with: bbtune resume {tmp_path / 'run'}" in errors
    assert "Traceback" not in errors


def test_two_processes_cannot_run_in_one_folder(make_job, tmp_path):
    job = write_job(make_job("bert", budget={"evaluations": 100_000}), tmp_path / "job.yaml")
    process = start("run", job, "--out", str(tmp_path / "run"))
    try:
        while lines(tmp_path / "run") < 3 and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None
        second = subprocess.run(
            command("resume", str(tmp_path / "run")), check=False, capture_output=True, text=True, timeout=200
        )
        assert second.returncode == 1
        assert "another process is running this job" in second.stderr
    finally:
        process.kill()
        process.wait()
