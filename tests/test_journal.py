"""What is on disk after a crash, and what a run becomes when it goes on from there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from label_logits import Problem, make_problem

from bbtune.cost import Sizes
from bbtune.errors import DeadlineReached, JournalError
from bbtune.evaluation.base import Scores, Split
from bbtune.journal import FORMAT, EndOfRecord, Journal, Record, Recorded, array_digest, read_journal
from bbtune.loop import Generation, Ledger, Limits, Stopped, run_search
from bbtune.objective import Subset
from bbtune.optimizers import make_optimizer
from bbtune.optimizers.base import Array
from bbtune.optimizers.restarts import Restarts
from bbtune.optimizers.structure import Structure
from bbtune.schedule import RecentGain, RoundRobin
from bbtune.search import BlockSearch, Improves
from bbtune.seeds import generator

START: Record = {"event": "start", "format": FORMAT}
RECORDS: list[Record] = [
    START,
    {"event": "scores", "split": "train", "loss": [0.1, 1e-300, 1.5], "word": "größer\r\n", "examples": 1111111},
    {"event": "calibration", "stds": [1.0, 0.30000000000000004]},
    {"event": "stop", "reason": "sweeps"},
]
LAYERS, DIM, POPULATION, TRAIN, DEV = 2, 3, 4, 4, 3
SIZES = Sizes(TRAIN, DEV, (0, 1), 4)
PROBLEM = make_problem(LAYERS * DIM, examples=TRAIN, ease=0.0)


@dataclass
class Evaluator:
    """Deterministic scores; after ``calls`` calls the seconds are up, or the process is gone."""

    calls: int = 1_000
    end: type[Exception] = DeadlineReached
    problem: Problem | None = None
    asked: int = 0
    firsts: list[tuple[Split, int]] = field(default_factory=list)
    deadlines: set[float | None] = field(default_factory=set)

    def evaluate(
        self, z: Array, split: Split, deadline: float | None = None, first: int = 0, subset: Subset | None = None
    ) -> Scores:
        if self.asked == self.calls:
            raise self.end("cut")
        self.asked += 1
        self.firsts.append((split, first))
        self.deadlines.add(deadline)
        target = 0.5 if split == "train" else 0.4
        loss, logits = np.array([((one - target) ** 2).sum() for one in z]) / 3, None
        if self.problem is not None and split == "train":
            told = self.problem.scores(z.reshape(len(z), -1), subset)
            loss, logits = told.loss, told.logits
        texts = len(subset) if subset else TRAIN if split == "train" else DEV
        forwards = SIZES.layer_forwards(texts, len(z), first)
        return Scores(loss, np.floor(4 / (1 + loss)) / 4, logits, len(z) * texts, forwards)


class ProcessGone(Exception):
    """Stands for kill -9 between two records."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """For tests of hypothesis, which clean up after each example themselves."""
    with TemporaryDirectory() as name:
        yield Path(name)


def write(path: Path, records: list[Record]) -> list[bytes]:
    """The lines of a new journal with these records."""
    path.unlink(missing_ok=True)
    with Journal(path) as journal:
        for record in records:
            journal.append(record)
    return path.read_bytes().splitlines(keepends=True)


Make = Callable[[], BlockSearch]


def make_search(seed: int = 0, visit: int = 1) -> BlockSearch:
    def make(block: int, size: int) -> Any:
        return make_optimizer("cma-diagonal", size, POPULATION, 0.3, generator(seed, "optimizer", block))

    return BlockSearch([[layer] for layer in range(LAYERS)], DIM, make, Improves(), RoundRobin(LAYERS, visit))


def by_gauss_newton(restarts: int = 0, examples: int | None = None) -> BlockSearch:
    def anew(restart: int, origin: Array | None = None) -> Any:
        structure = Structure(PROBLEM.objective, (4, 3), probe_examples=examples, origin=origin)
        return make_optimizer("gauss-newton", LAYERS * DIM, 5, 0.3, generator(0, restart), structure)

    def make(*_: int) -> Any:
        return Restarts(anew, restarts) if restarts else anew(0)

    return BlockSearch([list(range(LAYERS))], DIM, make, Improves())


def by_recent_gain() -> BlockSearch:
    def make(block: int, size: int) -> Any:
        return make_optimizer("one-plus-lambda", size, POPULATION, 0.3, generator(0, block))

    schedule = RecentGain(LAYERS, 1, generator(0, "schedule"))
    return BlockSearch([[layer] for layer in range(LAYERS)], DIM, make, Improves(), schedule)


def drive(path: Path, evaluator: Evaluator, limits: Limits, make: Make = make_search) -> Stopped:
    """Run or resume to the end, as the package does."""
    stopped, search = None, make()
    with Journal(path) as journal:
        if not journal.records:
            journal.append(START)
        recorded = Recorded(evaluator, list(journal.records), journal, search.uses_logits)
        for event in run_search(search, recorded, Ledger(limits, SIZES, recorded.began)):
            if isinstance(event, Stopped):
                stopped = event
        assert stopped is not None
        if journal.find("stop") is None:
            journal.append({"event": "stop", "reason": stopped.reason})
    return stopped


def replay(records: list[Record], limits: Limits, make: Make = make_search) -> list[Generation | Stopped]:
    """The events of a run from its records alone."""
    return list(run_search(make(), Recorded(None, records), Ledger(limits, SIZES)))


def timeless(records: list[Record]) -> list[Record]:
    return [{k: v for k, v in record.items() if k not in {"elapsed_s", "unix_ms"}} for record in records]


# Lines.


def test_records_are_read_back_in_order_and_found_by_their_event(path: Path) -> None:
    write(path, RECORDS)
    assert read_journal(path) == RECORDS
    with Journal(path) as journal:
        assert journal.records == RECORDS
        assert journal.find("calibration") == RECORDS[2]
        assert journal.find("nothing") is None
        journal.append({"event": "more"})
    assert read_journal(path) == [*RECORDS, {"event": "more"}]


def test_a_record_is_on_the_disk_when_append_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("bbtune.journal.os.fsync", lambda _: synced.append(path.stat().st_size))
    with Journal(path) as journal:
        for number, record in enumerate(RECORDS, 1):
            journal.append(record)
            assert read_journal(path) == RECORDS[:number]
            assert synced[number - 1 :] == [path.stat().st_size]  # after the line was written, not before


def test_a_line_is_json_of_the_record_with_a_checksum_of_the_rest(path: Path) -> None:
    for line, record in zip(write(path, RECORDS), RECORDS, strict=True):
        raw = json.loads(line)
        assert raw.pop("crc32") == f"{crc32(json.dumps(record).encode()):08x}"
        assert raw == record


@settings(max_examples=40, deadline=None)
@given(losses=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
@example(losses=[0.1 + 0.2, 5e-324, -0.0, 1.7976931348623157e308])
def test_scores_come_back_bit_for_bit(folder: Path, losses: list[float]) -> None:
    class Given:
        def evaluate(
            self, z: Array, split: Split, deadline: float | None = None, first: int = 0, subset: Subset | None = None
        ) -> Scores:
            return Scores(np.array(losses), -np.array(losses), np.zeros((1, 1, 1), np.float32), 7, 21)

    path, z = folder / "floats.jsonl", np.ones((len(losses), 1, 1))
    path.unlink(missing_ok=True)
    with Journal(path) as journal:
        told = Recorded(Given(), [], journal).evaluate(z, "train")
    back = Recorded(None, [START, *read_journal_of_scores(path)]).evaluate(z, "train")
    assert back.loss.tobytes() == told.loss.tobytes() == np.array(losses).tobytes()
    assert back.metric.tobytes() == told.metric.tobytes()
    assert (back.examples, back.layer_forwards) == (told.examples, told.layer_forwards) == (7, 21)
    assert (back.elapsed_s, back.unix_ms) == (told.elapsed_s, told.unix_ms)
    assert back.logits is None


@dataclass
class Told:
    """An evaluator that gives the same logits whatever it is asked."""

    logits: Array

    def evaluate(
        self, z: Array, split: Split, deadline: float | None = None, first: int = 0, subset: Subset | None = None
    ) -> Scores:
        return Scores(np.zeros(len(z)), np.zeros(len(z)), self.logits, len(z), len(z))


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=6, max_size=6))
@example(values=[0.1, -0.0, 1e-45, 3.4028234663852886e38, float("inf"), -1.5])
def test_logits_of_the_train_split_come_back_bit_for_bit_where_they_are_kept(folder: Path, values: list[float]) -> None:
    path, z = folder / "logits.jsonl", np.ones((1, 1, 1))
    path.unlink(missing_ok=True)
    logits = np.array(values, np.float32).reshape(1, 3, 2)
    with Journal(path) as journal:
        recorded = Recorded(Told(logits), [], journal, keep_logits=True)
        for split in ("train", "dev"):
            told = recorded.evaluate(z, split)
            assert told.logits is not None
            assert told.logits.tobytes() == logits.tobytes()  # who asks has them, kept or not
    train, dev = read_journal_of_scores(path)
    assert dev["logits"] is None
    back = Recorded(None, [START, train]).evaluate(z, "train").logits
    assert back is not None
    assert (back.dtype, back.shape, back.tobytes()) == (np.float32, (1, 3, 2), logits.tobytes())


@pytest.mark.parametrize("order", ["C", "F"])
def test_logits_are_kept_in_their_shape_whatever_their_order_in_memory(path: Path, order: Any) -> None:
    logits = np.asarray(np.arange(24, dtype=np.float32).reshape(2, 4, 3), order=order)
    with Journal(path) as journal:
        Recorded(Told(logits), [], journal, keep_logits=True).evaluate(np.ones((2, 1, 1)), "train")
    (record,) = read_journal_of_scores(path)
    np.testing.assert_array_equal(Recorded(None, [record]).evaluate(np.ones((2, 1, 1)), "train").logits, logits)


def test_logits_that_no_search_reads_are_not_kept(path: Path) -> None:
    with Journal(path) as journal:
        recorded = Recorded(Told(np.zeros((1, 3, 2), np.float32)), [], journal)
        assert recorded.evaluate(np.ones((1, 1, 1)), "train").logits is not None
    assert [record["logits"] for record in read_journal_of_scores(path)] == [None]


def read_journal_of_scores(path: Path) -> list[Record]:
    """Records of a journal that has no first line, which only a test would write."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_last_line_torn_at_any_byte_is_dropped_and_written_over(path: Path) -> None:
    lines = write(path, RECORDS)
    whole = b"".join(lines)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = sum(1 for i in range(len(lines)) if len(b"".join(lines[: i + 1])) <= length)
        assert read_journal(path) == RECORDS[:kept]
        with Journal(path) as journal:
            assert journal.records == RECORDS[:kept]
            assert path.stat().st_size == len(b"".join(lines[:kept]))
            if length % 7 == 0:
                journal.append(RECORDS[kept])
        if length % 7 == 0:
            assert read_journal(path) == RECORDS[: kept + 1]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), value=st.integers(0, 255))
