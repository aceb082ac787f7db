"""A password that a spec names is used, and found nowhere afterwards: no file, no output, no process shows it."""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from tests.servers import Postgres

PENSTOCK = str(Path(sys.executable).with_name("penstock"))
# A loaded machine takes its time to import Beam.
PATIENCE_S = 180.0
ROWS = 5000
# What every form of the password holds, however it is encoded or cut, and nothing else does.
SECRET = b"Zaunkoenig4711"
PASSWORD = f"{SECRET.decode()}/@?#: ü"

MODEL = """
import contextlib, pathlib
import pyarrow as pa
import pyarrow.compute as pc


class Sum:
    input_schema = pa.schema([("x", pa.float64()), ("y", pa.float64())])
    output_schema = pa.schema([("total", pa.float64())])

    def predict(self, rows):
        with contextlib.suppress(FileNotFoundError):
            gate = open("gate")
            gate.close()
        if pc.any(pc.less(rows["x"], 0)).as_py():
            raise ValueError("x is negative")
        return pa.RecordBatch.from_arrays([pc.add(rows["x"], rows["y"])], ["total"])
"""


@dataclass(frozen=True)
class Form:
    """A way to name a database that asks for a password.

    Args:
        connection: as the spec has it, made from the URI of the database.
        environment: what is set besides, made from the same.
        in_spec: whether the spec holds the password itself.
    """

    connection: Callable[[str], str]
    environment: Callable[[str], dict[str, str]]
    in_spec: bool = False


def with_variable(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    user, _, place = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}:${{PENSTOCK_TEST_PASSWORD}}@{place}"


FORMS = [
    pytest.param(
        Form(with_variable, lambda uri: {"PENSTOCK_TEST_PASSWORD": PASSWORD}), "table", id="a variable, to a table"
    ),
    pytest.param(
        Form(lambda uri: "${PENSTOCK_TEST_URI}", lambda uri: {"PENSTOCK_TEST_URI": uri}),
        "parquet",
        id="a variable for all of it, to files",
    ),
    pytest.param(Form(lambda uri: uri, lambda uri: {}, in_spec=True), "table", id="written out, to a table"),
]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model that waits at the pipe `gate`, and a home of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    (tmp_path / "models.py").write_text(MODEL)
    return tmp_path


@pytest.fixture
def uri(postgres: Postgres) -> str:
    """A database with rows to score, as a role that must give its password."""
    owner = postgres.database()
    role = postgres.role(owner, PASSWORD)
    postgres.execute(f"GRANT ALL ON SCHEMA public TO {role.partition('://')[2].partition(':')[0]}", owner)
    columns = "n AS id, CASE n WHEN 3 THEN -1.0 ELSE n END::float8 AS x, n + 1.0::float8 AS y"
    postgres.execute(f"CREATE TABLE numbers AS SELECT {columns} FROM generate_series(0, {ROWS - 1}) AS n", role)
    return role


def write_spec(connection: str, destination: str, **output: Any) -> str:
    to = {"table_name": "scores"} if destination == "table" else {"path": "out/scores"}
    request = {
        "model": {"uri": "models:Sum", "flavor": "python"},
        "input": {"source": "sql", "connection": connection, "query": "SELECT id, x, y FROM numbers"},
        "output": {"destination": destination, "columns": ["id"], **to, **output},
        "rejects": {"path": "out/rejects", "max_reject_ratio": 0.01},
    }
    Path("spec.yaml").write_text(json.dumps(request, ensure_ascii=False))
    return "spec.yaml"


