"""Files that are held, and files that are whole or not there."""

from __future__ import annotations

import errno
import fcntl

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
