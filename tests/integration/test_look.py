"""`penstock plan` tells of a job what is so, and leaves no trace."""

import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.estimate.look import Feature, PlanReport, look
from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput, Rejects, SqlInput, TableOutput
from predictors.base import ModelSpec
from predictors.bounds import Bounds
from tests.rights import as_nobody, let_in
from tests.servers import Postgres
from transforms.errors import PipelineError

# More than a query's sample, so that their number cannot be told from that.
ROWS = 300_000
QUERY = "SELECT id, a, b, note FROM numbers ORDER BY id"
# The row at 1 has no `a`; the one at 3 the model refuses.
FIRST = [0, 2, 4, 5, 6]
DOUBLE = pa.float64()


@dataclass
class Sum:
    """Scores a whole number and a fraction with their sum; refuses negative fractions."""

    thread_safe: bool = field(default=True, init=False)
    input_schema: pa.Schema = field(default=pa.schema([("a", DOUBLE), ("b", DOUBLE)]), init=False)
    output_schema: pa.Schema = field(default=pa.schema([("total", DOUBLE)]), init=False)

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        a, b = (rows[name].to_numpy() for name in ("a", "b"))
        if (b < 0).any():
            raise ValueError("b is negative")
        return pa.RecordBatch.from_arrays([pa.array(a + b)], schema=self.output_schema)


@dataclass(frozen=True)
class Place:
    """A job that could be run.

    Args:
        given: the type under which `a` is read.
        input: what the job reads, as messages name it.
        state: all that lies in the database; nothing for files, which are looked at anyway.
    """

    spec: JobSpec
    given: str
    input: str
    state: Callable[[], Any] = lambda: None


def job_spec(source: Any, output: Any) -> JobSpec:
    return JobSpec(
        ModelSpec(f"{__name__}:Sum", "python"), source, output, Rejects("out/rejects", 0.5), Config(batch_size=1000)
    )


@pytest.fixture
def parquet(work: Path) -> Place:
    a = pa.array((None if n == 1 else n for n in range(ROWS)), pa.int32())
    b = pa.array((-1.0 if n == 3 else n / 4 for n in range(ROWS)), DOUBLE)
    (work / "in").mkdir()
    pq.write_table(pa.table({"id": range(ROWS), "a": a, "b": b}), work / "in" / "a.parquet", row_group_size=50_000)
    source = ParquetInput(("in",))
    return Place(job_spec(source, ParquetOutput("out/scores", columns=("id",))), "int32", "in/a.parquet")


SERIES = "WITH RECURSIVE series (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM series WHERE n < {last})"
COLUMNS = "n AS id, CASE WHEN n <> 1 THEN n END AS a, CASE WHEN n = 3 THEN -1.0 ELSE n / 4.0 END AS b"


@pytest.fixture
def sqlite(work: Path) -> Place:
    database = sqlite3.connect(work / "numbers.db")
    database.execute("CREATE TABLE numbers (id INTEGER PRIMARY KEY, a INTEGER, b REAL, note TEXT)")
    database.execute(f"INSERT INTO numbers {SERIES.format(last=ROWS - 1)} SELECT {COLUMNS}, 'row ' || n FROM series")
    database.execute("CREATE TABLE old (id INTEGER)")
    database.commit()
    database.close()
    connection = "sqlite:///numbers.db"
    return Place(
        job_spec(SqlInput(connection, QUERY), TableOutput(connection, "scores", columns=("id",))), "int64", "query"
    )


@pytest.fixture
def postgresql(work: Path, postgres: Postgres) -> Place:
    uri = postgres.database()
    postgres.execute("CREATE TABLE numbers (id bigint, a integer, b float8, note text)", uri)
    postgres.execute(f"INSERT INTO numbers SELECT {COLUMNS}, 'row ' || n FROM generate_series(0, {ROWS - 1}) AS n", uri)
    # Who wrote each row and where it lies says more than the rows.
    contents = "SELECT count(*), md5(string_agg(ctid::text || xmin::text || id, ',')) FROM numbers"
    relations = "SELECT oid::bigint, relname::text, relkind::text FROM pg_class WHERE relnamespace <> 99 ORDER BY oid"

    return Place(
        job_spec(SqlInput(uri, QUERY), TableOutput(uri, "scores", columns=("id",))),
        "int32",
        "query",
        lambda: (postgres.execute(contents, uri), postgres.execute(relations, uri)),
    )


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; Penstock's home and the folder of temporary files would be in it, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture(params=["parquet", "sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def listing(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that lies in `folder`: inode, time of the last change, contents."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


