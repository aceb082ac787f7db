"""A reader that polls while jobs overwrite a result sees the old rows or the new ones, all of them, never a mixture."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import adbc_driver_postgresql.dbapi
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.spec import JobSpec, ParquetOutput, TableOutput
from tests.faults.killing import ForkingSupervisor, finish
from tests.faults.places import EXPECTED, OLD, Place
from tests.scenes import SCORES, Doubler

# What a reader is given for its next look, on a loaded machine.
PATIENCE_S = 60
QUERY = "SELECT id, score FROM scores"


class Quadrupler(Doubler):
    """Twice what `Doubler` says: its rows differ from those of the job before in each score but one."""

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays([pc.multiply(super().predict(rows)["score"], 2.0)], schema=SCORES)


def quadrupled(spec: JobSpec) -> JobSpec:
    return replace(spec, model=replace(spec.model, uri=f"{__name__}:Quadrupler"))


def rows(scale: float) -> pa.Table:
    """What a job leaves whose scores are `scale` times those of `Doubler`."""
    return pa.table({"id": [i for i, _ in EXPECTED], "score": [scale * score for _, score in EXPECTED]})


RESULTS = {"old": pa.table(dict(zip(("id", "score"), zip(*OLD, strict=True), strict=True))), "double": rows(1)}
RESULTS["quadruple"] = rows(2)


def look(output: ParquetOutput | TableOutput) -> pa.Table | None:
    """What a user's own tools read, in order; None when they have to read again."""
    if isinstance(output, ParquetOutput):
        try:
            table = pq.read_table(output.path)
        except FileNotFoundError:
            # The folder's names were taken before the exchange and its files opened after it.
            return None
        # Or they were looked up after it: what is not found is left out, and all were of the old result. Any result,
        # also one without rows, has its columns.
        return table if table.column_names else None
    if output.connection.startswith("sqlite:///"):
        return look_at_sqlite(output.connection.removeprefix("sqlite:///"))
    with adbc_driver_postgresql.dbapi.connect(output.connection) as database, database.cursor() as cursor:
        cursor.execute(QUERY)
        return cursor.fetch_arrow_table()


def look_at_sqlite(file: str) -> pa.Table | None:
    database = sqlite3.connect(file)
    try:
        ids, scores = zip(*database.execute(QUERY).fetchall(), strict=True)
    except sqlite3.OperationalError as error:
        if "database is locked" not in str(error):
            raise
        return None
    finally:
        database.close()
    return pa.table({"id": ids, "score": scores})


def named(table: pa.Table) -> str:
    """Which of the results a table is, or what is wrong with it."""
    table = table.select(["id", "score"]).sort_by("id").combine_chunks()
    seen = pa.table({"id": table["id"].cast(pa.int64()), "score": table["score"].cast(pa.float64())})
    for name, result in RESULTS.items():
        if seen.equals(result):
            return name
    ids = pc.unique(seen["id"])
    return (
        f"{len(seen)} rows, {len(ids)} ids from {pc.min(ids)} to {pc.max(ids)}, sum of scores {pc.sum(seen['score'])}"
    )


@dataclass
class Reader:
    """Names what it sees, again and again."""

    read: Callable[[], pa.Table | None]
    seen: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    looked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def poll(self) -> None:
        try:
            while not self.stop.is_set():
                table = self.read()
                if table is not None:
                    self.seen.append(named(table))
                    self.looked.release()
        finally:
            # Nobody is to wait for what it will not see; what stopped it is raised where its result is asked for.
            self.stop.set()
            self.looked.release(2)

    def await_whole_look(self) -> None:
        """Wait for a look that began after this call."""
        while not self.stop.is_set() and self.looked.acquire(blocking=False):
            pass
        # The first to end may have begun before.
        for _ in range(2):
            assert self.stop.is_set() or self.looked.acquire(timeout=PATIENCE_S)


@contextmanager
def polling(output: ParquetOutput | TableOutput) -> Iterator[Reader]:
    reader = Reader(lambda: look(output))
    with ThreadPoolExecutor() as threads:
        reading = threads.submit(reader.poll)
        try:
            yield reader
        finally:
            reader.stop.set()
            reading.result(PATIENCE_S)


def test_a_reader_that_polls_through_whole_jobs_sees_each_result_whole_and_in_its_turn(
    place: Place, supervisor: ForkingSupervisor, tmp_path: Path
) -> None:
    jobs = []
    with polling(place.spec.output) as reader:
        for spec in (place.spec, quadrupled(place.spec)):
            reader.await_whole_look()
            started = supervisor.submit(spec, tmp_path)
            finish(started)
            jobs.append(supervisor.job(started.job.id))
        reader.await_whole_look()

    assert [(job.status, job.error) for job in jobs] == [("completed", None)] * 2
    assert [name for name, _ in groupby(reader.seen)] == ["old", "double", "quadruple"]
