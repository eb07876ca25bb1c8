"""The job and suite files that ship are sound; what they find is in test_jobs.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bbtune import api
from bbtune.backbone.fetch import cached_model
from bbtune.errors import BackboneError
from bbtune.jobfile import load_job
from bbtune.methods import BASELINES
from bbtune.spec import BaselineJob
from bbtune.suite import is_suite, read_suite

ROOT = Path(__file__).parents[1]
OF_CLUSTERS = {"kuberay.yaml", "ray_up.yaml"}  # test_cluster_files.py
FILES = sorted(path for path in (ROOT / "jobs").rglob("*.yaml") if path.name not in OF_CLUSTERS)
JOBS = [path for path in FILES if not is_suite(path)]
SUITES = [path for path in FILES if is_suite(path)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "jobs").as_posix()


def test_every_baseline_has_a_job_file_of_its_name() -> None:
    specs = [load_job(path) for path in (ROOT / "jobs" / "baselines").glob("*.yaml")]
    assert sorted(spec.method_name for spec in specs) == sorted(BASELINES)
    assert all(isinstance(spec, BaselineJob) and spec.name == spec.method_name for spec in specs)


@pytest.mark.parametrize("path", JOBS, ids=name_of)
def test_a_job_file_has_no_faults(path: Path) -> None:
    text = path.read_text()
    if "cache:" in text:
        try:
            cached_model("smollm2-135m")
        except BackboneError:
            pytest.skip("smollm2-135m is not in the cache; bbtune models get smollm2-135m")
    if "BBTUNE_DATA" in text and "BBTUNE_DATA" not in os.environ:
        pytest.skip("BBTUNE_DATA names no folder of task folders")
    assert api.validate(path) == []


@pytest.mark.parametrize("path", SUITES, ids=name_of)
def test_a_suite_file_has_no_faults_that_its_text_can_show(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BBTUNE_DATA", str(tmp_path))
    study = read_suite(path, [], tmp_path / "out")
    assert len(study.groups) >= 8
    assert all(member.spec.tracking.experiment == study.name for member in study.members)