def test_a_damaged_byte_before_the_last_line_is_an_error_that_names_the_line(
    folder: Path, data: st.DataObject, value: int
) -> None:
    path = folder / "damaged.jsonl"
    lines = write(path, RECORDS)
    number = data.draw(st.integers(1, len(lines) - 1), label="line")
    line = bytearray(lines[number - 1])
    line[data.draw(st.integers(0, len(line) - 2), label="byte")] = value
    path.write_bytes(b"".join([*lines[: number - 1], bytes(line), *lines[number:]]))
    try:
        read = str(read_journal(path))
    except JournalError as error:
        read = str(error)
    # Another kind of blank between two words of JSON is no damage.
    assert read == str(RECORDS) or f"{path}:{number}: damaged line" in read


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999", b"9" * 5000])
def test_a_number_that_json_cannot_hold_is_a_damaged_line(path: Path, number: bytes) -> None:
    lines = write(path, RECORDS)
    lines[1] = lines[1].replace(b"1111111", number)
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=r"journal.jsonl:2: damaged line"):
        read_journal(path)
    path.write_bytes(b"".join(lines[:2]))
    assert read_journal(path) == RECORDS[:1]


def test_a_changed_record_does_not_pass_its_checksum(path: Path) -> None:
    lines = write(path, RECORDS)
    lines[1] = lines[1].replace(b"0.1,", b"0.2,")
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=r"journal.jsonl:2: damaged line; restore the file from a copy"):
        Journal(path)


