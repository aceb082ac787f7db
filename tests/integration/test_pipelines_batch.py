"""The batch graph, on Beam's own runner and on one that does its worst."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.batch import BatchRun
from pipelines.running import run_graph
from tests.replaying import ReplayingRunner
from tests.scenes import Doubler, Scene, hidden, numbered_rows, published_rows, scene
from transforms.batches import Batch, ScoredSpan, Split
from transforms.coders import BatchCoder, ScoredSpanCoder, SplitCoder
from transforms.counts import Counts
from transforms.errors import TooManyRejects
from transforms.publish import AlwaysOpen, publish
from transforms.read import Read
from transforms.score import Score
from transforms.sources.parquet import ParquetSource
from transforms.stage import Stage, Staged

BAD = [3, 4, 250, 251, 252, 999]
NULLS = [0, 500, 501]
# What lies beside the results.
MANIFESTS = [".rejects.penstock.json", ".scores.penstock.json"]


@pytest.fixture
def small(tmp_path: Path) -> Scene:
    return scene(tmp_path, numbered_rows(1000, bad=BAD, nulls=NULLS))


def finish(run: BatchRun) -> None:
    """Run the graph and publish."""
    run_graph(run, "direct")
    publish(run.publication)


def check_published(scene: Scene) -> None:
    """Every row once: the good ones scored, the bad ones rejected with their reason."""
    good = [(i, 2.0 * i) for i in range(1000) if i not in {*BAD, *NULLS}]
    assert published_rows(scene.folder / "scores") == good
    rejects = pq.read_table(scene.folder / "rejects").sort_by("id").to_pylist()
    assert [row["id"] for row in rejects] == sorted([*BAD, *NULLS])
    for row in rejects:
        assert row["note"] == f"row {row['id']}"
        expected = (
            ("NullFeature", "column value is null") if row["id"] in NULLS else ("ValueError", "a value is negative")
        )
        assert (row["error_type"], row["error"]) == expected
        file, _, position = row["position"].rpartition(":")
        assert pq.read_table(file).slice(int(position), 1)["id"].to_pylist() == [row["id"]]


def test_a_run_publishes_each_row_once_and_leaves_nothing_behind(small: Scene) -> None:
    finish(small.run())

    check_published(small)
    assert hidden(small.folder) == MANIFESTS
    assert small.sink.published() == Counts(scored=991, rejected=9)


def test_nothing_is_published_before_the_graph_has_ended_well(small: Scene) -> None:
    run = small.run()
    run_graph(run, "direct")

    assert small.sink.published() is None
    assert not (small.folder / "scores").exists()
    assert publish(run.publication) == Counts(scored=991, rejected=9)
    assert publish(run.publication) == Counts(scored=991, rejected=9), "again, it changes nothing"
    check_published(small)


def test_no_worker_gets_the_plan_or_what_opens_the_gate(small: Scene) -> None:
    run = replace(small.run(), publication=replace(small.run().publication, gate=Unpicklable()))
    finish(run)

    check_published(small)


class Unpicklable(AlwaysOpen):
    """A gate that must not leave the process of the job."""

    def __reduce__(self) -> Any:
        raise AssertionError("pickled")


@pytest.mark.parametrize("seed", range(40))
def test_any_bundles_any_order_and_any_replay_give_each_row_once(small: Scene, seed: int) -> None:
    ReplayingRunner(seed).run(small.run())

    check_published(small)
    assert hidden(small.folder) == MANIFESTS


def test_the_graph_is_right_where_nothing_is_fused(small: Scene) -> None:
    run = small.run()
    job = run.publication
    with beam.Pipeline(runner=FnApiRunner()) as root:
        splits = root | "Splits" >> beam.Create(job.splits) | "Spread" >> beam.Reshuffle()
        batches = splits | "Read" >> Read(run.source, run.columns, job.sink, run.telemetry) | "Cut1" >> beam.Reshuffle()
        scored = batches | "Score" >> Score(run.scoring, run.telemetry) | "Cut2" >> beam.Reshuffle()
        scored | "Stage" >> Stage(job.sink, job.rejects, run.telemetry, run.bounds) | "Cut3" >> beam.Reshuffle()
    publish(job)

    check_published(small)


def test_elements_are_typed_from_end_to_end(small: Scene) -> None:
    run = small.run()
    job = run.publication
    root = beam.Pipeline(runner=FnApiRunner())
    splits = root | "Splits" >> beam.Create(job.splits) | "Spread" >> beam.Reshuffle()
    batches = splits | "Read" >> Read(run.source, run.columns, job.sink, run.telemetry)
    scored = batches | "Score" >> Score(run.scoring, run.telemetry)
    staged = scored | "Stage" >> Stage(job.sink, job.rejects, run.telemetry, run.bounds)

    collections = [splits, batches, scored, staged]
    assert [collection.element_type for collection in collections] == [Split, Batch, ScoredSpan, Staged]
    coders = [type(beam.coders.registry.get_coder(collection.element_type)) for collection in collections[:3]]
    assert coders == [SplitCoder, BatchCoder, ScoredSpanCoder]


def test_only_the_descriptors_cross_the_first_shuffle_and_the_rest_is_fused(small: Scene) -> None:
    run = small.run()
    seen: list[int] = []
    encode = BatchCoder.encode
    try:
        BatchCoder.encode = lambda self, value: seen.append(1) or encode(self, value)  # type: ignore[method-assign]
        run_graph(run, "direct")
    finally:
        BatchCoder.encode = encode  # type: ignore[method-assign]

    assert seen == []


def test_a_run_over_its_ratio_publishes_the_rejects_alone_and_a_larger_ratio_publishes_the_rest(tmp_path: Path) -> None:
    strict = scene(tmp_path, numbered_rows(1000, bad=BAD, nulls=NULLS), max_reject_ratio=0.008)
    expected = r"9 of 1,000 rows were rejected .* --max-reject-ratio 0\.01"
    with pytest.raises(TooManyRejects, match=expected):
        finish(strict.run())
    assert not (tmp_path / "scores").exists()
    assert pq.read_table(tmp_path / "rejects").num_rows == 9

    lenient = Scene(tmp_path, strict.source, strict.splits, max_reject_ratio=0.01, predictor=Exploding())
    finish(lenient.run())

    check_published(lenient)


class Exploding(Doubler):
    """A predictor that must not be called."""

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        raise AssertionError("these rows were scored already")


def test_an_input_without_rows_gives_an_empty_result_with_its_schema(tmp_path: Path) -> None:
    empty = scene(tmp_path, numbered_rows(0), files=1)
    finish(empty.run())

    table = pq.read_table(tmp_path / "scores")
    assert (table.num_rows, table.schema.names) == (0, ["id", "score"])
    assert pq.read_table(tmp_path / "rejects").schema.names == [
        "id",
        "value",
        "note",
        "position",
        "error_type",
        "error",
    ]


def test_only_the_columns_that_are_needed_are_read(small: Scene) -> None:
    run = small.run()
    source = _Recording(run.source)
    finish(BatchRun(source, run.columns, run.scoring, run.publication, run.telemetry, run.bounds))

    assert set(_Recording.asked) == {("id", "value")}


class _Recording(ParquetSource):
    """A source that remembers which columns were asked for."""

    asked: list[tuple[str, ...]] = []

    def __init__(self, source: ParquetSource) -> None:
        super().__init__(source.files, source.schema)

    def read(self, split, columns, start=0):  # type: ignore[no-untyped-def]
        self.asked.append(tuple(columns))
        return super().read(split, columns, start)
