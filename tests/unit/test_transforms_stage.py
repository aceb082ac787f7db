"""Parts are closed by rows, bytes, seconds and the end of a split, and a span is staged once."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.contract.sinks import SCHEMA, spans_of, split_of
from transforms.batches import ScoredSpan, Split
from transforms.errors import RefusedRow, RowsRefused
from transforms.ledger import Note
from transforms.pending import PENDING
from transforms.rejects import RejectFolder
from transforms.sinks.parquet import ParquetSink
from transforms.sources.parquet import ParquetSource
from transforms.stage import PartBounds, _StageFn, stage_part
from transforms.telemetry import Telemetry


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def sink(tmp_path: Path) -> ParquetSink:
    sink = ParquetSink(str(tmp_path / "scores"), "overwrite", "job_1", tmp_path)
    sink.prepare(SCHEMA)
    return sink


def rejects(tmp_path: Path) -> RejectFolder:
    folder = RejectFolder(str(tmp_path / "rejects"), "job_1", ParquetSource((), SCHEMA), tmp_path)
    folder.prepare()
    return folder


def stage(sink: ParquetSink, folder: Path, bounds: PartBounds, step_s: float = 0.0) -> list[list[int]]:
    """Stage 10 spans of 100 rows, `step_s` apart; the starts of the spans in each part, in the order of the notes."""
    do_fn = _StageFn(sink, rejects(folder), Telemetry(), bounds)
    do_fn._clock = clock = Clock()
    do_fn.setup()
    do_fn.start_bundle()
    for span in spans_of(split_of(0, rows=1000, span_rows=100)):
        list(do_fn.process(span))
        clock.now += step_s
    list(do_fn.finish_bundle())
    do_fn.teardown()
    parts: dict[str | None, list[int]] = {}
    for note in sink.all_notes():
        parts.setdefault(note.part, []).append(note.start)
    return sorted(parts.values())


ENDLESS = PartBounds(rows=10**9, size_bytes=10**12, seconds=10**9)


@pytest.mark.parametrize(
    ("bounds", "step_s", "lengths"),
    [
        pytest.param(ENDLESS, 0, [10], id="the end of the split alone"),
        pytest.param(PartBounds(300, 10**12, 10**9), 0, [3, 3, 3, 1], id="rows"),
        pytest.param(PartBounds(10**9, 1, 10**9), 0, [1] * 10, id="bytes"),
        pytest.param(PartBounds(10**9, 10**12, 5), 2, [4, 4, 2], id="seconds"),
        pytest.param(PartBounds(10**9, 10**12, 1, 1 / 2), 2, [2, 3, 5], id="a share of the time so far"),
        pytest.param(PartBounds(10**9, 10**12, 1, 1 / 2, 4), 2, [2, 3, 3, 2], id="and never more than so many seconds"),
    ],
)
def test_a_part_is_closed_at_the_first_of_its_bounds(
    sink: ParquetSink, tmp_path: Path, bounds: PartBounds, step_s: float, lengths: list[int]
) -> None:
    parts = stage(sink, tmp_path, bounds, step_s)

    assert [len(part) for part in parts] == lengths
    assert [start for part in parts for start in part] == list(range(0, 1000, 100))


def test_spans_that_are_noted_already_are_cut_from_a_part(sink: ParquetSink, tmp_path: Path) -> None:
    spans = spans_of(split_of(0, rows=1000, span_rows=100))
    sink.stage(spans[2:4], None)

    notes = stage_part(sink, rejects(tmp_path), spans[1:6])

    assert [note.start for note in notes] == [100, 400, 500]
    assert stage_part(sink, rejects(tmp_path), spans[1:6]) == []


def test_who_loses_the_race_for_a_note_cuts_and_stages_the_rest_with_rejects_of_its_own(tmp_path: Path) -> None:
    class Overtaken(ParquetSink):
        """A sink that somebody else stages to, just before the note."""

        def stage(self, spans: Sequence[ScoredSpan], rejects: str | None) -> list[Note] | None:
            if not self.all_notes():
                other = ParquetSink(self.path, self.mode, self.job_id, self.job_folder)
                other.stage([span for span in spans if span.span.start == 100], None)
            return super().stage(spans, rejects)

    sink = Overtaken(str(tmp_path / "scores"), "overwrite", "job_1", tmp_path)
    sink.prepare(SCHEMA)
    folder = rejects(tmp_path)

    notes = stage_part(sink, folder, spans_of(split_of(0, rows=300, span_rows=100), rejected=2))

    assert [note.start for note in notes] == [0, 200]
    parts = sorted(path.name for path in folder._folder.parts.iterdir())
    assert parts == [notes[0].rejects]
    assert len(list((sink._folder.staging / "parts").iterdir())) == 2


def test_spans_that_come_in_any_order_are_staged_in_that_of_the_input(sink: ParquetSink, tmp_path: Path) -> None:
    spans = spans_of(split_of(0, rows=500, span_rows=100))

    notes = stage_part(sink, rejects(tmp_path), [spans[i] for i in (3, 0, 4, 2, 1)])

    assert [note.start for note in notes] == [0, 100, 200, 300, 400]


def test_an_error_of_the_sink_fails_the_bundle(tmp_path: Path) -> None:
    class Full(ParquetSink):
        def stage(self, spans: Sequence[ScoredSpan], rejects: str | None) -> list[Note] | None:
            raise OSError("no space")

    sink = Full(str(tmp_path / "scores"), "overwrite", "job_1", tmp_path)
    sink.prepare(SCHEMA)

    with pytest.raises(OSError, match="no space"):
        stage(sink, tmp_path, ENDLESS)


def test_what_an_open_part_holds_is_staged_when_a_bundle_is_cut_off(sink: ParquetSink, tmp_path: Path) -> None:
    do_fn = _StageFn(sink, rejects(tmp_path), Telemetry(), ENDLESS)
    do_fn.setup()
    do_fn.start_bundle()
    for split in (0, 1):
        for span in spans_of(split_of(split, rows=1000, span_rows=100))[:6]:
            list(do_fn.process(span))

    assert sink.all_notes() == []
    PENDING.stage(60.0)

    assert sorted((note.split, note.start) for note in sink.all_notes()) == [
        (split_of(split, rows=1000, span_rows=100).id, start) for split in (0, 1) for start in range(0, 600, 100)
    ]


def test_a_part_that_is_staged_on_the_way_out_is_not_staged_again(sink: ParquetSink, tmp_path: Path) -> None:
    do_fn = _StageFn(sink, rejects(tmp_path), Telemetry(), ENDLESS)
    do_fn.setup()
    do_fn.start_bundle()
    spans = spans_of(split_of(0, rows=1000, span_rows=100))
    for span in spans[:6]:
        list(do_fn.process(span))
    PENDING.stage(60.0)
    # The bundle was not cut off after all.
    for span in spans[6:]:
        list(do_fn.process(span))
    list(do_fn.finish_bundle())

    assert [note.start for note in sink.all_notes()] == list(range(0, 1000, 100))


def test_a_bundle_that_ended_leaves_nothing_to_be_staged(sink: ParquetSink, tmp_path: Path) -> None:
    stage(sink, tmp_path, ENDLESS)
    notes = sink.all_notes()
    PENDING.stage(60.0)

    assert sink.all_notes() == notes


def test_a_destination_that_refuses_what_is_left_is_no_error(sink: ParquetSink, tmp_path: Path) -> None:
    class Full(ParquetSink):
        def stage(self, spans: Sequence[ScoredSpan], rejects: str | None) -> list[Note] | None:
            raise OSError(28, "No space left on device")

    do_fn = _StageFn(
        Full(str(tmp_path / "scores"), "overwrite", "job_1", tmp_path), rejects(tmp_path), Telemetry(), ENDLESS
    )
    do_fn.setup()
    do_fn.start_bundle()
    list(do_fn.process(spans_of(split_of(0, rows=1000, span_rows=100))[0]))
    PENDING.stage(60.0)

    assert sink.all_notes() == []


class Picky(ParquetSink):
    """Takes no row whose id ends in 7."""

    def stage(self, spans: Sequence[ScoredSpan], rejects: str | None) -> list[Note] | None:
        """Refuse, or stage."""
        refused = [
            RefusedRow(at, row, "RefusedByDestination", "ends in 7")
            for at, scored in enumerate(spans)
            for row, id in enumerate(scored.rows["id"].to_pylist())
            if id % 10 == 7
        ]
        if refused:
            raise RowsRefused(refused)
        return super().stage(spans, rejects)


class Numbers(ParquetSource):
    """Rows that have nothing but their offset as an id."""

    def lookup(self, split: Split, rows: Sequence[int], columns: Sequence[str]) -> pa.RecordBatch:
        """Rows by their offsets."""
        return pa.record_batch([pa.array(rows, pa.int64())], schema=self.schema)


def test_rows_that_the_sink_refuses_are_rejected_and_counted_as_such(tmp_path: Path) -> None:
    sink = Picky(str(tmp_path / "scores"), "overwrite", "job_1", tmp_path)
    sink.prepare(SCHEMA)
    folder = RejectFolder(str(tmp_path / "rejects"), "job_1", Numbers((), pa.schema([("id", pa.int64())])), tmp_path)
    folder.prepare()
    do_fn = _StageFn(sink, folder, Telemetry(), ENDLESS)

    before = Telemetry().counters().values()
    staged = do_fn.write(spans_of(split_of(0, rows=300, span_rows=100)))
    after = Telemetry().counters().values()

    notes = sink.all_notes()
    (part,) = {note.rejects for note in notes}
    (file,) = tmp_path.glob(f".rejects*/parts/{part}")
    rows = pq.read_table(file).to_pylist()
    assert staged.rows == 270
    assert [(note.scored, note.rejected) for note in notes] == [(90, 10)] * 3
    assert [row["position"] for row in rows] == [f"input:{id}" for id in range(7, 300, 10)]
    assert {name: after[name] - before[name] for name in ("scored", "rejected", "staged")} == {
        "scored": -30,
        "rejected": 30,
        "staged": 300,
    }