def test_a_line_without_a_checksum_is_damaged(path: Path) -> None:
    lines = write(path, RECORDS)
    lines[1] = b'{"event": "scores"}\n'
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=r"journal.jsonl:2: damaged line"):
        read_journal(path)


def test_a_damaged_journal_is_left_as_it_was_and_is_not_held(path: Path) -> None:
    lines = write(path, RECORDS)
    damaged = b"".join([lines[0], b"x" + lines[1], *lines[2:]])
    path.write_bytes(damaged)
    with pytest.raises(JournalError, match="damaged line") as caught:
        Journal(path)
    assert path.read_bytes() == damaged
    path.write_bytes(b"".join(lines))
    with Journal(path) as journal:  # while ``caught`` still holds the failed one
        assert journal.records == RECORDS
    assert caught.value.__cause__ is None


def test_a_journal_of_another_format_is_refused(path: Path) -> None:
    write(path, [{**START, "format": FORMAT + 1}, *RECORDS[1:]])
    said = f"expected journal format {FORMAT}, got {FORMAT + 1}; finish the run with the version of bbtune that began"
    with pytest.raises(JournalError, match=said):
        Journal(path)
    with pytest.raises(JournalError, match="expected journal format"):
        read_journal(path)


def test_a_journal_that_is_not_there_is_told_by_its_folder(path: Path) -> None:
    with pytest.raises(JournalError, match=r"expected a run folder with journal.jsonl, found none"):
        read_journal(path)


