"""The runtime environment of a job, which others can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bbtune.errors import BbtuneError, JobError
from bbtune.submission.environment import runtime_env


def made(raw: Any, folder: Path) -> dict[str, Any]:
    path = folder / "environment.yaml"
    path.write_text(yaml.safe_dump(raw))
    return runtime_env(path, folder)


def test_without_a_file_a_job_has_its_working_folder_and_time_to_end(tmp_path):
    assert runtime_env(None, tmp_path) == {
        "working_dir": str(tmp_path),
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"},
    }


def test_a_file_gives_packages_and_variables(tmp_path):
    raw = {"pip": ["s3fs"], "env_vars": {"AWS_REGION": "eu-west-1", "RAY_JOB_STOP_WAIT_TIME_S": "5"}}
    found = made(raw, tmp_path)
    assert found == raw | {"working_dir": str(tmp_path)}


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"OPENAI_API_KEY": "x"}, "OPENAI_API_KEY"),
        ({"HF_TOKEN": "x"}, "HF_TOKEN"),
        ({"MLFLOW_TRACKING_PASSWORD": "x"}, "MLFLOW_TRACKING_PASSWORD"),
        ({"AWS_SECRET_ACCESS_KEY": "x"}, "AWS_SECRET_ACCESS_KEY"),
        ({"DB_PASS": "hush"}, "DB_PASS"),
        ({"PLAIN": "sk-abcdefghijk"}, "PLAIN"),
        ({"MLFLOW_TRACKING_URI": "http://me:hush@host:5000"}, "MLFLOW_TRACKING_URI"),
        ({"STORE": "AKIAIOSFODNN7EXAMPLE"}, "STORE"),
    ],
)
def test_what_looks_like_a_credential_is_refused_and_not_repeated(variables, name, tmp_path):
    with pytest.raises(JobError, match=f"env_vars.{name}: looks like a credential; whoever sees the cluster") as caught:
        made({"env_vars": variables}, tmp_path)
    assert "hush" not in str(caught.value)
    assert "abcdefg" not in str(caught.value)


def test_credentials_are_found_in_other_parts_too(tmp_path):
    with pytest.raises(JobError, match=r"pip\[1\]: holds a credential; .* set it in the environment of the cluster"):
        made({"pip": ["s3fs", "--index-url=https://me:hush@host/simple"]}, tmp_path)


def test_all_faults_are_told_together(tmp_path):
    with pytest.raises(JobError) as caught:
        made({"working_dir": ".", "pips": [], "env_vars": {"N": 1}}, tmp_path)
    said = str(caught.value)
    assert "3 faults in the environment" in said
    assert "working_dir: expected none, the job and its data are the working folder" in said
    assert 'pips: unknown key; did you mean "pip"?' in said
    assert "env_vars.N: expected text, got 1; put it in quotes" in said


def test_a_file_that_is_not_there_is_told_by_its_option(tmp_path):
    with pytest.raises(BbtuneError, match=f"^--runtime-env: expected a YAML file, found none at {tmp_path}/none.yaml"):
        runtime_env(tmp_path / "none.yaml", tmp_path)


@pytest.mark.parametrize("text", ["[1]", "pip: [", "env_vars: 3"])
def test_a_file_of_another_kind_is_told(text, tmp_path):
    (tmp_path / "environment.yaml").write_text(text)
    with pytest.raises(JobError):
        runtime_env(tmp_path / "environment.yaml", tmp_path)
