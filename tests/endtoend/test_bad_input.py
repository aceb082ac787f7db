"""What goes wrong says so in one line: what, where, and what to do. The old result stays, nothing half-made is seen."""

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, save_model

from launcher.state.job import Job
from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput, Rejects, SqlInput, TableOutput
from predictors.base import ModelSpec
from tests.encrypting import write_encrypted
from tests.faults.killing import ForkingSupervisor, finish
from tests.scenes import SCORES, Doubler, numbered_rows, write_files
from tests.servers import Postgres

OLD = pa.table({"id": [-1], "score": [-1.0]})


@dataclass
class TooFew(Doubler):
    """Answers for all rows but one."""

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        return super().predict(rows).slice(1)


@dataclass
class Otherwise(Doubler):
    """Answers with another column than promised."""

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        return super().predict(rows).rename_columns(["points"])


@dataclass
class Lost(Doubler):
    """Needs a column that is not there."""

    input_schema: pa.Schema = field(default=pa.schema([pa.field("vlaue", pa.float64())]), init=False)
    output_schema: pa.Schema = field(default=SCORES, init=False)


@pytest.fixture
def supervisor(tmp_path: Path) -> ForkingSupervisor:
    return ForkingSupervisor(tmp_path / "home")


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    """A job over Parquet that would pass, in a folder with an old result."""
    write_files(tmp_path / "in", numbered_rows(500), files=2)
    (tmp_path / "scores").mkdir()
    pq.write_table(OLD, tmp_path / "scores" / "old.parquet")
    with sqlite3.connect(tmp_path / "numbers.db") as database:
        database.execute("CREATE TABLE numbers (id INTEGER, value REAL)")
        database.execute("INSERT INTO numbers VALUES (1, 1.5)")
    database.close()
    return JobSpec(
        ModelSpec("tests.scenes:Doubler", "python"),
        ParquetInput(("in",)),
        ParquetOutput("scores", "overwrite", ("id",)),
        Rejects("rejects"),
        Config(batch_size=100, parallelism=2),
    )


def run(supervisor: ForkingSupervisor, spec: JobSpec, folder: Path) -> Job:
    started = supervisor.submit(spec, folder)
    finish(started)
    return supervisor.job(started.job.id)


def check_failed(job: Job, message: str, folder: Path) -> None:
    """The job failed with one line that holds `message`; the old result stands and nothing lies beside it."""
    assert job.status == "failed"
    assert job.error is not None
    assert message in job.error
    assert "\n" not in job.error
    assert pq.read_table(folder / "scores").equals(OLD)


