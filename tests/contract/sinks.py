"""What every sink must do. A subclass says where the result lies; see `SinkContract`."""

import pickle
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from predictors.notices import Notice
from transforms.batches import Rejected, ScoredSpan, Span, Split
from transforms.counts import Counts
from transforms.errors import OutputError
from transforms.ledger import Note, check_covered, without_noted
from transforms.sinks.base import Manifest, Sink
from transforms.sinks.mode import Mode

SCHEMA = pa.schema([("id", pa.int64()), ("score", pa.float32()), ("name", pa.string())])


def split_of(number: int, rows: int, span_rows: int) -> Split:
    """Split `number` of an input in which the row at `offset` of it has the id `number * 1_000_000 + offset`."""
    return Split(f"{number:06d}", "input", number * 1_000_000, rows, span_rows, "")


def rows_of(first_id: int, count: int) -> pa.RecordBatch:
    """Rows with consecutive ids; everything else in them follows from the id."""
    ids = np.arange(first_id, first_id + count)
    names = pc.if_else(pa.array(ids % 3 == 0), None, pc.cast(pa.array(ids), pa.string()))
    return pa.record_batch([pa.array(ids), pa.array((ids % 1024 / 8).astype("f4")), names], schema=SCHEMA)


# Of every span that `spans_of` makes.
NOTICED = Notice("not_finite", 'column "score" has ü, NaN', 2)


def spans_of(split: Split, rejected: int = 0) -> list[ScoredSpan]:
    """The spans of `split` as scoring leaves them; the first `rejected` rows of each are rejected."""
    assert split.rows is not None
    spans = []
    for start in range(0, split.rows, split.span_rows):
        stop = min(start + split.span_rows, split.rows)
        rows = rows_of(split.first_row + start, stop - start)
        refused = None
        if rejected:
            at = pa.array(range(rejected), pa.int32())
            why = pa.array(["ValueError"] * rejected)
            refused = Rejected(rows.slice(0, rejected), at, why, why)
        span = Span(split, start, stop, stop == split.rows)
        spans.append(ScoredSpan(span, rows.slice(rejected), refused, notices=(NOTICED,)))
    return spans


def table_of(spans: Iterable[ScoredSpan]) -> pa.Table:
    """All scored rows of `spans`."""
    return pa.Table.from_batches([span.rows for span in spans], SCHEMA)


def manifest_of(sink: Sink, job_id: str, splits: Sequence[Split]) -> Manifest:
    """The manifest for what `sink` has staged; the notes must cover `splits`."""
    notes = sink.all_notes()
    return Manifest(
        job_id, check_covered(splits, notes), splits, notes, "2025-03-15T10:00:00+00:00", {"model": "sha256:1"}
    )


def values_in(table: pa.Table | None) -> list[tuple[object, ...]] | None:
    """Rows of a result in a form that compares, whatever their order and the store's numeric types."""
    if table is None:
        return None
    return sorted(zip(*(table[name].to_pylist() for name in SCHEMA.names), strict=True), key=lambda row: row[0] or 0)


