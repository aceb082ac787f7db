"""The job store in SQLite, and the same in PostgreSQL."""

import sqlite3
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from launcher.errors import StoreUnavailable
from launcher.state.database import HEAD, Database
from launcher.state.job import Live
from launcher.state.sql import SqlJobStore
from launcher.state.store import Filter, Position
from pipelines.spec import SqlInput
from predictors.base import ModelSpec
from tests.contract.databases import InPostgres, InSqlite
from tests.contract.job_store import SPEC, T0, JobStoreContract, come_to, job, queued

PATIENCE_S = 60


class _InSql(JobStoreContract):
    @pytest.fixture
    def open_store(self, open_database: Callable[[], Database]) -> Callable[[], SqlJobStore]:
        return lambda: SqlJobStore(open_database())


class TestSqlite(InSqlite, _InSql):
    pass


class TestPostgres(InPostgres, _InSql):
    def test_who_stands_still_in_the_middle_of_a_claim_keeps_nobody_from_claiming(
        self, open_database: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("launcher.state.database._IDLE_IN_TRANSACTION_S", 1)
        stopped, other = SqlJobStore(open_database()), SqlJobStore(open_database())
        stopped.add(queued("batch-1"), "POST")
        holds, go_on = threading.Event(), threading.Event()

        def stand_still() -> None:
            with stopped.database.transaction(exclusive=1) as connection:
                connection.execute(sa.text("UPDATE jobs SET owner = 'stopped'"))
                holds.set()
                assert go_on.wait(PATIENCE_S)
                connection.execute(sa.text("SELECT 1"))

        with ThreadPoolExecutor(1) as threads:
            standing = threads.submit(stand_still)
            assert holds.wait(PATIENCE_S)
            claimed = other.claim("other", 1, 9, 30)
            go_on.set()
            with pytest.raises(StoreUnavailable):
                standing.result(PATIENCE_S)

        assert [job.owner for job in claimed] == ["other"]

    def test_moves_that_add_to_the_same_totals_do_not_wait_for_each_other(
        self, open_database: Callable[[], Database]
    ) -> None:
        stores = [SqlJobStore(open_database()) for _ in range(2)]
        for n in range(120):
            stores[0].add(queued(f"batch-{n}", f"tenant-{n}"), "POST")
            come_to(stores[0], f"batch-{n}", "running", live=Live(scored=1, calls=1, call_s=0.1, call_buckets=(1, 0)))

        def end(n: int) -> None:
            # One ends as it should, the other was told to stop and its process died.
            store, job_id = stores[n % 2], f"batch-{n}"
            if n % 2:
                store.move(job_id, "running", "failed", "no")
            else:
                store.request_cancel(job_id, "no")
                store.move(job_id, "running", "submitted", "its process died")

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(end, range(120)))

        assert stores[0].totals()["jobs_ended", "cancelled"] == 60

    def test_the_databases_own_isolation_does_not_matter(self, open_database: Callable[[], Database]) -> None:
        with open_database().transaction() as connection:
            name = connection.execute(sa.text("SELECT current_database()")).scalar_one()
            connection.execute(
                sa.text(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'repeatable read'")
            )
        with open_database().transaction() as connection:
            assert connection.execute(sa.text("SHOW transaction_isolation")).scalar_one() == "read committed"


def test_what_the_database_refuses_is_told_without_the_spec(tmp_path: Path) -> None:
    store = SqlJobStore.at(tmp_path / "penstock.db")
    with sqlite3.connect(tmp_path / "penstock.db") as database:
        database.execute("ALTER TABLE jobs DROP COLUMN outcome")
    database.close()
    # A short model: SQLAlchemy shows the first and last 150 characters of a value.
    secret = replace(SPEC, model=ModelSpec("m", "onnx"), input=SqlInput("postgresql://me:hunter2@host/db", "SELECT 1"))

    with pytest.raises(StoreUnavailable, match="has no column named outcome") as refused:
        store.add(job(spec=secret), "penstock run")
    store.close()
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


# Says that it is ready, waits for a line, opens the store and tries to move the job.
_TAKE = """
import sys
from pathlib import Path
from launcher.errors import Conflict
from launcher.state.sql import SqlJobStore
print("ready", flush=True)
sys.stdin.readline()
try:
    SqlJobStore.at(Path(sys.argv[1])).move("batch-1", "submitted", "preparing", "mine")
    print("won")
except Conflict:
    print("lost")
"""


def test_of_many_processes_one_moves_a_job(tmp_path: Path) -> None:
    path = tmp_path / "penstock.db"
    store = SqlJobStore.at(path)
    store.add(job("batch-1"), "run")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _TAKE, str(path)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = sorted(process.communicate(timeout=60)[0].strip() for process in processes)

    assert answers == ["lost", "lost", "lost", "won"]
    assert [move.reason for move in store.moves("batch-1")] == ["run", "mine"]


def test_of_many_threads_that_open_a_new_store_all_can(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        stores = list(threads.map(lambda _: SqlJobStore.at(tmp_path / "penstock.db"), range(8)))
    stores[0].add(job("batch-1"), "run")

    assert [store.get("batch-1").id for store in stores] == ["batch-1"] * 8


def test_only_the_owner_may_read_the_store(tmp_path: Path) -> None:
    store = SqlJobStore.at(tmp_path / "penstock.db")
    store.add(job(), "run")

    assert {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {
        "penstock.db": "0o600",
        "penstock.db-wal": "0o600",
        "penstock.db-shm": "0o600",
    }


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "penstock.db"
    path.write_text("my shopping list\n" * 100)

    with pytest.raises(StoreUnavailable) as caught:
        SqlJobStore.at(path)
    assert str(caught.value) == (
        f"the job store {path} cannot be used: file is not a database; set PENSTOCK_HOME to a folder of your own"
    )


def test_a_folder_in_place_of_the_store_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        SqlJobStore.at(tmp_path)
    assert str(caught.value) == (
        f"the job store {tmp_path} cannot be used: Is a directory; set PENSTOCK_HOME to a folder of your own"
    )


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "penstock.db"
    SqlJobStore.at(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()

    with pytest.raises(StoreUnavailable) as caught:
        SqlJobStore.at(path)
    assert str(caught.value) == (
        f"the job store {path} is of version 9999, this Penstock reads up to {HEAD}; "
        "use the Penstock that made it, or set PENSTOCK_HOME to another folder"
    )


def test_a_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "penstock.db"
    store = SqlJobStore.at(path)
    store.add(job("batch-1"), "run")
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE jobs SET status = 'failed'")

    assert store.get("batch-1").status == "submitted"
    writer.execute("ROLLBACK")
    writer.close()


_QUESTIONS: dict[str, Callable[[SqlJobStore], object]] = {
    "get": lambda store: store.get("batch-1"),
    "page": lambda store: store.page(Filter("a"), 50),
    "page-after": lambda store: store.page(Filter("a"), 50, Position(T0, "batch-1")),
    "page-since": lambda store: store.page(Filter("a", since=T0, until=T0), 50),
    "page-status": lambda store: store.page(Filter("a", ("failed",)), 50, Position(T0, "batch-1")),
    "page-statuses": lambda store: store.page(Filter("a", ("failed", "cancelled")), 50, Position(T0, "batch-1")),
    "page-model": lambda store: store.page(Filter("a", model_id="m"), 50, Position(T0, "batch-1")),
    "page-model-status": lambda store: store.page(Filter("a", ("failed",), "m"), 50),
    "page-schedule": lambda store: store.page(Filter("a", schedule_id="s"), 50, Position(T0, "batch-1")),
    "page-schedule-status": lambda store: store.page(Filter("a", ("failed",), schedule_id="s"), 50),
    "count-by-status": lambda store: store.count_by_status(),
    "count": lambda store: store.count("s"),
    "past": lambda store: store.past("a", "m", 1),
    "past_of_all": lambda store: store.past_of_all("a"),
    "at-work": lambda store: store.at_work(),
    "overdue": lambda store: store.overdue(),
    "expirable": lambda store: store.expirable(T0, 100),
    "untidied": lambda store: store.untidied(100, T0),
    "ended": lambda store: store.ended(T0),
    "totals": lambda store: store.totals(),
    "claim": lambda store: store.claim("me", 1, 1, 5),
    "request-cancel": lambda store: store.request_cancel("batch-1", "no"),
    "beat": lambda store: store.beat("batch-1", 1, 5) if store.claim("me", 1, 1, 5) else None,
}


@pytest.mark.parametrize("ask", _QUESTIONS.values(), ids=_QUESTIONS.keys())
def test_no_question_reads_through_all_jobs(tmp_path: Path, ask: Callable[[SqlJobStore], object]) -> None:
    store = SqlJobStore.at(tmp_path / "penstock.db")
    store.add(queued("batch-1", "a"), "POST")
    asked: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        asked.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        ask(store)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    steps: list[str] = []
    with store.database.reading() as connection:
        for statement, parameters in asked:
            if "jobs" in statement and not statement.startswith("INSERT"):
                steps += [row[-1] for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)]
    store.close()

    assert any("jobs" in step for step in steps)
    # Reading through an index that holds all that is asked for is 10 ms for 100,000 jobs.
    assert [step for step in steps if step.startswith("SCAN jobs") and "COVERING" not in step] == []