@dataclass(frozen=True)
class Looked:
    """A report, and what lay around before and after it was made."""

    report: PlanReport
    before: Any
    after: Any


def look_at(place: Place, work: Path) -> Looked:
    before = listing(work), place.state()
    report = look(place.spec)
    return Looked(report, before, (listing(work), place.state()))


def test_a_plan_is_exact_and_writes_nothing(place: Place, work: Path) -> None:
    looked = look_at(place, work)
    report = looked.report

    assert (report.rows, report.splits) == (ROWS, 1)
    assert report.features == [Feature("a", place.given, "double"), Feature("b", "double", "double")]
    assert report.output == [("id", "int64"), ("total", "double")]
    assert report.predictions.to_pylist() == [{"id": n, "total": n + n / 4} for n in FIRST]
    assert [line.removeprefix(str(work)).lstrip("/") for line in report.refused] == [
        f"{place.input}:1 NullFeature: column a is null",
        f"{place.input}:3 ValueError: b is negative (tests/integration/test_look.py:45 in predict)",
    ]
    assert 1000 <= report.sample_rows <= ROWS
    assert 0 < report.seconds[0] < report.likely_s < report.seconds[1]
    assert 2**28 < report.memory_bytes < 2**30
    assert report.assumptions[0].startswith(f"{report.sample_rows:,} rows were timed")
    assert [("database" in " ".join(report.assumptions), "destination" in " ".join(report.assumptions))] == [
        (place.input == "query", place.input == "query")
    ]
    assert looked.after == looked.before
    assert not os.path.exists("home")


def test_a_plan_says_what_files_lack_and_what_is_passed_over(parquet: Place, work: Path) -> None:
    (work / "in" / "notes.txt").write_text("no data")
    pq.write_table(pa.table({"a": pa.array([1], pa.int64()), "b": [0.5]}), work / "in" / "part-0")

    report = look(parquet.spec)

    assert report.rows == ROWS + 1
    assert [notice.code for notice in report.notices] == [
        "files_passed_over",
        "column_missing_in_files",
        "types_unified",
    ]


@pytest.mark.parametrize(("ratio", "is_said"), [(0.0, True), (0.5, False)])
def test_a_plan_says_when_the_sample_is_rejected_above_the_ratio(parquet: Place, ratio: float, is_said: bool) -> None:
    report = look(replace(parquet.spec, rejects=Rejects("out/rejects", ratio)))

    lines = [str(notice) for notice in report.notices if notice.code == "above_max_reject_ratio"]
    assert len(lines) == is_said
    for line in lines:
        assert line.startswith(f"2 of {report.sample_rows:,} rows looked at are rejected: above max_reject_ratio 0; ")
        assert re.fullmatch(r".*; .*: correct the rows, or set rejects\.max_reject_ratio to 0\.\d+", line)


@pytest.mark.parametrize("place", ["sqlite", "postgresql"], indirect=True)
def test_a_plan_of_a_query_without_rows_has_no_predictions(place: Place, work: Path) -> None:
    nothing = replace(place.spec.input, query="SELECT id, a, b FROM numbers WHERE id < 0")
    report = look(replace(place.spec, input=nothing))

    assert (report.rows, report.splits, report.sample_rows) == (0, 0, 0)
    assert report.predictions.num_rows == 0
    assert report.predictions.column_names == ["id", "total"]
    assert 0 < report.seconds[0] < report.likely_s < report.seconds[1]
    assert report.assumptions[0] == "there was no row to be timed"


def refuse_out(work: Path) -> None:
    (work / "out").mkdir()
    (work / "out").chmod(0o555)


def keep_result(work: Path) -> None:
    pq.write_table(pa.table({"id": [1]}), work / "kept.parquet")
    (work / "out" / "scores").mkdir(parents=True)
    (work / "kept.parquet").rename(work / "out" / "scores" / "part-0.parquet")


def keep_notes(work: Path) -> None:
    (work / "out" / "rejects").mkdir(parents=True)
    (work / "out" / "rejects" / "notes.txt").touch()


