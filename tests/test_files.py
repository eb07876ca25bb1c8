"""Files that are held, and files that are whole or not there."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from bbtune.errors import BbtuneError, JournalError
from bbtune.files import locked, replaced

BUSY = JournalError("somebody is at it")


def test_a_held_file_is_refused_until_it_is_let_go(tmp_path):
    with (
        locked(tmp_path / "lock", BUSY),
        pytest.raises(JournalError, match="somebody"),
        locked(tmp_path / "lock", BUSY),
    ):
        pass
    with locked(tmp_path / "lock", BUSY):
        pass


def test_a_file_system_without_locks_is_not_taken_for_another_process(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(BbtuneError, match=r"l: cannot be locked \(No locks available\)"), locked(tmp_path / "l", BUSY):
        pass


def test_what_breaks_off_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "kept.json"
    with replaced(path) as part:
        part.write_text("old")
    with pytest.raises(ValueError, match="broken"), replaced(path) as part:  # noqa: PT012
        part.write_text("ne")
        raise ValueError("broken")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with replaced(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_what_a_killed_process_has_left_is_removed_after_a_time_and_others_are_let_be(tmp_path):
    path = tmp_path / "kept.json"
    old, young = tmp_path / "kept.json.1.part", tmp_path / "kept.json.2.part"
    for part in (old, young):
        part.write_text("half")
    os.utime(old, (0, 0))
    with replaced(path) as first, replaced(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert sorted(tmp_path.iterdir()) == [path, young]


def test_whatever_a_writer_does_others_may_read_what_they_may_read_of_other_files(tmp_path):
    (tmp_path / "plain").touch()
    with replaced(tmp_path / "kept") as part:
        part.write_text("kept")
        part.chmod(0o600)
    assert (tmp_path / "kept").stat().st_mode == (tmp_path / "plain").stat().st_mode
