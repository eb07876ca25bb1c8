"""A journal at an address: what is there after every line, after a crash, and with two writers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbtune.errors import JournalError
from bbtune.journal import FORMAT, Journal
from bbtune.storage.remote import Remote
from bbtune.storage.segments import Segments


@pytest.fixture(params=["memory", "file"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    """An empty place of a run."""
    name = uuid.uuid4().hex
    return Remote(f"memory://{name}" if request.param == "memory" else f"file://{tmp_path}/{name}")


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Lines of a long journal."""
    path = tmp_path_factory.mktemp("long") / "journal.jsonl"
    with Journal(path) as journal:
        for number in range(250):
            journal.append({"event": "start", "format": FORMAT, "number": number})
    return path.read_bytes().splitlines(keepends=True)


def opened(remote: Remote) -> Segments:
    """As a session opens it."""
    segments = Segments(remote, remote.names())
    segments.mend()
    return segments


def written(remote: Remote, lines: list[bytes]) -> Segments:
    segments = opened(remote)
    for line in lines:
        segments.append(line)
    return segments


def there(remote: Remote) -> bytes:
    return Segments(remote, remote.names()).text


def test_every_line_is_there_when_append_returns(remote: Remote, lines: list[bytes]) -> None:
    segments = opened(remote)
    for number, line in enumerate(lines[:5], 1):
        segments.append(line)
        assert there(remote) == b"".join(lines[:number])


@pytest.mark.parametrize(("count", "objects"), [(99, 99), (100, 1), (101, 2), (250, 52)])
def test_a_long_journal_does_not_leave_an_object_for_every_line(
    remote: Remote, lines: list[bytes], count: int, objects: int
) -> None:
    written(remote, lines[:count])
    assert len(remote.names()) == objects
    assert there(remote) == b"".join(lines[:count])


def test_what_a_crash_kept_from_being_folded_is_folded_by_the_next_session(remote: Remote, lines: list[bytes]) -> None:
    written(remote, lines[:99])
    remote.create("journal/00000099.jsonl", lines[99])  # and gone
    assert opened(remote).text == b"".join(lines[:100])
    assert remote.names() == {"journal/00000000-00000099.jsonl"}


def test_lines_that_a_crash_left_beside_their_block_are_removed(remote: Remote, lines: list[bytes]) -> None:
    written(remote, lines[:102])
    remote.create("journal/00000007.jsonl", lines[7])
    segments = opened(remote)
    assert segments.text == b"".join(lines[:102])
    assert len(remote.names()) == 3
    segments.append(lines[102])
    assert there(remote) == b"".join(lines[:103])


def test_a_last_segment_torn_at_any_byte_is_dropped_and_its_number_is_free(remote: Remote, lines: list[bytes]) -> None:
    written(remote, lines[:3])
    for length in range(len(lines[3])):
        remote.create("journal/00000003.jsonl", lines[3][:length])
        segments = opened(remote)
        assert segments.text == b"".join(lines[:3])
    segments.append(lines[3])
    assert there(remote) == b"".join(lines[:4])


def test_a_block_torn_while_it_was_folded_is_made_again_from_its_lines(remote: Remote, lines: list[bytes]) -> None:
    written(remote, lines[:99])
    remote.create("journal/00000099.jsonl", lines[99])
    remote.create("journal/00000000-00000099.jsonl", b"".join(lines[:40])[:-5])
    assert opened(remote).text == b"".join(lines[:100])
    assert remote.names() == {"journal/00000000-00000099.jsonl"}


def test_a_damaged_segment_before_the_last_is_an_error_that_names_it(remote: Remote, lines: list[bytes]) -> None:
    written(remote, lines[:4])
    remote.remove(["journal/00000001.jsonl"])
    remote.create("journal/00000001.jsonl", lines[1].replace(b'"number": 1', b'"number": 7'))
    with pytest.raises(JournalError, match=r"/journal/00000001.jsonl: damaged segment; restore it from a copy, or"):
        opened(remote)


@pytest.mark.parametrize(("gone", "line", "next_line"), [(1, 2, 3), (0, 1, 2)])
def test_a_missing_segment_is_an_error_that_names_the_line(
    remote: Remote, lines: list[bytes], gone: int, line: int, next_line: int
) -> None:
    written(remote, lines[:4])
    remote.remove([f"journal/{gone:08d}.jsonl"])
    with pytest.raises(JournalError, match=f"line {line} of the journal is missing, there is line {next_line}; "):
        opened(remote)


def test_of_two_writers_the_one_that_is_behind_is_told_and_ends(remote: Remote, lines: list[bytes]) -> None:
    first = written(remote, lines[:2])
    second = opened(remote)
    second.append(lines[2])
    with pytest.raises(JournalError, match="another process goes on with this run and has written line 3 of its"):
        first.append(lines[2].replace(b"number", b"others"))
    second.append(lines[3])
    assert there(remote) == b"".join(lines[:4])


def test_a_writer_that_slept_while_others_went_on_cannot_harm_them(remote: Remote, lines: list[bytes]) -> None:
    sleeper = written(remote, lines[:12])
    other = opened(remote)
    for line in lines[12:210]:
        other.append(line)

    def wake() -> None:
        for line in lines[12:]:
            sleeper.append(line.replace(b"number", b"others"))

    with pytest.raises(JournalError, match="another process goes on with this run"):
        wake()
    other.append(lines[210])
    assert there(remote) == b"".join(lines[:211])


def test_an_answer_that_was_lost_on_its_way_is_no_second_writer(remote: Remote, lines: list[bytes]) -> None:
    segments = written(remote, lines[:1])
    remote.create("journal/00000001.jsonl", lines[1])  # the client sends it a second time
    segments.append(lines[1])
    assert there(remote) == b"".join(lines[:2])


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(1, 120), min_size=1, max_size=4))
def test_sessions_of_any_length_make_one_journal(cuts: list[int], lines: list[bytes]) -> None:
    remote, done = Remote(f"memory://{uuid.uuid4().hex}"), 0
    for cut in cuts:
        written(remote, lines[done : done + cut])
        done = min(done + cut, len(lines))
        assert there(remote) == b"".join(lines[:done])
        assert len(remote.names()) <= done // 100 + 99


# A store that is away.


class Away:
    """A file system that fails from a moment on, under a driver's own error."""

    def __init__(self, files: object) -> None:
        self._files = files
        self.gone = False

    def __getattr__(self, name: str) -> object:
        if self.gone:
            raise OSError("cannot connect to http://user:secret@host/x")
        return getattr(self._files, name)


@pytest.fixture
def away(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> Iterator[Away]:
    files = Away(remote._files)
    monkeypatch.setattr(remote, "_files", files)
    return files


def test_a_store_that_goes_away_is_told_without_its_credentials(remote: Remote, lines: list[bytes], away: Away) -> None:
    segments = written(remote, lines[:2])
    away.gone = True
    with pytest.raises(JournalError, match=r"cannot be read or written \(OSError: cannot connect") as caught:
        segments.append(lines[2])
    assert "secret" not in str(caught.value)
    assert "what was written is kept there" in str(caught.value)
    away.gone = False
    assert there(remote) == b"".join(lines[:2])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gs://bucket/run", "expected a driver for gs://, found none; pip install gcsfs"),
        ("nowhere://run", "expected an address that fsspec knows"),
    ],
)
def test_an_address_that_cannot_be_read_says_what_to_do(url: str, said: str) -> None:
    with pytest.raises(JournalError, match=said):
        Remote(url)