def penstock(*words: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([PENSTOCK, *words], capture_output=True, timeout=PATIENCE_S, check=False)


def holders(work: Path) -> set[str]:
    """The files that hold the password: of Penstock's home, of the output, staged beside it, of the user."""
    held = set()
    for path in work.rglob("*"):
        try:
            if path.is_file() and SECRET in path.read_bytes():
                held.add(str(path.relative_to(work)))
        except FileNotFoundError:
            # Of a job that goes on meanwhile.
            continue
    return held


# The user's own words, and where jobs are kept with theirs, closed to others.
SPECS = {"spec.yaml", "home/penstock.db", "home/penstock.db-wal", "home/penstock.db-journal"}


def await_reader_of(gate: Path, run: "subprocess.Popen[bytes]") -> int:
    """Wait until the model waits at the gate; returns the gate, to be opened by closing that."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            # Nobody reads it yet.
            assert time.monotonic() < deadline, "the model is not asked"
        try:
            run.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(run.communicate())


@dataclass(frozen=True)
class Glimpse:
    """What others see while a job runs.

    Args:
        processes: command lines, those of the job and of the command.
        files: those that hold the password.
    """

    processes: list[bytes]
    files: set[str]


def run_watched(work: Path) -> tuple["subprocess.CompletedProcess[bytes]", Glimpse]:
    """`penstock run`, looked at while the model is asked."""
    os.mkfifo("gate")
    run = subprocess.Popen([PENSTOCK, "run", "spec.yaml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        gate = await_reader_of(work / "gate", run)
        pids = [run.pid, *(child.pid for child in psutil.Process(run.pid).children(recursive=True))]
        glimpse = Glimpse([Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids], holders(work))
        os.unlink("gate")
        os.close(gate)
        stdout, stderr = run.communicate(timeout=PATIENCE_S)
    finally:
        run.kill()
        run.wait()
    return subprocess.CompletedProcess(run.args, run.returncode, stdout, stderr), glimpse


@pytest.mark.parametrize(("form", "destination"), FORMS)
def test_a_password_is_used_and_shown_nowhere(
    work: Path, uri: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, form: Form, destination: str
) -> None:
    for name, value in form.environment(uri).items():
        monkeypatch.setenv(name, value)
    write_spec(form.connection(uri), destination)

    plan = penstock("plan", "spec.yaml")
    run, glimpse = run_watched(work)
    job_id = run.stdout.decode().split()[0]
    told = [penstock("jobs", *words) for words in (["list", "--json"], ["show", job_id], ["show", job_id, "--json"])]
    may_hold = SPECS if form.in_spec else set()
    if destination == "table":
        totals = [total for (total,) in postgres.execute("SELECT total FROM scores WHERE id < 6 ORDER BY id", uri)]
        ledger = postgres.execute("SELECT entry::text FROM penstock_ledger AS entry", uri)
        assert len(ledger) == 1
        assert SECRET.decode() not in str(ledger)
        manifests = ["out/.rejects.penstock.json"]
    else:
        totals = pq.read_table("out/scores").sort_by("id")["total"][:5].to_pylist()
        manifests = ["out/.rejects.penstock.json", "out/.scores.penstock.json"]

    assert plan.returncode == run.returncode == 0, plan.stderr + run.stderr
    assert totals == [1.0, 3.0, 5.0, 9.0, 11.0]
    assert pq.read_table("out/rejects")["id"].to_pylist() == [3]
    assert [done.returncode for done in told] == [0] * 3
    for done in (plan, run, *told):
        assert SECRET not in done.stdout + done.stderr
    assert any(b"launcher.worker.jobprocess" in line for line in glimpse.processes)
    assert not [line for line in glimpse.processes if SECRET in line]
    assert glimpse.files <= may_hold
    assert holders(work) <= may_hold
    assert ("spec.yaml" in glimpse.files) == form.in_spec, "the search finds what there is"
    assert stat.S_IMODE((work / "home").stat().st_mode) == 0o700
    for name in ("home/penstock.db", f"home/jobs/{job_id}/plan.json", f"home/jobs/{job_id}/log", *manifests):
        assert (work / name).stat().st_size, "what was looked through is not there"


@pytest.mark.parametrize(
    "query",
    ["SELECT id, x, y FROM nowhere", "SELECT id, x, (y / (id - 4900))::float8 AS y FROM numbers"],
    ids=["before a row is read", "while rows are read"],
)
def test_a_query_that_is_refused_is_told_without_the_password(work: Path, uri: str, query: str) -> None:
    spec = json.loads(Path(write_spec(uri, "table")).read_text())
    spec["input"]["query"] = query
    Path("spec.yaml").write_text(json.dumps(spec, ensure_ascii=False))

    run = penstock("run", "spec.yaml", "--debug")
    shown = penstock("jobs", "list", "--json")

    assert run.returncode == 1, "--debug shows the traceback"
    assert b"nowhere" in run.stderr or b"division by zero" in run.stderr
    assert json.loads(shown.stdout)["jobs"] == []
    assert SECRET not in run.stdout + run.stderr + shown.stdout + shown.stderr
    assert holders(work) <= SPECS