class SinkContract(ABC):
    """Subclass as `TestX` and give the five methods; an autouse fixture can put the place on `self`."""

    @abstractmethod
    def make_sink(self, mode: Mode = "overwrite", job_id: str = "job_1", appends_to: str | None = None) -> Sink:
        """A sink for the one place of this test; several in a test have the same place."""

    @abstractmethod
    def read_result(self) -> pa.Table | None:
        """What a reader sees in that place, in any order, with the columns of `SCHEMA`; None when there is none."""

    @abstractmethod
    def seed_old_result(self, table: pa.Table) -> None:
        """Put a result there as somebody else would have."""

    @abstractmethod
    def remove_result(self) -> None:
        """Remove the result as somebody else would."""

    @abstractmethod
    def leftovers(self) -> list[str]:
        """What lies around besides the result, save what the sink's contract says stays."""

    def stage(self, sink: Sink, spans: Sequence[ScoredSpan], parts: int = 2) -> None:
        """Stage spans of one split in about `parts` parts, none of them noted before."""
        step = -(-len(spans) // parts)
        for at in range(0, len(spans), step):
            assert sink.stage(spans[at : at + step], None) is not None

    def publish(self, sink: Sink, *splits: Split, job_id: str = "job_1") -> Counts:
        """Publish all that was staged."""
        manifest = manifest_of(sink, job_id, splits)
        sink.publish(manifest)
        return manifest.counts

    def take_through(self, sink: Sink, split: Split, job_id: str, clean: bool = True) -> None:
        """Take all rows of `split` through `sink`."""
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split))
        self.publish(sink, split, job_id=job_id)
        if clean:
            sink.clean()

    def test_staged_rows_are_seen_only_once_published(self) -> None:
        split = split_of(1, rows=1000, span_rows=100)
        sink = self.make_sink()

        sink.prepare(SCHEMA)
        after_prepare = self.read_result()
        self.stage(sink, spans_of(split))
        after_stage = self.read_result()
        counts = self.publish(sink, split)

        assert after_prepare is None
        assert after_stage is None
        assert counts == sink.published() == Counts(scored=1000)
        assert values_in(self.read_result()) == values_in(table_of(spans_of(split)))

    def test_a_published_result_takes_the_place_of_the_old_one_whole(self) -> None:
        old, split = table_of(spans_of(split_of(9, 500, 100))), split_of(1, 300, 100)
        self.seed_old_result(old)
        sink = self.make_sink()

        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split))
        before = self.read_result()
        self.publish(sink, split)

        assert values_in(before) == values_in(old)
        assert values_in(self.read_result()) == values_in(table_of(spans_of(split)))

    @pytest.mark.parametrize("mode", ["overwrite", "append"])
    def test_what_readers_see_at_any_moment_is_the_old_result_or_the_new_one(self, mode: Mode) -> None:
        old, split = table_of(spans_of(split_of(9, 30_000, 10_000))), split_of(1, 60_000, 10_000)
        self.seed_old_result(old)
        sink = self.make_sink(mode)
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split))
        new = table_of(spans_of(split))
        wanted = [_digest(old), _digest(new if mode == "overwrite" else pa.concat_tables([old, new]))]
        first, stop = threading.Event(), threading.Event()

        def read() -> list[tuple[int, int]]:
            seen = []
            while not stop.is_set():
                table = self.read_result()
                assert table is not None
                seen.append(_digest(table))
                first.set()
            return seen

        with ThreadPoolExecutor() as threads:
            reading = threads.submit(read)
            try:
                assert first.wait(60)
                self.publish(sink, split)
            finally:
                stop.set()
            seen = reading.result()
        table = self.read_result()

        assert seen[0] == wanted[0]
        assert set(seen) <= set(wanted)
        assert sorted(seen, key=wanted.index) == seen, "the old result came back"
        assert table is not None
        assert _digest(table) == wanted[1]

    def test_publishing_again_does_nothing_even_after_clean_and_from_a_new_process(self) -> None:
        split = split_of(1, 200, 100)
        sink = self.make_sink("error_if_exists")
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split))
        manifest = manifest_of(sink, "job_1", [split])

        sink.publish(manifest)
        sink.publish(manifest)
        sink.clean()
        again = pickle.loads(pickle.dumps(self.make_sink("error_if_exists")))
        again.prepare(SCHEMA)
        again.publish(manifest)

        assert again.published() == Counts(scored=200)
        assert values_in(self.read_result()) == values_in(table_of(spans_of(split)))

    def test_two_publishers_of_one_job_publish_once(self) -> None:
        split = split_of(1, 5000, 1000)
        self.seed_old_result(table_of(spans_of(split_of(9, 10, 10))))
        sink = self.make_sink()
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split))
        manifest = manifest_of(sink, "job_1", [split])

        with ThreadPoolExecutor() as threads:
            for publishing in [threads.submit(sink.publish, manifest) for _ in range(2)]:
                publishing.result()

        assert values_in(self.read_result()) == values_in(table_of(spans_of(split)))

    def test_appended_rows_join_the_old_ones_once_published(self) -> None:
        old, split = table_of(spans_of(split_of(9, 500, 100))), split_of(1, 300, 100)
        self.seed_old_result(old)
        sink = self.make_sink("append")

        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split))
        before = self.read_result()
        counts = self.publish(sink, split)

        assert values_in(before) == values_in(old)
        assert counts == sink.published() == Counts(scored=300)
        assert values_in(self.read_result()) == values_in(pa.concat_tables([table_of(spans_of(split)), old]))

    def test_appending_where_there_is_nothing_makes_the_result(self) -> None:
        split = split_of(1, 300, 100)
        sink = self.make_sink("append")

        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split))
        before = self.read_result()
        self.publish(sink, split)
        sink.clean()

        assert before is None
        assert values_in(self.read_result()) == values_in(table_of(spans_of(split)))
        assert self.leftovers() == []

    def test_appending_again_does_nothing_even_after_clean_and_from_a_new_process(self) -> None:
        old, split = table_of(spans_of(split_of(9, 500, 100))), split_of(1, 200, 100)
        self.seed_old_result(old)
        sink = self.make_sink("append")
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split))
        manifest = manifest_of(sink, "job_1", [split])

        sink.publish(manifest)
        sink.publish(manifest)
        sink.clean()
        again = pickle.loads(pickle.dumps(self.make_sink("append")))
        again.prepare(SCHEMA)
        again.publish(manifest)
        again.clean()

        assert again.published() == Counts(scored=200)
        assert values_in(self.read_result()) == values_in(pa.concat_tables([table_of(spans_of(split)), old]))
        assert self.leftovers() == []

    def test_two_publishers_of_one_job_append_once(self) -> None:
        old, split = table_of(spans_of(split_of(9, 10, 10))), split_of(1, 5000, 1000)
        self.seed_old_result(old)
        sink = self.make_sink("append")
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split))
        manifest = manifest_of(sink, "job_1", [split])

        with ThreadPoolExecutor() as threads:
            for publishing in [threads.submit(sink.publish, manifest) for _ in range(2)]:
                publishing.result()

        assert values_in(self.read_result()) == values_in(pa.concat_tables([table_of(spans_of(split)), old]))

    @pytest.mark.parametrize("there_was_a_result", [False, True], ids=["new", "old"])
    def test_jobs_that_append_at_the_same_time_are_all_there(self, there_was_a_result: bool) -> None:
        splits = {f"job_{number}": split_of(number, 400, 100) for number in range(1, 5)}
        rows = [table_of(spans_of(split)) for split in splits.values()]
        if there_was_a_result:
            rows.append(table_of(spans_of(split_of(9, 10, 10))))
            self.seed_old_result(rows[-1])
        sinks = {job_id: self.make_sink("append", job_id) for job_id in splits}
        for job_id, sink in sinks.items():
            sink.prepare(SCHEMA)
            self.stage(sink, spans_of(splits[job_id]))
        together = threading.Barrier(len(splits))

        def publish(job_id: str) -> None:
            together.wait(60)
            self.publish(sinks[job_id], splits[job_id], job_id=job_id)
            sinks[job_id].clean()

        with ThreadPoolExecutor(len(splits)) as threads:
            list(threads.map(publish, splits))

        assert values_in(self.read_result()) == values_in(pa.concat_tables(rows))
        assert self.leftovers() == []

    def test_a_job_that_is_stopped_before_it_publishes_adds_nothing(self) -> None:
        old, split = table_of(spans_of(split_of(9, 10, 10))), split_of(1, 200, 100)
        self.seed_old_result(old)
        sink = self.make_sink("append")
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split))

        before = self.read_result()
        resumed = pickle.loads(pickle.dumps(self.make_sink("append")))
        resumed.prepare(SCHEMA)
        fresh = without_noted(spans_of(split), resumed.noted(split.id))
        self.publish(resumed, split)

        assert values_in(before) == values_in(old)
        assert fresh == []
        assert values_in(self.read_result()) == values_in(pa.concat_tables([table_of(spans_of(split)), old]))

    def test_an_appending_job_that_is_given_up_leaves_the_old_result(self) -> None:
        old = table_of(spans_of(split_of(9, 10, 10)))
        self.seed_old_result(old)
        sink = self.make_sink("append")
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split_of(1, 200, 100)))

        sink.discard()

        assert values_in(self.read_result()) == values_in(old)
        assert self.leftovers() == []

    def test_a_job_does_not_append_again_after_a_later_one_has_replaced_all(self) -> None:
        one, two = split_of(1, 200, 100), split_of(2, 300, 100)
        first, second = self.make_sink("append", "job_1"), self.make_sink("overwrite", "job_2")
        self.take_through(first, one, "job_1", clean=False)
        manifest = manifest_of(first, "job_1", [one])
        self.take_through(second, two, "job_2")

        first.publish(manifest)
        first.clean()

        assert values_in(self.read_result()) == values_in(table_of(spans_of(two)))

    def test_a_job_without_rows_adds_none(self) -> None:
        old = table_of(spans_of(split_of(9, 10, 10)))
        self.seed_old_result(old)
        sink = self.make_sink("append")

        sink.prepare(SCHEMA)
        self.publish(sink)

        assert sink.published() == Counts()
        assert values_in(self.read_result()) == values_in(old)

    def test_appending_other_columns_is_refused_before_any_row_is_read(self) -> None:
        old = table_of(spans_of(split_of(9, 10, 10)))
        self.seed_old_result(old)
        sink = self.make_sink("append")

        with pytest.raises(OutputError, match="column score") as refused:
            sink.prepare(pa.schema([("id", pa.int64()), ("score", pa.string()), ("name", pa.string())]))

        assert "\n" not in str(refused.value)
        assert values_in(self.read_result()) == values_in(old)
        assert self.leftovers() == []

    def test_a_job_adds_to_the_result_of_the_job_that_it_names(self) -> None:
        splits = [split_of(number, 200, 100) for number in (1, 2, 3)]

        self.take_through(self.make_sink(job_id="job_1"), splits[0], "job_1")
        self.take_through(self.make_sink("append", "job_2", appends_to="job_1"), splits[1], "job_2")
        self.take_through(self.make_sink("append", "job_3", appends_to="job_2"), splits[2], "job_3")

        assert values_in(self.read_result()) == values_in(table_of(s for split in splits for s in spans_of(split)))
        assert self.leftovers() == []

    @pytest.mark.parametrize("mode", ["overwrite", "append"])
    def test_nothing_is_added_once_another_job_has_published(self, mode: Mode) -> None:
        one, two, three = (split_of(number, 200, 100) for number in (1, 2, 3))
        self.take_through(self.make_sink(job_id="job_1"), one, "job_1")
        sink = self.make_sink("append", "job_2", appends_to="job_1")
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(two))
        self.take_through(self.make_sink(mode, "job_3"), three, "job_3")
        before = self.read_result()

        refused = [
            _refusal(lambda: self.publish(sink, two, job_id="job_2")),
            _refusal(lambda: self.make_sink("append", "job_4", appends_to="job_1").prepare(SCHEMA)),
        ]

        for said in refused:
            assert "now holds the result of another job, job_3" in said
            assert said.endswith("nothing was added")
            assert sink.describe() in said
        assert sink.published() is None
        assert values_in(self.read_result()) == values_in(before)

    def test_nothing_is_added_to_what_no_job_published(self) -> None:
        old = table_of(spans_of(split_of(9, 10, 10)))
        absent = _refusal(lambda: self.make_sink("append", "job_2", appends_to="job_1").prepare(SCHEMA))
        self.seed_old_result(old)

        foreign = _refusal(lambda: self.make_sink("append", "job_2", appends_to="job_1").prepare(SCHEMA))

        assert "the result of job_1" in absent
        assert "is gone; nothing was added" in absent
        assert self.leftovers() == []
        assert "holds no result of job_1" in foreign
        assert foreign.endswith("nothing was added")
        assert values_in(self.read_result()) == values_in(old)

    def test_nothing_is_added_to_a_result_that_is_gone_when_the_job_publishes(self) -> None:
        one, two = split_of(1, 200, 100), split_of(2, 200, 100)
        self.take_through(self.make_sink(job_id="job_1"), one, "job_1")
        sink = self.make_sink("append", "job_2", appends_to="job_1")
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(two))
        self.remove_result()

        said = _refusal(lambda: self.publish(sink, two, job_id="job_2"))

        assert "the result of job_1" in said
        assert "is gone; nothing was added" in said
        assert self.read_result() is None

    @pytest.mark.parametrize("mode", ["overwrite", "error_if_exists"])
    def test_only_who_appends_may_name_the_job_to_append_to(self, mode: Mode) -> None:
        with pytest.raises(ValueError, match="goes with mode 'append' only"):
            self.make_sink(mode, "job_2", appends_to="job_1")

    def test_error_if_exists_refuses_an_old_result_and_leaves_it(self) -> None:
        old = table_of(spans_of(split_of(9, 10, 10)))
        self.seed_old_result(old)
        sink = self.make_sink("error_if_exists")

        with pytest.raises(OutputError) as refused:
            sink.prepare(SCHEMA)

        assert "\n" not in str(refused.value)
        assert sink.describe() in str(refused.value)
        assert values_in(self.read_result()) == values_in(old)
        assert self.leftovers() == []

    def test_error_if_exists_refuses_a_result_that_came_into_being_meanwhile(self) -> None:
        old, split = table_of(spans_of(split_of(9, 10, 10))), split_of(1, 200, 100)
        sink = self.make_sink("error_if_exists")
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split))
        self.seed_old_result(old)

        with pytest.raises(OutputError):
            self.publish(sink, split)

        assert sink.published() is None
        assert values_in(self.read_result()) == values_in(old)

    def test_a_span_staged_twice_is_told_and_appears_once(self) -> None:
        split = split_of(1, 400, 100)
        spans = spans_of(split)
        sink = self.make_sink()
        sink.prepare(SCHEMA)

        first = sink.stage(spans[:2], None)
        same = sink.stage(spans[:2], None)
        overlapping = sink.stage(spans[1:3], None)
        rest = sink.stage(spans[2:], None)
        self.publish(sink, split)

        assert first is not None
        assert rest is not None
        assert same is None
        assert overlapping is None
        assert values_in(self.read_result()) == values_in(table_of(spans))

    def test_notes_say_what_was_staged(self) -> None:
        one, two = split_of(1, 250, 100), split_of(2, 50, 100)
        sink = self.make_sink()
        sink.prepare(SCHEMA)

        later = sink.stage(spans_of(one, rejected=5)[1:], "rejects-1")
        sooner = sink.stage(spans_of(one)[:1], None)
        other = sink.stage(spans_of(two), None)

        assert later is not None
        assert sooner is not None
        assert other is not None
        assert sink.noted(one.id) == [*later, *sooner]
        assert sink.noted(two.id) == other
        assert sink.noted("000003") == []
        assert sorted(sink.all_notes(), key=lambda note: (note.split, note.start)) == [*sooner, *later, *other]
        assert [(n.split, n.start, n.stop, n.last, n.scored, n.rejected, n.skipped, n.rejects) for n in later] == [
            ("000001", 100, 200, False, 95, 5, 0, "rejects-1"),
            ("000001", 200, 250, True, 45, 5, 0, "rejects-1"),
        ]
        assert {note.notices for note in sink.all_notes()} == {(NOTICED,)}

    def test_writers_that_race_over_the_same_spans_with_other_cuts_stage_each_once(self) -> None:
        splits = [split_of(number, 620, 100) for number in range(12)]
        sink = self.make_sink()
        sink.prepare(SCHEMA)
        together = threading.Barrier(3)

        def write(step: int) -> None:
            mine = pickle.loads(pickle.dumps(sink))
            for split in splits:
                together.wait(60)
                spans = spans_of(split)
                for at in range(0, len(spans), step):
                    _stage_fresh(mine, spans[at : at + step])

        with ThreadPoolExecutor() as threads:
            for writing in [threads.submit(write, step) for step in (1, 2, 3)]:
                writing.result()
        counts = self.publish(sink, *splits)

        assert counts == Counts(scored=12 * 620)
        assert values_in(self.read_result()) == values_in(table_of(s for split in splits for s in spans_of(split)))

    def test_a_resumed_job_goes_on_from_what_was_staged(self) -> None:
        split = split_of(1, 400, 100)
        spans = spans_of(split)
        before, after = self.make_sink(), self.make_sink()

        before.prepare(SCHEMA)
        before.stage(spans[:3], None)
        after.prepare(SCHEMA)
        fresh = without_noted(spans, after.noted(split.id))
        after.stage(fresh, None)
        self.publish(after, split)

        assert [scored.span.start for scored in fresh] == [300]
        assert values_in(self.read_result()) == values_in(table_of(spans))

    def test_clean_leaves_only_the_result(self) -> None:
        split = split_of(1, 200, 100)
        self.seed_old_result(table_of(spans_of(split_of(9, 10, 10))))
        sink = self.make_sink()
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split))
        self.publish(sink, split)

        sink.clean()
        sink.clean()

        assert self.leftovers() == []
        assert sink.published() == Counts(scored=200)
        assert values_in(self.read_result()) == values_in(table_of(spans_of(split)))

    def test_discard_leaves_only_the_old_result(self) -> None:
        old = table_of(spans_of(split_of(9, 10, 10)))
        self.seed_old_result(old)
        sink = self.make_sink()
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split_of(1, 200, 100)))

        sink.discard()
        sink.discard()

        assert self.leftovers() == []
        assert sink.published() is None
        assert sink.all_notes() == []
        assert values_in(self.read_result()) == values_in(old)

    def test_a_discarded_job_leaves_no_result_where_there_was_none(self) -> None:
        sink = self.make_sink()
        sink.prepare(SCHEMA)
        self.stage(sink, spans_of(split_of(1, 200, 100)))

        sink.discard()

        assert self.leftovers() == []
        assert self.read_result() is None

    def test_discard_and_clean_do_nothing_for_a_job_that_never_began(self) -> None:
        sink = self.make_sink()

        sink.discard()
        sink.clean()

        assert sink.published() is None
        assert sink.all_notes() == []
        assert self.read_result() is None

    @pytest.mark.parametrize("there_was_a_result", [False, True], ids=["new", "old"])
    def test_no_rows_make_an_empty_result_with_all_columns(self, there_was_a_result: bool) -> None:
        if there_was_a_result:
            self.seed_old_result(table_of(spans_of(split_of(9, 10, 10))))
        sink = self.make_sink()

        sink.prepare(SCHEMA)
        self.publish(sink)
        table = self.read_result()

        assert table is not None
        assert table.column_names == SCHEMA.names
        assert table.num_rows == 0
        assert sink.published() == Counts()

    def test_spans_without_a_scored_row_are_noted_and_published(self) -> None:
        split = split_of(1, 30, 10)
        sink = self.make_sink()
        sink.prepare(SCHEMA)

        self.stage(sink, spans_of(split, rejected=10))
        self.publish(sink, split)
        table = self.read_result()

        assert table is not None
        assert table.num_rows == 0
        assert sink.published() == Counts(rejected=30)

    def test_rejected_rows_are_not_in_the_result(self) -> None:
        split = split_of(1, 30, 10)
        sink = self.make_sink()
        sink.prepare(SCHEMA)

        self.stage(sink, spans_of(split, rejected=3))
        self.publish(sink, split)

        assert values_in(self.read_result()) == values_in(table_of(spans_of(split, rejected=3)))
        assert sink.published() == Counts(scored=21, rejected=9)

    def test_jobs_that_stage_side_by_side_do_not_mix(self) -> None:
        one, two = split_of(1, 200, 100), split_of(2, 100, 100)
        first, second = self.make_sink(job_id="job_1"), self.make_sink(job_id="job_2")

        for sink, split in ((first, one), (second, two)):
            sink.prepare(SCHEMA)
            self.stage(sink, spans_of(split))
        self.publish(first, one, job_id="job_1")
        after_first = self.read_result()
        first.clean()
        self.publish(second, two, job_id="job_2")

        assert values_in(after_first) == values_in(table_of(spans_of(one)))
        assert values_in(self.read_result()) == values_in(table_of(spans_of(two)))

    def test_slices_of_a_larger_batch_are_staged_as_they_are(self) -> None:
        split = split_of(1, 200, 100)
        whole = rows_of(split.first_row - 7, 1000)
        spans = [ScoredSpan(scored.span, whole.slice(7 + scored.span.start, 100)) for scored in spans_of(split)]
        sink = self.make_sink()
        sink.prepare(SCHEMA)

        self.stage(sink, spans)
        self.publish(sink, split)

        assert values_in(self.read_result()) == values_in(table_of(spans_of(split)))


def _stage_fresh(sink: Sink, spans: list[ScoredSpan]) -> None:
    """Stage what is not noted yet, as the pipeline does."""
    noted: list[Note] | None = None
    while noted is None and (spans := without_noted(spans, sink.noted(spans[0].span.split.id))):
        noted = sink.stage(spans, None)


def _refusal(act: Callable[[], object]) -> str:
    """The line with which `act` is refused."""
    with pytest.raises(OutputError) as refused:
        act()

    message = str(refused.value)
    assert "\n" not in message
    return message


def _digest(table: pa.Table) -> tuple[int, int]:
    """Rows, and the sum of their ids: equal only for the same result of those a test has."""
    return table.num_rows, pc.sum(table["id"]).as_py() or 0