HOLD = "import sys; from pathlib import Path; from bbtune.journal import Journal; Journal(Path(sys.argv[1]))"


def test_a_second_process_cannot_hold_it_but_may_read_it(path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(path)]
    with Journal(path) as journal:
        journal.append(START)
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert refused.returncode == 1
        assert "another process is running this job; wait for it, or end it" in refused.stderr
        assert read_journal(path) == [START]
        journal.append(RECORDS[1])
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert read_journal(path) == RECORDS[:2]


FULL_DISK = """
import resource, sys
from pathlib import Path
from bbtune.errors import JournalError
from bbtune.journal import FORMAT, Journal
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    with Journal(Path(sys.argv[1])) as journal:
        while True:
            journal.append({"event": "start", "format": FORMAT, "text": 600 * "x"})
except JournalError as error:
    sys.exit(f"told: {error}")
"""


def test_a_disk_that_refuses_a_record_is_told_and_the_records_before_are_kept(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stderr.startswith(f"told: {path}: cannot be written")
    assert "free the disk and resume" in done.stderr
    assert len(read_journal(path)) == 3


def test_the_digest_of_z_knows_numbers_and_shape() -> None:
    z = np.arange(6.0).reshape(1, 2, 3)
    other = z.copy()
    other[0, 0, 0] = np.nextafter(0.0, 1.0)
    assert array_digest(z) == array_digest(np.asfortranarray(z))
    assert len({array_digest(z), array_digest(other), array_digest(z.reshape(1, 3, 2))}) == 3


# Replay.


LIMITS = Limits(evaluations=30)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], list[Record], Stopped]:
    """Lines, records and end of a run that nothing cut."""
    path = tmp_path_factory.mktemp("whole") / "journal.jsonl"
    stopped = drive(path, Evaluator(), LIMITS)
    return path.read_bytes().splitlines(keepends=True), read_journal(path), stopped


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1), torn=st.integers(0, 200))
@example(share=0.0, torn=0)
@example(share=1.0, torn=0)
def test_a_run_cut_anywhere_and_resumed_equals_one_that_was_not(
    folder: Path, uninterrupted: tuple[list[bytes], list[Record], Stopped], share: float, torn: int
) -> None:
    lines, records, whole = uninterrupted
    kept = round(share * len(lines))
    path, evaluator = folder / "cut.jsonl", Evaluator()
    path.write_bytes(b"".join(lines[:kept]) + b"".join(lines[kept : kept + 1])[:-1][:torn])
    stopped = drive(path, evaluator, LIMITS)
    assert timeless(read_journal(path)) == timeless(records)
    assert stopped.z.tobytes() == whole.z.tobytes()
    assert (stopped.reason, stopped.dev) == (whole.reason, whole.dev)
    assert replace(stopped.cost, seconds=0.0) == replace(whole.cost, seconds=0.0)
    scored = sum(record["event"] == "scores" for record in records[:kept])
    assert evaluator.asked == sum(record["event"] == "scores" for record in records) - scored  # nothing bought twice


