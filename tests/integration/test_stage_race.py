"""Workers that race over the same splits with different cuts stage each row once, among the rejects as well."""

import multiprocessing
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from threading import Barrier
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.scenes import SCORES, Scene, hidden, numbered_rows, published_rows, scene
from tests.servers import Postgres
from transforms.batches import Batch, Rejected, ScoredSpan, Split
from transforms.connection import Connection
from transforms.counts import Counts
from transforms.ledger import Note
from transforms.publish import Publication, publish
from transforms.rejects import RejectFolder
from transforms.sinks.base import Sink
from transforms.sinks.table import table_sink
from transforms.stage import stage_part

ROWS = 2400
# Every seventh row is refused: some in each span, none at the same place as in the one before.
REFUSED = range(0, ROWS, 7)
# What a worker is given to come to the next split, on a loaded machine.
PATIENCE_S = 60


@dataclass(frozen=True)
class Place:
    """A sink, and what readers of its result see."""

    sink: Sink
    read: Callable[[], list[tuple[Any, ...]]]


@pytest.fixture
def job(tmp_path: Path) -> Scene:
    """24 splits of 100 rows; spans are of 30 rows, the last of 10."""
    return scene(tmp_path, numbered_rows(ROWS), job_id="batch_race")


@pytest.fixture
def parquet(job: Scene) -> Place:
    return Place(job.sink, lambda: published_rows(job.folder / "scores"))


@pytest.fixture
def sqlite(job: Scene) -> Place:
    file = job.folder / "scores.db"

    def read() -> list[tuple[Any, ...]]:
        database = sqlite3.connect(file)
        try:
            return database.execute("SELECT id, score FROM scores ORDER BY id").fetchall()
        finally:
            database.close()

    return Place(
        table_sink(Connection(f"sqlite:///{file}"), "scores", "overwrite", job.job_id, job.job_folder / "staged"), read
    )


@pytest.fixture
def postgresql(job: Scene, postgres: Postgres) -> Place:
    uri = postgres.database()
    return Place(
        table_sink(Connection(uri), "scores", "overwrite", job.job_id, job.job_folder / "staged"),
        lambda: postgres.execute("SELECT id, score FROM scores ORDER BY id", uri),
    )


@pytest.fixture(params=["parquet", "sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Makes processes that have imported what workers need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transforms.stage", "transforms.sinks.table", "adbc_driver_postgresql.dbapi"])
    return context


def score(batch: Batch) -> ScoredSpan:
    """What scoring makes of a span: twice the value, every seventh row refused."""
    refused = pc.equal(pc.subtract(batch.rows["id"], pc.multiply(pc.divide(batch.rows["id"], 7), 7)), 0)
    at = pc.indices_nonzero(refused).cast(pa.int32())
    kept = batch.rows.filter(pc.invert(refused))
    rows = pa.RecordBatch.from_arrays(
        [kept["id"], pc.multiply(kept["value"], 2.0)],
        schema=pa.schema([kept.schema.field("id"), *SCORES]),
    )
    if not len(at):
        return ScoredSpan(batch.span, rows)
    why = pa.array(["ValueError"] * len(at)), pa.array([f"seven at {i}" for i in at.to_pylist()])
    return ScoredSpan(batch.span, rows, Rejected(batch.rows.take(at), at, *why))


def work(job: Scene, sink: Sink, rejects: RejectFolder, step: int, together: Any) -> list[Note]:
    """Be a worker: stage all splits, `step` spans to a part, each split begun when the others begin it."""
    notes = []
    try:
        for split in job.splits:
            spans = [score(batch) for batch in job.source.read(split, ("id", "value"))]
            together.wait(PATIENCE_S)
            for at in range(0, len(spans), step):
                notes += stage_part(sink, rejects, spans[at : at + step])
    except BaseException:
        together.abort()
        raise
    return notes


def tell(results: Any, *asked: Any) -> None:
    """Be a worker in a process of its own, and tell which notes it made."""
    results.put(work(*asked))


def key(note: Note) -> tuple[str, int]:
    return note.split, note.start


def rows_of(splits: tuple[Split, ...]) -> list[tuple[str, int]]:
    """The spans of `splits`, by split and start."""
    return [(split.id, start) for split in splits for start in range(0, split.rows or 0, split.span_rows)]


def check_raced(job: Scene, place: Place, publication: Publication, made: list[list[Note]]) -> None:
    """Publish what the workers staged, and find each row in it once."""
    noted = sorted(key(note) for notes in made for note in notes)
    parts = {path.name for path in (job.folder / f".rejects.penstock-{job.job_id}" / "parts").iterdir()}
    named = {note.rejects for note in place.sink.all_notes()}
    counts = publish(publication)
    rejects = pq.read_table(job.folder / "rejects").sort_by("id").to_pylist()

    assert noted == rows_of(job.splits), "a span was noted twice or never"
    assert parts == named, "rejects that nobody noted lie around"
    assert counts == Counts(scored=ROWS - len(REFUSED), rejected=len(REFUSED))
    assert place.read() == [(i, 2.0 * i) for i in range(ROWS) if i not in REFUSED]
    assert [(row["id"], row["value"], row["note"]) for row in rejects] == [(i, float(i), f"row {i}") for i in REFUSED]
    assert [row["position"].rpartition("/")[2] for row in rejects] == [
        f"in-{i // 800:02d}.parquet:{i % 800}" for i in REFUSED
    ]
    assert [(row["error_type"], row["error"]) for row in rejects] == [
        ("ValueError", f"seven at {i % 100 % 30}") for i in REFUSED
    ]
    folders = ("rejects", "scores") if (job.folder / "scores").is_dir() else ("rejects",)
    assert hidden(job.folder) == [f".{name}.penstock.json" for name in folders], "more than the manifests was left"


# In spans to a part, a split has four. Parts that lie within one another, and parts that overlap.
CUTS = [pytest.param((1, 4), id="nested"), pytest.param((2, 3), id="crossing"), pytest.param((3, 3), id="alike")]


@pytest.mark.parametrize("cuts", CUTS)
def test_threads_that_race_with_other_cuts_stage_each_row_and_each_reject_once(
    job: Scene, place: Place, cuts: tuple[int, int]
) -> None:
    publication = job.run(place.sink).publication
    together = Barrier(len(cuts))

    with ThreadPoolExecutor() as threads:
        working = [threads.submit(work, job, place.sink, job.rejects, step, together) for step in cuts]
        made = [worker.result() for worker in working]

    check_raced(job, place, publication, made)


def test_processes_that_race_with_other_cuts_stage_each_row_and_each_reject_once(
    job: Scene, place: Place, processes: ForkServerContext
) -> None:
    publication = job.run(place.sink).publication
    cuts = (2, 3)
    together, results = processes.Barrier(len(cuts)), processes.Queue()

    workers = [
        processes.Process(target=tell, args=(results, job, place.sink, job.rejects, step, together)) for step in cuts
    ]
    for worker in workers:
        worker.start()
    made = [results.get(timeout=PATIENCE_S) for _ in workers]
    for worker in workers:
        worker.join()

    check_raced(job, place, publication, made)
