"""A team's service as its people use it: `penstock serve`, and each command that asks it, down to the rows and back."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from launcher.client import Client

PENSTOCK = str(Path(sys.executable).with_name("penstock"))
# A loaded machine takes its time to import Beam.
PATIENCE_S = 180.0
ROWS = 20_000
BAD = range(7, ROWS, 1_000)

MODEL = """
import pathlib, time
import pyarrow as pa
import pyarrow.compute as pc

HERE = pathlib.Path(__file__).parent


class Sum:
    output_schema = pa.schema([("total", pa.float64())])

    def load(self):
        pass

    def predict(self, rows):
        while (HERE / "hold").exists():
            (HERE / "held").touch()
            time.sleep(0.02)
        return pa.RecordBatch.from_arrays([pc.add(rows.column("x"), rows.column("y"))], ["total"])
"""
# The seed's request, with a share of rejected rows that is borne.
JOB = {
    "model_id": "sum",
    "input": {"source": "sql", "query": "SELECT id, x, y FROM customers"},
    "output": {"destination": "table", "table_name": "predictions.churn_scores", "mode": "overwrite"},
    "rejects": {"max_reject_ratio": 0.01},
    "config": {"batch_size": 1000, "parallelism": 4, "timeout_minutes": 60},
}


@dataclass(frozen=True)
class Team:
    """A running service, and a folder with a model, a database and a key for it."""

    folder: Path
    url: str
    key: str

    def penstock(self, *words: str, stdin: str = "", key: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command as a member of the team would."""
        return subprocess.run(
            [PENSTOCK, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            cwd=self.folder,
            env=self.environment(key),
            check=False,
        )

    def environment(self, key: str | None = None) -> dict[str, str]:
        return {
            **os.environ,
            "PENSTOCK_SERVER": self.url,
            "PENSTOCK_API_KEY": key or self.key,
            # Not the service's: what is asked for here comes over the network.
            "PENSTOCK_HOME": str(self.folder / "nobody"),
        }

    def told(self, *words: str, stdin: str = "") -> Any:
        """What a command that works tells machines."""
        done = self.penstock(*words, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def scores(self) -> list[tuple[int, float]] | None:
        """The result; None while there is none."""
        with sqlite3.connect(self.folder / "data.db") as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'predictions.churn_scores'").fetchall():
                return None
            return database.execute('SELECT id, total FROM "predictions.churn_scores" ORDER BY id').fetchall()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    (folder / "models.py").write_text(MODEL)
    (folder / "job.json").write_text(json.dumps(JOB))
    with sqlite3.connect(folder / "data.db") as database:
        database.execute("CREATE TABLE customers (id INTEGER, x REAL, y REAL)")
        rows = ((n, None if n in BAD else n / 2, 1.0) for n in range(ROWS))
        database.executemany("INSERT INTO customers VALUES (?, ?, ?)", rows)
    environment = {**os.environ, "PENSTOCK_HOME": str(folder / "home"), "PENSTOCK_DEFAULT_CONNECTION": "default"}
    make_key = [PENSTOCK, "keys", "create", "--tenant", "acme", "--role", "admin"]
    key = subprocess.run(make_key, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    with open(folder / "serve.log", "wb") as log:
        process = subprocess.Popen(
            [PENSTOCK, "serve", "--port", "0"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        listening = re.search(r"http://\S+", process.stdout.readline())
        assert listening is not None, (folder / "serve.log").read_text()
        team = Team(folder, listening[0], key.stdout.strip())
        registered = team.penstock("models", "register", "sum", "models:Sum", "--import-path", ".", "--features", "x,y")
        assert registered.returncode == 0, registered.stderr
        connected = team.penstock("connections", "set", "default", stdin=f"sqlite:///{folder}/data.db\n")
        assert connected.returncode == 0, connected.stderr
        yield team
    finally:
        (folder / "hold").unlink(missing_ok=True)
        process.terminate()
        process.wait(PATIENCE_S)


def assert_exact(team: Team) -> None:
    """The result is what it has to be, each row once."""
    assert team.scores() == [(n, n / 2 + 1) for n in range(ROWS) if n not in BAD]


def test_a_job_is_submitted_waited_for_and_every_command_tells_of_it(team: Team) -> None:
    done = team.penstock("submit", "job.json", "--wait")
    job_id = done.stdout.split()[0]
    listed = team.penstock("jobs", "list")
    shown = team.penstock("jobs", "show", job_id)
    rejects = team.penstock("jobs", "rejects", job_id, "--limit", "2")
    results = team.penstock("jobs", "results", job_id, "--limit", "2")
    saved = team.penstock("jobs", "results", job_id, "-o", "all.parquet")
    events = team.penstock("jobs", "events", job_id)
    log = team.told("logs", job_id)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{job_id} completed with rejects in ")
    assert "  rows     20,000 = 19,980 scored + 20 rejected + 0 skipped\n" in done.stdout
    assert "           20 × NullFeature: column x is null\n" in done.stdout
    assert_exact(team)
    assert re.search(rf"^{job_id}  +sum v1 +completed \(rejects\) .* 20,000  100% +20 ", listed.stdout, re.MULTILINE)
    assert re.search(r"Z +completed\n$", shown.stdout)
    assert rejects.stdout.splitlines()[1].split()[:2] == ["query:7", "NullFeature"]
    assert results.stdout.splitlines()[0].split() == ["id", "x", "y", "total"]
    assert len(results.stdout.splitlines()) == 3
    assert saved.stdout == f"all.parquet has 19,980 rows of {job_id}\n", saved.stderr
    assert sorted(pq.read_table(team.folder / "all.parquet")["id"].to_pylist()) == [row[0] for row in team.scores()]
    assert [line.split()[1].rstrip(":") for line in events.stdout.splitlines() if line[0] != " "] == [
        "submitted",
        "preparing",
        "running",
        "completing",
        "completed",
    ]
    assert any("published" in line for line in log["lines"])
    assert not (team.folder / "nobody").exists()


def test_the_python_client_reads_all_rows(team: Team) -> None:
    with Client(team.url, team.key) as client:
        job = client.submit(JOB)
        status = job.wait(show_progress=False)
        table = job.results_arrow().sort_by("id")
        rows = sorted(job.results(), key=lambda row: row["id"])
        rejected = [row["id"] for row in job.rejects()]
        listed = [each.id for each in client.jobs(status="completed", model_id="sum")]

    assert (status.status, status.outcome) == ("completed", "with_rejects")
    assert (status.counts.scored_rows, status.counts.rejected_rows) == (ROWS - len(BAD), len(BAD))
    assert rejected == list(BAD)
    assert table.column("total").to_pylist() == [n / 2 + 1 for n in range(ROWS) if n not in BAD]
    assert rows == table.to_pylist()
    assert listed[0] == job.id


def test_an_interrupt_leaves_the_job_which_is_cancelled_and_tried_again(team: Team) -> None:
    before = team.scores()
    (team.folder / "hold").touch()
    waiting = subprocess.Popen(
        [PENSTOCK, "submit", "job.json", "--wait"],
        cwd=team.folder,
        env=team.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(team.folder / "held")
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=PATIENCE_S)
    job_id = said.split()[0]
    status = team.told("jobs", "show", job_id)["status"]
    cancelled = team.penstock("cancel", job_id)
    with Client(team.url, team.key) as client:
        ended = client.job(job_id).wait(timeout_s=30)
    shown = team.penstock("jobs", "show", job_id)
    again = team.penstock("cancel", job_id)
    after = team.scores()
    (team.folder / "hold").unlink()
    retried = team.penstock("retry", job_id, "--wait")
    rejected = team.penstock("retry", job_id, "--only", "rejected", "--wait")

    assert waiting.returncode == 130
    assert said.endswith(f"{job_id} goes on; `penstock cancel {job_id}` ends it\n")
    assert status == "running"
    assert cancelled.returncode == 0
    assert ended.status == "cancelled"
    assert re.search(rf"next +penstock retry {job_id}\n", shown.stdout)
    assert again.returncode == 2
    assert after == before
    assert retried.returncode == 0, retried.stderr
    assert rejected.returncode == 0, rejected.stderr
    assert "20 = 0 scored + 20 rejected" in rejected.stdout
    assert_exact(team)


def test_a_job_without_an_output_is_kept_by_the_service(team: Team) -> None:
    spec = json.dumps({name: JOB[name] for name in ("model_id", "input", "rejects")})
    done = team.penstock("submit", "-", "--wait", stdin=spec)
    job_id = done.stdout.split()[0]

    assert done.returncode == 0, done.stderr
    assert "  output   kept by the service\n" in done.stdout
    assert len(team.told("jobs", "results", job_id, "--limit", "1200")["results"]) == 1200


def test_an_estimate_writes_nothing(team: Team) -> None:
    spec = {**JOB, "output": {**JOB["output"], "table_name": "elsewhere"}}
    (team.folder / "other.json").write_text(json.dumps(spec))
    estimate = team.penstock("estimate", "other.json")
    with sqlite3.connect(team.folder / "data.db") as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE name = 'elsewhere'").fetchall()

    assert estimate.returncode == 0, estimate.stderr
    assert estimate.stdout.startswith("rows    20,000\ntime    ")
    assert "first predictions" in estimate.stdout
    assert tables == []


def test_a_schedule_is_made_paused_run_and_deleted(team: Team) -> None:
    made = team.told("schedules", "create", "job.json", "--cron", "0 2 * * *", "--timezone", "Europe/Berlin")
    schedule_id = made["schedule_id"]
    paused = team.penstock("schedules", "pause", schedule_id)
    resumed = team.penstock("schedules", "resume", schedule_id)
    listed = team.penstock("schedules", "list")
    run = team.penstock("schedules", "run", schedule_id, "--wait")
    jobs = team.told("jobs", "list", "--schedule", schedule_id)["jobs"]
    in_use = team.penstock("models", "delete", "sum")
    deleted = team.penstock("schedules", "delete", schedule_id)

    assert len(made["next_runs"]) == 5
    assert paused.stdout.startswith(f"{schedule_id} is paused\n")
    assert resumed.stdout.startswith(f"{schedule_id} is enabled\n")
    assert re.search(rf"^{schedule_id} .*0 2 \* \* \*  Europe/Berlin  enabled", listed.stdout, re.MULTILINE)
    assert run.returncode == 0, run.stderr
    assert [job["job_id"] for job in jobs] == [run.stdout.split()[0]]
    assert in_use.returncode == 2
    assert schedule_id in in_use.stderr
    assert deleted.stdout == f"{schedule_id} is deleted\n"


def test_what_is_registered_is_listed_and_its_secrets_are_not(team: Team) -> None:
    secret = "postgresql://scorer:hunter2@192.0.2.7/crm"
    put = team.penstock("connections", "set", "crm", stdin=secret)
    listed = team.penstock("connections", "list")
    shown = team.penstock("connections", "show", "crm")
    deleted = team.penstock("connections", "delete", "crm")
    models = team.penstock("models", "list")
    model = team.penstock("models", "show", "sum")

    assert put.returncode == 0, put.stderr
    assert [each.stdout for each in (put, listed, shown) if "hunter2" in each.stdout + each.stderr] == []
    assert "192.0.2.7/crm" in listed.stdout
    assert deleted.stdout == "crm is deleted\n"
    assert re.search(r"^sum +1 +python +models:Sum ", models.stdout, re.MULTILINE)
    assert "  features       x, y\n" in model.stdout


def test_mistakes_are_told_a_line_each(team: Team) -> None:
    wrong = json.dumps({"model_id": "sum", "inputs": {}, "config": {"batch_size": 0}})
    refused = team.penstock("submit", "-", stdin=wrong)
    unknown = team.penstock("jobs", "show", "batch-0000000000")
    stranger = team.penstock("jobs", "list", key="psk_nobody")

    assert [each.returncode for each in (refused, unknown, stranger)] == [2, 2, 2]
    assert len(refused.stderr.splitlines()) == 3
    assert all(line.startswith("error: ") for line in refused.stderr.splitlines())
    assert "config.batch_size is 0; " in refused.stderr
    assert unknown.stderr == "error: there is no job 'batch-0000000000'; `penstock jobs list` shows all\n"
    assert "set PENSTOCK_API_KEY" in stranger.stderr


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)