@pytest.mark.parametrize("visit", [1, 3])
def test_a_resumed_run_passes_the_same_first_and_keeps_the_order_of_blocks(path: Path, visit: int) -> None:
    alone = Evaluator()
    make = partial(make_search, visit=visit)
    whole = drive(path, alone, LIMITS, make)
    lines, records = path.read_bytes().splitlines(keepends=True), read_journal(path)
    assert set(alone.firsts) == {(split, first) for split in ("train", "dev") for first in (0, 1)}
    for kept in range(len(lines)):
        path.write_bytes(b"".join(lines[:kept]))
        evaluator = Evaluator()
        stopped = drive(path, evaluator, LIMITS, make)
        scored = sum(record["event"] == "scores" for record in records[:kept])
        assert evaluator.firsts == alone.firsts[scored:]
        assert timeless(read_journal(path)) == timeless(records)
        assert (stopped.reason, stopped.z.tobytes()) == (whole.reason, whole.z.tobytes())


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (by_gauss_newton, PROBLEM),
        (partial(by_gauss_newton, restarts=2), PROBLEM),
        (partial(by_gauss_newton, restarts=1, examples=2), PROBLEM),
        (by_recent_gain, None),
    ],
    ids=["gauss-newton", "with restarts", "on a part of the examples", "recent-gain"],
)
def test_other_searches_resume_at_any_call_too(path: Path, make: Make, problem: Problem | None) -> None:
    limits = Limits(evaluations=90)
    whole = drive(path, Evaluator(problem=problem), limits, make)
    lines, records = path.read_bytes().splitlines(keepends=True), read_journal(path)
    assert whole.cost.evaluations > 40
    assert {record["logits"] is not None for record in records if record.get("split") == "train"} == {bool(problem)}
    for kept in range(0, len(lines), 2):
        path.write_bytes(b"".join(lines[:kept]))
        evaluator = Evaluator(problem=problem)
        stopped = drive(path, evaluator, limits, make)
        assert timeless(read_journal(path)) == timeless(records)
        assert (stopped.reason, stopped.z.tobytes()) == (whole.reason, whole.z.tobytes())
        scored = sum(record["event"] == "scores" for record in records[kept:])
        assert evaluator.asked == scored
    end = replay(records, limits, make)[-1]
    assert isinstance(end, Stopped)
    assert end.z.tobytes() == whole.z.tobytes()


def test_a_run_with_another_order_of_work_does_not_go_on_from_this_record(path: Path) -> None:
    drive(path, Evaluator(), LIMITS)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(JournalError, match="replay asks for train scores"):
        drive(path, Evaluator(), LIMITS, partial(make_search, visit=2))


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_a_run_cut_again_and_again_equals_one_that_was_not(
    folder: Path, uninterrupted: tuple[list[bytes], list[Record], Stopped], cuts: list[int]
) -> None:
    _, records, whole = uninterrupted
    path = folder / "again.jsonl"
    path.unlink(missing_ok=True)
    for calls in cuts:
        try:
            drive(path, Evaluator(calls, ProcessGone), LIMITS)
        except ProcessGone:
            continue
    stopped = drive(path, Evaluator(), LIMITS)
    assert timeless(read_journal(path)) == timeless(records)
    assert stopped.z.tobytes() == whole.z.tobytes()


def test_seconds_go_on_from_where_the_record_ends(path: Path) -> None:
    z = np.zeros((1, LAYERS, DIM))
    past = [START, {"event": "scores", "elapsed_s": 40.0}, {"event": "scores", "elapsed_s": 125.5}]
    scores = Recorded(Evaluator(), [{**r, "event": "past"} for r in past]).evaluate(z, "train")
    assert 125.5 <= scores.elapsed_s < 160.0  # 165.5 if both were counted