def onnx_doubler(path: Path) -> None:
    """A model that doubles `value`."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["value", "value"], ["score"])],
        "doubler",
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])],
    )
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


SQLITE = "sqlite:///numbers.db"


def onnx(uri: str) -> ModelSpec:
    return ModelSpec(uri, "onnx", ("value",))


def sql(query: str, connection: str = SQLITE) -> SqlInput:
    return SqlInput(connection, query)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"input": ParquetInput(("none.parquet",))},
            "input.path none.parquet: there is no such file",
            id="missing file",
        ),
        pytest.param(
            {"input": ParquetInput(("in/*.csv",))}, "input.path in/*.csv: no file matches the pattern", id="empty glob"
        ),
        pytest.param(
            {"input": sql("SELECT * FROM numbers", "sqlite:///none.db")}, "there is no file none.db", id="no database"
        ),
        pytest.param(
            {"input": sql("SELECT * FROM numbers", "postgresql://nobody@127.0.0.1:1/x")},
            "connection postgresql://nobody@127.0.0.1:1/x",
            id="unreachable database",
        ),
        pytest.param({"input": sql("SELECT * FROM numers")}, "no such table: numers", id="unknown table"),
        pytest.param({"input": sql("SELECT x FROM numbers")}, "no such column: x", id="unknown column"),
        pytest.param({"input": sql("DELETE FROM numbers")}, "DELETE", id="query that writes"),
        pytest.param({"input": sql("SELECT 1 AS value; DROP TABLE numbers")}, "2 statements", id="two statements"),
        pytest.param({"model": onnx("none.onnx")}, "model none.onnx: there is no such file", id="model missing"),
        pytest.param(
            {"model": onnx("broken.onnx")}, "model broken.onnx is not a readable ONNX model", id="model corrupt"
        ),
        pytest.param({"model": ModelSpec("nowhere:Class", "python")}, "No module named 'nowhere'", id="no module"),
        pytest.param({"model": ModelSpec("tests.scenes:Nobody", "python")}, "has no class Nobody", id="no class"),
        pytest.param(
            {"model": ModelSpec("tests.endtoend.test_bad_input:Lost", "python")},
            "the model takes a column 'vlaue', which the input does not have; did you mean 'value'?",
            id="no such column",
        ),
        pytest.param(
            {"output": ParquetOutput("scores", "overwrite", ("di",))},
            "output.columns names 'di', which the input does not have",
            id="no such passthrough column",
        ),
        pytest.param(
            {"output": ParquetOutput("scores")}, "there is a result already; use output.mode: overwrite", id="exists"
        ),
        pytest.param({"output": ParquetOutput("broken.onnx/x")}, "a part of the path is a file", id="below a file"),
        pytest.param({"output": ParquetOutput("broken.onnx")}, "this is a file; name a folder", id="a file"),
        pytest.param(
            {"output": ParquetOutput("in", "overwrite")}, "output.path in holds the input", id="destination is source"
        ),
        pytest.param(
            {"output": ParquetOutput(".", "overwrite"), "rejects": Rejects()},
            "output.path . holds the input",
            id="destination around source",
        ),
        pytest.param({"rejects": Rejects("scores")}, "must lie apart", id="rejects are the output"),
        pytest.param({"rejects": Rejects("scores/rejects")}, "must lie apart", id="rejects within the output"),
        pytest.param(
            {
                "output": ParquetOutput("data", "overwrite"),
                "input": sql("SELECT * FROM numbers", "sqlite:///data/n.db"),
            },
            "output.path data holds the database data/n.db",
            id="destination holds the database",
        ),
        pytest.param(
            {"output": ParquetOutput("models", "overwrite"), "model": onnx("models/m.onnx")},
            "output.path models holds the model models/m.onnx",
            id="destination holds the model",
        ),
        pytest.param(
            {"output": ParquetOutput("home", "overwrite")},
            "holds the job's own folder",
            id="destination holds the jobs",
        ),
        pytest.param(
            {"output": ParquetOutput("papers", "overwrite")},
            "output.path papers holds thesis.doc, which is no file of a result",
            id="destination holds other files",
        ),
        pytest.param(
            {
                "input": sql("SELECT * FROM numbers"),
                "output": TableOutput("sqlite:///./numbers.db", "NUMBERS", "overwrite"),
            },
            "output.table_name NUMBERS is read by the query",
            id="table is source by another name",
        ),
        pytest.param({"rejects": Rejects("in")}, "rejects.path in holds the input", id="rejects are source"),
        pytest.param({"rejects": Rejects("papers")}, "rejects.path papers", id="rejects over other files"),
        pytest.param(
            {"input": sql("SELECT * FROM numbers"), "output": TableOutput(SQLITE, "numbers", "overwrite")},
            "output.table_name numbers is read by the query",
            id="table is source",
        ),
        pytest.param(
            {"model": ModelSpec("tests.endtoend.test_bad_input:TooFew", "python")},
            "the model returned 99 rows for 100; each row needs exactly one answer, in order",
            id="too few rows",
        ),
        pytest.param(
            {"model": ModelSpec("tests.endtoend.test_bad_input:Otherwise", "python")},
            "it has columns (points: double), and promised are (score: double); return what the output_schema",
            id="another schema",
        ),
    ],
)
def test_a_job_that_cannot_be_says_why(
    supervisor: ForkingSupervisor, spec: JobSpec, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"this is no model")
    for file in ("models/m.onnx", "papers/thesis.doc", "data/n.db"):
        (tmp_path / file).parent.mkdir()
    shutil.copy(tmp_path / "numbers.db", tmp_path / "data" / "n.db")
    onnx_doubler(tmp_path / "models" / "m.onnx")
    (tmp_path / "papers" / "thesis.doc").touch()

    job = run(supervisor, replace(spec, **changes), tmp_path)

    check_failed(job, message, tmp_path)


def cut_short(folder: Path) -> None:
    file = folder / "in" / "in-01.parquet"
    file.write_bytes(file.read_bytes()[:500])


def other_columns(folder: Path) -> None:
    pq.write_table(pa.table({"id": [1], "value": ["one"]}), folder / "in" / "in-01.parquet")


def encrypted_column(folder: Path) -> None:
    write_encrypted(folder / "in" / "in-01.parquet", numbered_rows(5), ["value"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(cut_short, "in/in-01.parquet is not a readable Parquet file", id="truncated file"),
        pytest.param(
            other_columns,
            "in/in-01.parquet: column 'value' is string, but double in in/in-00.parquet; give it a type in "
            "input.schema, or have the model do without it",
            id="another type",
        ),
        pytest.param(
            encrypted_column,
            "in/in-01.parquet: column 'value' is encrypted, and Penstock has no key; have the model do without it",
            id="encrypted column",
        ),
    ],
)
def test_a_bad_file_is_named(
    supervisor: ForkingSupervisor, spec: JobSpec, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(tmp_path)

    check_failed(run(supervisor, spec, tmp_path), message, tmp_path)


def test_a_wrong_password_is_not_echoed_anywhere(
    supervisor: ForkingSupervisor, spec: JobSpec, tmp_path: Path, postgres: Postgres
) -> None:
    uri = postgres.role(postgres.database(), password="right").replace(":right@", ":s3cret-wr0ng@")

    job = run(supervisor, replace(spec, input=sql("SELECT 1", uri)), tmp_path)

    check_failed(job, "password authentication failed", tmp_path)
    assert "s3cret" not in str(job.error)
    assert "s3cret" not in supervisor.folder(job.id).log.read_text()


def test_a_table_that_postgresql_does_not_have_is_named(
    supervisor: ForkingSupervisor, spec: JobSpec, tmp_path: Path, database: str
) -> None:
    job = run(supervisor, replace(spec, input=sql("SELECT * FROM customers", database)), tmp_path)

    check_failed(job, 'relation "customers" does not exist', tmp_path)


@pytest.mark.parametrize("source", ["parquet", "sql"])
def test_an_input_without_rows_gives_an_empty_output_with_its_schema(
    supervisor: ForkingSupervisor, spec: JobSpec, tmp_path: Path, source: str
) -> None:
    shutil.rmtree(tmp_path / "in")
    write_files(tmp_path / "in", numbered_rows(0))
    if source == "sql":
        spec = replace(spec, input=sql("SELECT * FROM numbers WHERE id > 5"))

    job = run(supervisor, spec, tmp_path)

    assert (job.status, job.error) == ("completed", None)
    scores = pq.read_table(tmp_path / "scores")
    assert (scores.num_rows, scores.schema.names) == (0, ["id", "score"])


def test_a_model_that_scores_nothing_fails_the_job_at_once_with_its_error(
    supervisor: ForkingSupervisor, spec: JobSpec, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "in")
    write_files(tmp_path / "in", numbered_rows(5000, bad=range(5000)))

    job = run(supervisor, replace(spec, rejects=Rejects("rejects", 1.0)), tmp_path)

    check_failed(job, "no row of the first 10 batches could be scored: ValueError: a value is negative", tmp_path)
