"""The command line as a user types it, down to the files and back."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.cli import main
from launcher.errors import HomeUnusable
from launcher.supervisor import Supervisor
from pipelines.spec import JobSpec

PENSTOCK = str(Path(sys.executable).with_name("penstock"))
# A loaded machine takes its time to import Beam.
PATIENCE_S = 180.0
ROWS = 300_000

MODEL = """
import pathlib, time
import pyarrow as pa
import pyarrow.compute as pc


class Sum:
    output_schema = pa.schema([("total", pa.float64())])

    def load(self):
        pass

    def predict(self, rows):
        while pathlib.Path("hold").exists():
            pathlib.Path("held").touch()
            time.sleep(0.02)
        return pa.RecordBatch.from_arrays([pc.add(rows.column("x"), rows.column("y"))], ["total"])
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model, 300,000 rows of which 30 have no x, and a home of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    (tmp_path / "models.py").write_text(MODEL)
    x = pa.array((None if n % 10_000 == 7 else n / 2 for n in range(ROWS)), pa.float64())
    rows = pa.table({"id": range(ROWS), "x": x, "y": pa.array([1.0] * ROWS)})
    pq.write_table(rows, tmp_path / "in.parquet", row_group_size=50_000)
    return tmp_path


def write_spec(**changes: Any) -> str:
    request = {
        "model": {"uri": "models:Sum", "features": ["x", "y"]},
        "input": {"source": "parquet", "path": "in.parquet"},
        "output": {"destination": "parquet", "path": "out/scores", "mode": "overwrite", "columns": ["id"]},
        "rejects": {"path": "out/rejects", "max_reject_ratio": 0.01},
        **changes,
    }
    Path("spec.yaml").write_text(json.dumps(request))
    return "spec.yaml"


def penstock(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([PENSTOCK, *words], capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def assert_exact() -> None:
    """The result and the rejects are what they have to be, each row once."""
    scores = pq.read_table("out/scores").sort_by("id")
    rejects = pq.read_table("out/rejects").sort_by("id")
    bad = range(7, ROWS, 10_000)

    assert rejects.column("id").to_pylist() == list(bad)
    assert scores.column("id").to_pylist() == [n for n in range(ROWS) if n not in bad]
    assert scores.column("total").to_pylist() == [n / 2 + 1 for n in range(ROWS) if n not in bad]


def test_rows_are_scored_and_every_command_tells_of_it(work: Path) -> None:
    plan = penstock("plan", write_spec())
    planned = sorted(path.name for path in work.iterdir())
    run = penstock("run", "spec.yaml")
    job_id = run.stdout.split()[0]
    listed, table = penstock("jobs", "list", "--json"), penstock("jobs", "list")
    shown = penstock("jobs", "show", job_id)
    rejects = penstock("jobs", "rejects", job_id, "--limit", "2")

    assert (plan.returncode, plan.stderr) == (0, "")
    assert plan.stdout.startswith("rows    300,000 in ")
    assert "first predictions" in plan.stdout
    assert {"out", "home"}.isdisjoint(planned)
    assert run.returncode == 0, run.stderr
    assert "  rows     300,000 = 299,970 scored + 30 rejected + 0 skipped\n" in run.stdout
    assert "  output   out/scores\n" in run.stdout
    assert_exact()
    (told,) = json.loads(listed.stdout)["jobs"]
    assert (told["job_id"], told["status"], told["outcome"]) == (job_id, "completed", "with_rejects")
    assert (told["name"], told["model_id"], told["model_uri"]) == (None, None, "models:Sum")
    assert table.stdout.split("\n")[0].split()[:4] == ["job", "name", "model", "status"]
    assert table.stdout.split("\n")[1].split()[:3] == [job_id, "models:Sum", "completed"]
    assert told["counts"] == {
        "total_rows": ROWS,
        "scored_rows": ROWS - 30,
        "rejected_rows": 30,
        "skipped_rows": 0,
    }
    assert all(told["seconds"][name] > 0 for name in ("prepare", "run", "complete", "read", "score", "write"))
    assert re.search(r"Z +1 +completed +published\n$", shown.stdout)
    header, first, second = rejects.stdout.splitlines()
    assert header.split()[:3] == ["position", "error_type", "error"]
    assert "in.parquet:7 " in first
    assert "in.parquet:10007 " in second


def test_a_job_over_its_ratio_is_published_by_a_resume_without_scoring_again(work: Path) -> None:
    spec = write_spec(rejects={"path": "out/rejects"})
    failed = penstock("run", spec)
    job_id = failed.stdout.split()[0]
    after_failure = Path("out/scores").exists()
    # Scoring a single row more would hang.
    Path("hold").touch()
    resumed = penstock("resume", job_id, "--max-reject-ratio", "0.001")

    assert failed.returncode == 1
    assert f"penstock resume {job_id} --max-reject-ratio" in failed.stdout
    assert "30 × " in failed.stdout
    assert not after_failure
    assert resumed.returncode == 0, resumed.stderr
    assert_exact()


def test_ctrl_c_keeps_what_is_staged_and_a_resume_goes_on(work: Path) -> None:
    Path("hold").touch()
    # Spans are a batch long, so that the model is not asked for its pace and holds the run itself.
    spec = write_spec(config={"batch_size": 5000})
    run = subprocess.Popen([PENSTOCK, "run", spec], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE_S
    while not Path("held").exists():
        assert time.monotonic() < deadline
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    began = time.monotonic()
    run.send_signal(signal.SIGINT)
    stdout, _ = run.communicate(timeout=PATIENCE_S)
    took_s = time.monotonic() - began
    Path("hold").unlink()
    job_id = stdout.split()[0]
    cancelled = json.loads(penstock("jobs", "show", job_id, "--json").stdout)
    resumed = penstock("resume", job_id)

    assert run.returncode == 130
    assert took_s < 5
    assert f"  next    penstock resume {job_id}" in stdout
    assert (cancelled["status"], cancelled["error"]) == ("cancelled", None)
    assert resumed.returncode == 0, resumed.stderr
    assert_exact()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"config": {"batchsize": 3}}, "config.batchsize is not known; did you mean config.batch_size?"),
        ({"input": {"source": "parquet"}}, "input.path is missing; write a file, a glob, a folder, or a list of them"),
    ],
    ids=["unknown", "missing"],
)
def test_a_wrong_request_starts_nothing(work: Path, changes: dict[str, Any], line: str) -> None:
    run, plan = penstock("run", write_spec(**changes)), penstock("plan", "spec.yaml")

    assert (run.returncode, run.stdout, run.stderr) == (2, "", f"error: {line}\n")
    assert (plan.returncode, plan.stdout, plan.stderr) == (2, "", f"error: {line}\n")
    assert not (work / "home").exists()