@pytest.mark.parametrize(
    ("spoil", "refusal"),
    [
        pytest.param(lambda work: (work / "out").touch(), r"output\.path.*is a file", id="a file above"),
        pytest.param(keep_result, r"output\.path.*there is a result already", id="a result"),
        pytest.param(keep_notes, r"rejects\.path.*other files than", id="other files than rejects"),
        pytest.param(refuse_out, r"output\.path.*not writable", id="a folder that is not writable"),
    ],
)
def test_a_plan_refuses_a_folder_that_a_run_would(
    parquet: Place, work: Path, spoil: Callable[[Path], None], refusal: str
) -> None:
    # All is imported by then that is not everybody's to read.
    look(parquet.spec)
    spoil(work)
    let_in(work)
    before = listing(work)

    with as_nobody() if spoil is refuse_out else nullcontext(), pytest.raises(PipelineError, match=refusal):
        look(parquet.spec)
    assert listing(work) == before


@pytest.mark.parametrize(
    ("place", "table", "refusal"),
    [
        pytest.param("sqlite", "old", "the table is there already", id="a table of SQLite"),
        pytest.param("postgresql", "numbers", "the table is there already", id="a table of PostgreSQL"),
    ],
    indirect=["place"],
)
def test_a_plan_refuses_a_table_that_a_run_would(place: Place, work: Path, table: str, refusal: str) -> None:
    query = SqlInput(place.spec.input.connection, "SELECT 1 AS id, 1 AS a, 0.5 AS b")  # type: ignore[union-attr]
    before = place.state()

    with pytest.raises(PipelineError, match=refusal):
        look(replace(place.spec, input=query, output=replace(place.spec.output, table_name=table)))
    assert place.state() == before


@dataclass
class Heavy:
    """Takes 64 MiB each time that it is loaded, and holds the interpreter for 2 ms a call."""

    output_schema: pa.Schema = field(default=pa.schema([("total", DOUBLE)]), init=False)

    def load(self) -> None:
        # Filled, so that memory is taken, and soon: how many threads are tried depends on how long loading takes.
        self.weights = bytearray(b"x") * (64 * 2**20)
        HEAVY.append(id(self))

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        began = time.thread_time()
        while time.thread_time() - began < 0.002:
            pass
        return pa.RecordBatch.from_arrays([rows["a"].cast(DOUBLE)], schema=self.output_schema)


HEAVY: list[int] = []


def test_a_model_that_each_thread_loads_is_counted_for_each(parquet: Place) -> None:
    model = ModelSpec(f"{__name__}:Heavy", "python", ("a",), "pass")
    report = look(replace(parquet.spec, model=model, config=Config(batch_size=1000, parallelism=3)))
    small = look(replace(parquet.spec, model=model, config=Config(batch_size=1000, parallelism=1)))

    # One for the columns to be checked against, and one a thread, tried here as a run would have them.
    assert len(HEAVY) == 1 + 3 + 1 + 1
    assert "the model is loaded 4 times, as it does not say that it is thread-safe" in report.assumptions
    assert report.memory_bytes - small.memory_bytes > 2 * 60 * 2**20
    # 300 calls that hold the interpreter take 0.6 s, however many threads make them.
    assert report.likely_s > 0.6


def test_a_job_from_a_warm_process_is_quicker(parquet: Place) -> None:
    cold, warm = look(parquet.spec), look(parquet.spec, is_warm=True)

    assert warm.seconds[0] < cold.seconds[0]
    assert "a new process imports Beam" in cold.assumptions
    assert "the process starts warm, from one that has its libraries" in warm.assumptions


@pytest.mark.parametrize("name", ["parquet", "sqlite"])
def test_nothing_is_looked_at_that_leads_elsewhere(
    request: pytest.FixtureRequest, name: str, work: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place: Place = request.getfixturevalue(name)
    spec = replace(place.spec, model=replace(place.spec.model, uri=f"{__name__}:Exchanging"))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    file = work / "in" / "a.parquet"
    if isinstance(spec.input, SqlInput):
        file = Path(spec.input.connection.removeprefix("sqlite:///")).resolve()
        # As a service has it, which resolves what a request names.
        own = f"sqlite:///{file}"
        spec = replace(spec, input=replace(spec.input, connection=own), output=replace(spec.output, connection=own))
    within = Bounds((str(work),))
    EXCHANGE[:] = []
    report = look(spec, within=within)
    EXCHANGE[:] = [(file, elsewhere / file.name)]

    assert report.rows == ROWS
    with pytest.raises(PipelineError, match=r"outside of the folders|leads elsewhere"):
        look(spec, within=within)


# Files to be moved, and whereto; a link to it takes the place of each.
EXCHANGE: list[tuple[Path, Path]] = []


class Exchanging(Sum):
    """Once it is loaded, links have come in the place of files."""

    def load(self) -> None:
        for file, elsewhere in EXCHANGE:
            file.rename(elsewhere)
            file.symlink_to(elsewhere)