def test_another_seed_than_the_recorded_one_stops_at_the_first_z_that_differs(
    path: Path, uninterrupted: tuple[list[bytes], list[Record], Stopped]
) -> None:
    lines, records, _ = uninterrupted
    path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(JournalError) as caught:
        drive(path, Evaluator(), LIMITS, partial(make_search, seed=1))
    text = str(caught.value)
    assert records[3]["z_sha256"][:12] in text  # the first two are of the starting point, which no seed changes
    assert "the code, a library or the kind of processor has changed since" in text
    assert "resume with the versions in the journal's first line on the machine of the run, or start a new one" in text
    assert path.read_bytes() == b"".join(lines[:-1])


def _scores(z: Array, split: Split, subset: list[int] | None) -> dict[str, Any]:
    digest = array_digest(z)
    return {"event": "scores", "split": split, "subset": subset, "z_sha256": digest, "loss": [0.0], "metric": [0.0]}


def test_scores_of_another_split_are_not_taken() -> None:
    z = np.zeros((1, LAYERS, DIM))
    record = _scores(z, "dev", None)
    with pytest.raises(JournalError, match=r"replay asks for train scores of z .*, the journal has dev scores of z"):
        Recorded(None, [record]).evaluate(z, "train")


def test_time_between_the_calls_does_not_move_the_deadline(path: Path) -> None:
    evaluator = Evaluator(calls=12)
    stopped = drive(path, evaluator, Limits(seconds=100.0))
    assert stopped.reason == "budget.seconds"
    assert len(evaluator.deadlines) == 1
    resumed = Evaluator(calls=0, end=ProcessGone)
    assert drive(path, resumed, Limits(seconds=100.0)).cost == stopped.cost


@pytest.mark.parametrize(("then", "now"), [([0, 2], (0, 1)), ([0, 2], None), (None, (0, 2))])
def test_scores_of_other_examples_are_not_taken(then: list[int] | None, now: Subset | None) -> None:
    z = np.zeros((1, LAYERS, DIM))
    record = _scores(z, "train", then)
    asked, had = (" on 2 examples" if some else "" for some in (now, then))
    with pytest.raises(JournalError, match=rf"of z \w+{asked}, the journal has train scores of z \w+{had};"):
        Recorded(None, [record]).evaluate(z, "train", subset=now)


@pytest.mark.parametrize(
    ("limits", "calls", "reason"),
    [
        (Limits(evaluations=30), 1_000, "budget.evaluations"),
        (Limits(examples=90), 1_000, "budget.examples"),
        (Limits(layer_forwards=400), 1_000, "budget.layer_forwards"),
        (Limits(seconds=1_000.0), 0, "budget.seconds"),
        (Limits(seconds=1_000.0), 1, "budget.seconds"),
        (Limits(seconds=1_000.0), 8, "budget.seconds"),
        (Limits(seconds=1_000.0), 9, "budget.seconds"),
        (Limits(seconds=1e-9), 1_000, "budget.seconds"),
    ],
)
def test_a_finished_record_replays_to_the_same_end_without_an_evaluator(
    path: Path, limits: Limits, calls: int, reason: str
) -> None:
    stopped = drive(path, Evaluator(calls), limits)
    assert stopped.reason == reason
    end = replay(read_journal(path), limits)[-1]
    assert isinstance(end, Stopped)
    assert (end.reason, end.dev, end.cost) == (reason, stopped.dev, stopped.cost)
    assert end.z.tobytes() == stopped.z.tobytes()


def test_a_finished_run_asks_nothing_and_writes_nothing_when_it_is_resumed(
    path: Path, uninterrupted: tuple[list[bytes], list[Record], Stopped]
) -> None:
    lines, _, _ = uninterrupted
    path.write_bytes(b"".join(lines))
    drive(path, Evaluator(calls=0, end=AssertionError), LIMITS)
    assert path.read_bytes() == b"".join(lines)


def test_an_unfinished_record_without_an_evaluator_ends_in_the_end_of_record(
    uninterrupted: tuple[list[bytes], list[Record], Stopped],
) -> None:
    records = uninterrupted[1]
    with pytest.raises(EndOfRecord):
        replay(records[:-2], LIMITS)