@pytest.mark.parametrize("source", ["parquet", "sql"])
def test_more_rows_than_the_environment_allows_are_a_line_and_no_job(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    with sqlite3.connect("in.db") as database:
        database.execute("CREATE TABLE numbers AS SELECT 1 AS x, 2 AS y UNION ALL SELECT 3, 4")
    database.close()
    query = {"source": "sql", "connection": "sqlite:///in.db", "query": "SELECT * FROM numbers"}
    spec, rows = (write_spec(), ROWS) if source == "parquet" else (write_spec(input=query), 2)
    monkeypatch.setenv("BATCH_MAX_INPUT_ROWS", str(rows - 1))
    code = main(["run", spec])
    told = capsys.readouterr()
    listed = main(["jobs", "list", "--json"])

    line = f"has {rows:,} rows, and at most {rows - 1:,} are taken (BATCH_MAX_INPUT_ROWS); score it in pieces"
    assert (code, told.out, told.err) == (2, "", f"error: input {line}\n")
    assert (listed, json.loads(capsys.readouterr().out)) == (0, {"jobs": []})


@pytest.mark.parametrize(
    ("given", "config", "parallelism"),
    [
        ({}, {}, 4),
        ({"BATCH_DEFAULT_PARALLELISM": "7"}, {}, 7),
        ({"BATCH_DEFAULT_PARALLELISM": "7"}, {"parallelism": 3}, 3),
    ],
    ids=["neither", "the environment", "the spec"],
)
def test_a_job_that_says_no_parallelism_has_that_of_the_environment(
    work: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], config: dict[str, int], parallelism: int
) -> None:
    asked: list[JobSpec] = []

    def submit(self: Supervisor, spec: JobSpec, folder: Path, job_id: str) -> Any:
        asked.append(spec)
        raise HomeUnusable("far enough")

    for name in ("BATCH_DEFAULT_PARALLELISM", "BATCH_MAX_INPUT_ROWS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    # As many rows as there are, so that the job is taken.
    monkeypatch.setenv("BATCH_MAX_INPUT_ROWS", str(ROWS))
    monkeypatch.setattr(Supervisor, "submit", submit)
    main(["run", write_spec(config=config)])

    assert [spec.config.parallelism for spec in asked] == [parallelism]


def test_a_limit_that_is_no_number_is_a_line_and_2(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BATCH_MAX_INPUT_ROWS", "many")
    code = main(["run", write_spec()])

    assert (code, capsys.readouterr().err) == (
        2,
        "error: BATCH_MAX_INPUT_ROWS is 'many'; use a whole number from 1 to 1000000000000000\n",
    )


def test_a_plan_that_cannot_be_run_says_why_in_a_line(work: Path) -> None:
    plan = penstock("plan", write_spec(input={"source": "parquet", "path": "none.parquet"}))

    assert (plan.returncode, plan.stdout) == (2, "")
    assert re.fullmatch(r"error: .*none\.parquet.*\n", plan.stderr)


def test_a_shell_completes_commands(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_PENSTOCK_COMPLETE", "bash_source")
    script = penstock()
    monkeypatch.setenv("_PENSTOCK_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "penstock jobs l")
    monkeypatch.setenv("COMP_CWORD", "2")
    words = penstock()

    assert (script.returncode, script.stderr) == (0, "")
    assert "complete -o default -F _penstock_completion penstock\n" in script.stdout
    assert words.stdout.split() == ["list"]
    assert not (work / "home").exists()


@pytest.mark.parametrize(
    ("words", "stderr"),
    [
        (["rn"], "error: No such command 'rn'. Did you mean 'run'?\n"),
        (["run"], "error: Missing argument 'SPEC'.\n"),
        (["run", "none.yaml"], "error: none.yaml: there is no such file; name a job spec in YAML or JSON\n"),
        (["resume", "batch-x"], "error: there is no job 'batch-x'; `penstock jobs list` shows all\n"),
        (["jobs", "show", "../x"], "error: there is no job '../x'; `penstock jobs list` shows all\n"),
        (["jobs", "rejects", "x", "--limit", "0"], "error: Invalid value for '--limit': "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_is_a_line_and_2(work: Path, words: list[str], stderr: str) -> None:
    done = penstock(*words)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(stderr)
    assert done.stderr.count("\n") == 1


def test_a_traceback_is_shown_only_when_asked_for(work: Path) -> None:
    quiet, debug = penstock("run", "none.yaml"), penstock("run", "none.yaml", "--debug")

    assert "Traceback" not in quiet.stderr
    assert "Traceback" in debug.stderr


def test_help_and_version_need_no_home(work: Path) -> None:
    bare, help_, version = penstock(), penstock("--help"), penstock("--version")

    assert bare.returncode == 2
    assert bare.stderr == help_.stdout == penstock("-h").stdout
    assert help_.returncode == version.returncode == 0
    assert re.fullmatch(r"penstock \d+\.\d+\.\d+\S*\n", version.stdout)
    assert not (work / "home").exists()


@pytest.mark.parametrize("words", [["--help"], ["jobs", "list", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(work: Path, words: list[str]) -> None:
    code = "import sys; from launcher.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)

    # typer itself uses pydantic for the options of a command.
    heavy = {"apache_beam", "pyarrow", "numpy", "sqlalchemy", "rich", "yaml", "psutil"}
    heavy |= {"pydantic"} if words == ["--help"] else set()
    assert not heavy & set(done.stderr.split())


def test_a_home_that_is_no_folder_is_a_line_and_2(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "file").touch()
    monkeypatch.setenv("PENSTOCK_HOME", str(work / "file"))
    done = penstock("jobs", "list")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {work}/file: File exists; set PENSTOCK_HOME to a folder of your own\n"


@pytest.mark.parametrize(
    ("command", "stdout", "stderr"),
    [
        ("penstock --help | head -n 1 >/dev/null", "", ""),
        ("penstock jobs list >&-", "", ""),
        ("penstock jobs show x 2>&-", "", ""),
        (
            "PYTHONIOENCODING=ascii penstock jobs show ü",
            "",
            r"error: there is no job '\xfc'; `penstock jobs list` shows all" + "\n",
        ),
    ],
    ids=["read-enough", "no-stdout", "no-stderr", "ascii"],
)
def test_odd_terminals_are_no_reason_for_a_traceback(work: Path, command: str, stdout: str, stderr: str) -> None:
    path = {"PATH": f"{Path(PENSTOCK).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, **path}, check=False
    )

    assert (done.stdout, done.stderr) == (stdout, stderr)
