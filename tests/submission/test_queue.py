"""Ids of jobs, and how jobs are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from bbtune.errors import BbtuneError
from bbtune.submission.listing import table
from bbtune.submission.ray_jobs import JobState
from bbtune.submission.submit import free_id


def job(id: str, status: str, work: str = "tiny-01234567", message: str = "") -> JobState:
    return JobState(id, status, message, 1_700_000_000_000, None, {"bbtune.work": work, "bbtune.folder": work})


def test_the_first_attempt_has_the_name_of_the_work_and_later_ones_a_number():
    known: list[JobState] = []
    for expected in ("tiny-01234567", "tiny-01234567-2", "tiny-01234567-3"):
        assert free_id("tiny-01234567", known, None) == expected
        known.append(job(expected, "FAILED"))
    assert free_id("other-01234567", known, None) == "other-01234567"


@pytest.mark.parametrize(("status", "said"), [("PENDING", "waits in the queue"), ("RUNNING", "is running")])
def test_the_same_work_is_not_queued_twice(status, said):
    known = [job("tiny-01234567", "STOPPED"), job("mine", status)]
    with pytest.raises(BbtuneError, match=f"the same job {said} as mine; see it with bbtune logs mine --follow, or"):
        free_id("tiny-01234567", known, None)


def test_an_id_that_was_asked_for_is_taken_once():
    known = [job("mine", "SUCCEEDED")]
    assert free_id("tiny-01234567", known, "yours") == "yours"
    with pytest.raises(BbtuneError, match="--id: expected one that no job has had, mine is taken"):
        free_id("tiny-01234567", known, "mine")


@pytest.mark.parametrize("asked", ["", "my job", "../mine", "a/b", "-x"])
def test_an_id_that_cannot_be_part_of_a_path_is_told(asked):
    with pytest.raises(BbtuneError, match="--id: expected letters, digits, dots, dashes and underscores, got"):
        free_id("tiny-01234567", [], asked)


def test_jobs_are_a_table_with_the_last_line_of_what_they_say():
    failed = "Job entrypoint command failed with exit code 2, last logs:\nerror: 1 fault\n  storage: missing\n"
    lines = table([job("a-1", "PENDING"), job("b-22", "FAILED", message=failed)], None)
    assert lines[0].split() == ["ID", "STATUS", "SINCE", "MESSAGE"]
    assert lines[1].split()[:2] == ["a-1", "queued"]
    assert lines[2].endswith("storage: missing")
    assert lines[1].index("queued") == lines[2].index("failed") == lines[0].index("STATUS")
    assert table([], None) == ["no jobs"]


def test_runs_of_a_head_that_has_forgotten_its_jobs_are_listed_from_the_storage(tmp_path: Path):
    for name, files in {
        "tiny-01234567": ["spec.yaml", "journal.jsonl", "result.json"],
        "old-11111111": ["spec.yaml", "journal.jsonl", "result.json"],
        "cut-22222222": ["spec.yaml", "journal.jsonl"],
        "both": ["study.json"],
        "else": ["photo.jpg"],
    }.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    lines = table([job("tiny-01234567-2", "RUNNING")], tmp_path)
    assert lines[3] == f"in {tmp_path}, of earlier jobs:"
    assert [line.split()[:2] for line in lines[4:]] == [
        ["both", "a"],
        ["cut-22222222", "unfinished"],
        ["old-11111111", "finished"],
    ]
    assert table([], tmp_path / "none") == ["no jobs"]
