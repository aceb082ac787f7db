"""Notes: added once, covering each split exactly once."""

import json
import multiprocessing
import random
from dataclasses import replace
from pathlib import Path

import pytest

from predictors.notices import Notice
from transforms.batches import Split
from transforms.counts import Counts
from transforms.errors import LedgerError
from transforms.ledger import FileLedger, Note, check_covered, first_gap, notices_of, write_durably

SPLIT = Split("000000", "a.parquet", 0, 100, 10, "1:1")


def note(start: int, stop: int, *, last: bool = False, split: str = "000000", part: str | None = "p") -> Note:
    return Note(split, start, stop, last, stop - start, 0, 0, part, None)


def test_a_note_whose_rows_do_not_add_up_cannot_be_made() -> None:
    with pytest.raises(LedgerError, match="5 scored, 3 rejected and 1 skipped do not add up to 10"):
        Note("000000", 0, 10, False, 5, 3, 1, "p", None)


def test_notes_are_read_back_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path)

    assert ledger.add([note(10, 20), note(20, 30)])
    assert ledger.add([note(0, 10)])
    assert [(n.start, n.stop) for n in ledger.noted("000000")] == [(10, 20), (20, 30), (0, 10)]


def test_what_was_noticed_is_read_back_with_the_notes_and_added_up(tmp_path: Path) -> None:
    nan, cut = Notice("not_finite", "column y: NaN", 2), Notice("rounded", "column t: cut to microseconds", 5)
    ledger = FileLedger(tmp_path)
    ledger.add([replace(note(10, 20), notices=(cut, nan)), note(20, 30)])
    ledger.add([replace(note(0, 10), notices=(nan,))])

    assert notices_of(ledger.all_notes()) == (replace(nan, count=4), cut)


def test_notes_of_a_version_that_knew_no_notices_are_read(tmp_path: Path) -> None:
    values = {"split": "0", "start": 0, "stop": 1, "last": True, "scored": 1, "rejected": 0, "skipped": 0}
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "00000000.json").write_text(json.dumps([{**values, "part": "p", "rejects": None}]))

    assert [n.notices for n in FileLedger(tmp_path).all_notes()] == [()]


def test_a_notice_is_one_line_that_any_json_can_hold() -> None:
    notice = Notice("files_passed_over", "odd\0name\n\udcff is  no file")

    assert notice.message == "odd\\0name \\udcff is no file"


@pytest.mark.parametrize(
    ("code", "count", "shown"),
    [
        ("column_closed", 1, "column a"),
        ("types_unified", 2000, "column a (2,000 times)"),
        ("not_finite", 1, "column a (1 time)"),
    ],
)
def test_a_notice_shows_its_count_where_one_is_worth_saying(code: str, count: int, shown: str) -> None:
    assert str(Notice(code, "column a", count)) == shown


def test_an_entry_with_one_span_that_is_noted_is_refused_whole(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path)
    ledger.add([note(0, 10)])

    assert not ledger.add([note(0, 10), note(10, 20)])
    assert [n.start for n in ledger.all_notes()] == [0]


def test_a_refused_entry_leaves_no_draft(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path)
    ledger.add([note(0, 10)])
    ledger.add([note(0, 10)])

    assert [path.name for path in (tmp_path / "000000").iterdir()] == ["00000000.json"]


@pytest.mark.parametrize(
    ("notes", "gap"),
    [
        pytest.param([], 0, id="nothing"),
        pytest.param([(0, 10)], 10, id="a beginning"),
        pytest.param([(10, 20)], 0, id="a hole at the start"),
        pytest.param([(0, 10), (20, 30)], 10, id="a hole"),
        pytest.param([(90, 100), *[(i, i + 10) for i in range(0, 90, 10)]], None, id="all, in any order"),
    ],
)
def test_the_first_gap_is_where_a_resume_goes_on(notes: list[tuple[int, int]], gap: int | None) -> None:
    assert first_gap(SPLIT, [note(start, stop, last=stop == 100) for start, stop in notes]) == gap


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        pytest.param([note(0, 100, last=True), note(50, 60)], "row 50 is noted twice", id="twice"),
        pytest.param([note(0, 90, last=True)], "90 rows were noted but 100 planned", id="too short"),
        pytest.param([note(0, 90)], "row 90 was never noted; resume the job", id="a hole at the end"),
        pytest.param(
            [note(0, 100, last=True), note(0, 1, split="9")], "split 9 is noted but not in the plan", id="alien"
        ),
    ],
)
def test_publishing_demands_that_each_split_is_covered_exactly_once(notes: list[Note], message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        check_covered([SPLIT], notes)


def test_counts_add_up_over_splits() -> None:
    other = replace(SPLIT, id="000001", rows=7)
    notes = [note(0, 100, last=True), Note("000001", 0, 7, True, 4, 2, 1, "p", "r")]

    assert check_covered([SPLIT, other], notes) == Counts(scored=104, rejected=2, skipped=1)
    assert check_covered([SPLIT, other], notes).total == 107


def test_a_split_of_unknown_length_is_covered_once_its_last_span_is_noted() -> None:
    unknown = replace(SPLIT, rows=None)

    assert first_gap(unknown, [note(0, 10)]) == 10
    assert first_gap(unknown, [note(0, 10), note(10, 13, last=True)]) is None


def _stage_all(folder: str, seed: int) -> None:
    """Note spans 0..99 of a split in cuts of random length, as a worker does: cut off what is noted, try the rest."""
    ledger, rng = FileLedger(Path(folder)), random.Random(seed)
    at = 0
    while at < 100:
        stop = min(at + rng.randint(1, 9), 100)
        while True:
            noted = {n.start for n in ledger.noted("000000")}
            fresh = [note(i, i + 1, part=f"{seed}") for i in range(at, stop) if i not in noted]
            if not fresh or ledger.add(fresh):
                break
        at = stop


@pytest.mark.parametrize("seed", range(10))
def test_processes_that_race_over_a_split_with_different_cuts_note_each_span_once(tmp_path: Path, seed: int) -> None:
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=_stage_all, args=(str(tmp_path), seed * 10 + i)) for i in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=60)

    assert [racer.exitcode for racer in racers] == [0, 0, 0, 0]
    assert sorted(n.start for n in FileLedger(tmp_path).noted("000000")) == list(range(100))


def test_a_file_that_is_written_durably_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_durably(path, b"old")
    write_durably(path, json.dumps([1]).encode())

    assert json.loads(path.read_bytes()) == [1]
    assert list(tmp_path.iterdir()) == [path]
