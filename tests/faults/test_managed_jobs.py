"""Jobs of a service, one by one: what their settings and limits do, how they stop, and what they may know."""

import itertools
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.api.view import job_object
from launcher.errors import NotNow, RequestError
from launcher.rows.rejects import first_rejects
from launcher.state.job import Job
from tests.faults.launchers import most_at_work, until
from tests.faults.managed import (
    PATIENCE_S,
    Desk,
    Launcher,
    doubled,
    is_alive,
    numbers,
    seconds_between,
    session,
)
from tests.scenes import hidden
from tests.servers import Postgres

AT_ONCE, DEFAULT_PARALLELISM, MAX_ROWS = 3, 3, 20_000
# No word of these may come out anywhere.
SECRETS = {
    "PENSTOCK_TOKEN": "tok-3f9a-hidden",
    "PENSTOCK_DEFAULT_CONNECTION": "postgresql://svc:def-77b1-hidden@127.0.0.1:1/none",
    "BATCH_SECRET": "bat-5c20-hidden",
    "PGPASSWORD": "pgp-8e44-hidden",
    "PGSSLPASSWORD": "ssl-19d6-hidden",
}
PASSWORD = "p@ss:w0rd/äö-hidden"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    folder = tmp_path_factory.mktemp("tenants")
    environment = {
        **SECRETS,
        "BATCH_MAX_CONCURRENT_JOBS": str(AT_ONCE),
        "BATCH_DEFAULT_PARALLELISM": str(DEFAULT_PARALLELISM),
        "BATCH_MAX_INPUT_ROWS": str(MAX_ROWS),
        "BATCH_RESULT_TTL_HOURS": "1",
        "PENSTOCK_RETRY_WAIT_S": "0.2",
        "PENSTOCK_ALLOWED_PATHS": f"{folder}/{{tenant}}",
    }
    with pytest.MonkeyPatch.context() as patch:
        # The launcher's own, too: what it starts inherits nothing.
        for name, value in environment.items():
            patch.setenv(name, value)
        launcher = Launcher(tmp_path_factory.mktemp("service") / "home", folder, {})
        yield launcher
        launcher.stop()


_tenants = itertools.count(1)


@pytest.fixture
def desk(launcher: Launcher, tmp_path: Path) -> Iterator[Desk]:
    tenant = f"tenant-{next(_tenants)}"
    folder = launcher.folder / tenant
    folder.mkdir()
    desk = Desk(launcher, tenant, folder, tmp_path / "models")
    yield desk
    desk.tidy()


def parquet_out(desk: Desk, **more: Any) -> dict[str, Any]:
    return {"destination": "parquet", "path": str(desk.folder / "out"), **more}


# --- settings of a job ----------------------------------------------------------------------------------------------


def test_the_model_is_called_with_batch_size_rows(desk: Desk) -> None:
    desk.write(numbers(250))
    desk.completed(desk.submit("Recorded", config={"batch_size": 100}))

    # Several threads call it, so that the shorter one need not come last.
    assert sorted(len(call["ids"]) for call in desk.told("calls")) == [50, 100, 100]
    assert desk.result() == doubled(range(250))


@pytest.mark.parametrize(
    ("config", "threads"),
    [
        pytest.param({"parallelism": 5}, 5, id="parallelism"),
        pytest.param({}, DEFAULT_PARALLELISM, id="BATCH_DEFAULT_PARALLELISM"),
    ],
)
def test_as_many_calls_as_asked_for_are_made_at_once(desk: Desk, config: dict[str, Any], threads: int) -> None:
    desk.write(numbers(160), files=16)
    desk.tell("together", str(threads))
    desk.completed(desk.submit("Recorded", config=config))

    assert max(call["threads"] for call in desk.told("calls")) == threads


def test_a_job_over_its_memory_is_tried_once_more_with_half_in_flight_and_then_fails(desk: Desk) -> None:
    desk.write(numbers(200), files=20)
    desk.tell("take_mb", "700")
    job = desk.submit("Greedy", config={"parallelism": 4, "max_memory_gb": 0.7, "retry_count": 3})
    in_flight = []
    for begun, spans in ((1, 9), (2, 4)):
        desk.await_word("processes", begun)
        running = desk.until(
            job, lambda now, rows=10 * spans: now.status == "running" and now.live.rows_read >= rows, "its rows"
        )
        in_flight.append(running.live.rows_read // 10)
        desk.tell(f"go-{begun}")
        desk.until(job, lambda now, pid=running.pid: now.pid != pid or now.is_over, "the end of the attempt")
    ended = desk.ended(job)
    moves = desk.moves(job)

    assert (ended.status, ended.outcome, ended.memory_strikes, ended.retries) == ("failed", "out_of_memory", 1, 0)
    assert re.fullmatch(
        r"out of memory: [\d.]+ GB are in use, and config.max_memory_gb is 0.7; .*; 0 rows are kept, .*",
        ended.error or "",
    )
    assert in_flight == [9, 4]
    assert [move.to for move in moves if move.to in ("running", "failed")] == ["running", "running", "failed"]
    assert any(move.to == "submitted" and "; once more in " in move.reason for move in moves)


def test_a_job_with_little_memory_left_goes_on_in_smaller_calls(desk: Desk) -> None:
    # So few that spans are a batch long, and the model is not asked for its pace.
    desk.write(numbers(240), files=6)
    desk.tell("up_to", str(int(0.95 * 1.5 * 2**30)))
    ended = desk.completed(desk.submit("Filling", config={"batch_size": 8, "parallelism": 1, "max_memory_gb": 1.5}))

    calls = desk.told("calls")
    assert ended.attempt == 1
    assert desk.result() == doubled(range(240))
    # Memory became short while a call of full length was under way.
    short = next(n for n, call in enumerate(calls) if call["pressed"])
    assert {len(call["ids"]) for call in calls[: short + 1]} == {8}
    assert {len(call["ids"]) for call in calls[short + 1 :]} == {4}
    assert sum(call["pressed"] for call in calls) > 20


def test_a_job_is_gone_within_5_s_of_its_deadline_whatever_its_model_does(desk: Desk) -> None:
    desk.write(numbers(20), files=2)
    minutes = 0.1
    config = {"timeout_minutes": minutes, "parallelism": 1}
    jobs = {
        model: desk.submit(model, config=config, output=parquet_out(desk, path=str(desk.folder / model)))
        for model in ("Held", "Deaf", "Dying")
    }
    ended = {model: desk.ended(job) for model, job in jobs.items()}

    for model, job in ended.items():
        assert (job.status, job.outcome) == ("failed", "timed_out"), (model, job.error)
        assert (job.error or "").startswith(f"timed out after config.timeout_minutes {minutes}")
        begun = next(move.at for move in desk.moves(job) if move.to == "preparing")
        # All attempts together.
        assert 60 * minutes <= seconds_between(begun, job.finished_at) <= 60 * minutes + 5, model
    assert [ended[model].attempt for model in ("Held", "Deaf", "Dying")] == [1, 1, 2]


def test_a_row_that_kills_the_process_is_rejected_and_costs_no_retry(desk: Desk) -> None:
    desk.write(numbers(300), files=3)
    desk.tell("killing", [205])
    config = {"retry_count": 0, "batch_size": 50}
    job = desk.completed(desk.submit("Crashing", config=config, rejects={"max_reject_ratio": 0.5}))

    assert desk.result() == doubled([id_ for id_ in range(300) if id_ != 205])
    assert job.counts is not None
    assert (job.counts.scored, job.counts.rejected) == (299, 1)
    assert (job.retries, job.attempt) == (0, 2)


def test_a_service_that_stays_away_is_asked_by_so_many_attempts_and_then_the_job_fails(desk: Desk) -> None:
    desk.write(numbers(10))
    job = desk.ended(desk.submit("Away", config={"retry_count": 2}))

    assert (job.status, job.outcome, job.attempt) == ("failed", "error", 3)
    assert "the scoring service at 10.1.2.3 does not answer" in (job.error or "")
    # Each attempt repeats its call as often as the job is repeated.
    assert len(desk.told("asked")) == 3 * 3
    check_waits(desk, job, [(0.1, 0.2), (0.2, 0.4)])


def test_a_database_that_is_away_is_tried_again_and_then_the_job_fails(desk: Desk) -> None:
    desk.service.connections.put(desk.tenant, "gone", "postgresql://user:gone-hidden@127.0.0.1:1/none")
    job = desk.submit(
        "Recorded",
        input={"source": "sql", "connection": "gone", "query": "SELECT id, value FROM numbers"},
        config={"retry_count": 2},
    )
    ended = desk.ended(job)

    assert job.total_rows is None
    assert (ended.status, ended.outcome, ended.attempt) == ("failed", "error", 3)
    assert "127.0.0.1" in (ended.error or "")
    assert "hidden" not in (ended.error or "")
    check_waits(desk, ended, [(0.1, 0.2), (0.2, 0.4)])


def check_waits(desk: Desk, job: Job, waits: list[tuple[float, float]]) -> None:
    """Demand that the attempts of a job waited for each other, so long as was told, and so many seconds at least."""
    moves = desk.moves(job)
    for n, (least, most) in enumerate(waits):
        back, begun = [
            (move, after) for move, after in itertools.pairwise(moves) if move.to == "submitted" and move.attempt > 1
        ][n]
        told = re.search(r"; retry (\d) of (\d) in ([\d.]+) s$", back.reason)
        assert told, back.reason
        assert (int(told[1]), int(told[2])) == (n + 1, len(waits))
        # To a tenth, as it is told.
        assert least - 0.05 <= float(told[3]) <= most + 0.05
        assert seconds_between(back.at, begun.at) >= least


@pytest.mark.parametrize(
    ("query", "message"),
    [
        pytest.param(
            "SELECT i AS id, (1 / (i - 5))::float8 AS value FROM generate_series(1, 9) AS i",
            "division by zero",
            id="query",
        ),
        pytest.param("SELECT i AS id FROM generate_series(1, 9) AS i", "value", id="column"),
    ],
)
def test_a_job_that_is_wrong_is_not_tried_again(desk: Desk, database: str, query: str, message: str) -> None:
    desk.service.connections.put(desk.tenant, "db", database)
    sql = {"source": "sql", "connection": "db", "query": query}
    job = desk.ended(desk.submit("Recorded", input=sql, config={"retry_count": 3}))

    assert (job.status, job.outcome, job.attempt) == ("failed", "request_wrong", 1)
    assert message in (job.error or "")
    assert [move.to for move in desk.moves(job)] == ["submitted", "preparing", "failed"]


# --- limits of the service ------------------------------------------------------------------------------------------


def test_a_tenant_has_so_many_jobs_at_work_at_once(desk: Desk) -> None:
    desk.write(numbers(10))
    outputs = [parquet_out(desk, path=str(desk.folder / f"out-{n}")) for n in range(AT_ONCE + 2)]
    jobs = [desk.submit("Held", output=output) for output in outputs]
    desk.await_word("held", AT_ONCE)
    waiting = [job for job in map(desk.job, jobs) if job.status == "submitted"]
    withdrawn = desk.service.cancel(waiting[0])
    desk.tell("go")
    for job in jobs:
        desk.ended(job)
    statuses = [desk.job(job).status for job in jobs]
    retried = desk.service.admission.retry(desk.job(withdrawn))
    desk.service.wake()
    desk.completed(retried)

    assert len(waiting) == 2
    assert most_at_work((job.id, move) for job in jobs for move in desk.moves(job)) == AT_ONCE
    # One that waits is cancelled at once, and starts when it is asked for again.
    assert withdrawn.status == "cancelled"
    assert statuses.count("completed") == AT_ONCE + 1
    assert [move.to for move in desk.moves(withdrawn)][:3] == ["submitted", "cancelled", "submitted"]
    assert desk.result(f"out-{jobs.index(next(job for job in jobs if job.id == withdrawn.id))}") == doubled(range(10))


def test_more_rows_than_are_taken_are_refused_at_once_where_they_are_known(desk: Desk) -> None:
    desk.write(numbers(MAX_ROWS + 1))
    with pytest.raises(RequestError, match=r"input.*has 20,001 rows, and at most 20,000 are taken"):
        desk.submit("Recorded")


def test_more_rows_than_are_taken_fail_the_job_where_counting_them_takes_long(desk: Desk, database: str) -> None:
    desk.service.connections.put(desk.tenant, "db", database)
    query = f"SELECT i AS id, i::float8 AS value FROM (SELECT pg_sleep(1.5)) AS late, generate_series(0, {MAX_ROWS}) i"
    job = desk.submit("Recorded", input={"source": "sql", "connection": "db", "query": query})
    ended = desk.ended(job)

    assert job.total_rows is None
    assert (ended.status, ended.attempt) == ("failed", 1)
    assert "the input has 20,001 rows" in (ended.error or "")
    assert "BATCH_MAX_INPUT_ROWS" in (ended.error or "")
    assert [move.to for move in desk.moves(job)] == ["submitted", "preparing", "failed"]
    assert desk.told("calls") == []
    assert "snapshot" not in kept(desk, job)


def kept(desk: Desk, job: Job) -> list[str]:
    """What the service keeps of a job."""
    return sorted(path.name for path in desk.launcher.home.job(job.id).path.iterdir())


def test_what_the_service_keeps_of_a_job_expires_and_what_a_user_keeps_does_not(desk: Desk, database: str) -> None:
    desk.write(numbers(10))
    desk.service.connections.put(desk.tenant, "db", database)
    desk.tell("refused", [3])
    desk.tell("hopeless", [])
    query = "SELECT i AS id, i::float8 AS value FROM generate_series(0, 9) AS i"
    borne = {"max_reject_ratio": 0.5}
    own = desk.completed(desk.submit("Choosy", output=None, rejects=borne))
    user_s = desk.completed(desk.submit("Choosy", rejects={**borne, "path": str(desk.folder / "rejects")}))
    stopped = desk.submit(
        "Held",
        input={"source": "sql", "connection": "db", "query": query},
        output=parquet_out(desk, path=str(desk.folder / "never")),
    )
    desk.await_word("held")
    desk.service.cancel(desk.job(stopped))
    stopped = desk.ended(stopped)
    young = desk.completed(desk.submit("Recorded", output=None))
    before = {job.id: kept(desk, job) for job in (own, user_s, stopped, young)}
    long_ago = datetime.now(UTC) - timedelta(hours=1.1)
    for job in (own, user_s, stopped):
        desk.service.store.update(job.id, [job.status], finished_at=long_ago)
    until(
        lambda: desk.service.janitor.tick() or all(desk.job(job).expired_at for job in (own, user_s, stopped)),
        PATIENCE_S,
        "the end of the old",
    )
    desk.until(stopped, lambda now: now.expired_at, "its expiry")

    assert {"results", "rejects"} <= set(before[own.id])
    assert "snapshot" in before[stopped.id]
    for job in (own, user_s, stopped):
        now = desk.job(job)
        assert (now.status, now.finished_at) == (job.status, long_ago)
        assert seconds_between(job.created_at, now.expired_at) > 0
        assert kept(desk, job) == ["lock", "log"]
    assert desk.job(young).expired_at is None
    assert kept(desk, young) == before[young.id]
    assert desk.result() == doubled([n for n in range(10) if n != 3])
    assert pq.read_table(desk.folder / "rejects").column("id").to_pylist() == [3]
    names = [".out.penstock.json", ".rejects.penstock.json", "in", "out", "rejects"]
    assert sorted(path.name for path in desk.folder.iterdir()) == names
    for forgotten in (
        lambda: desk.service.admission.retry(desk.job(stopped)),
        lambda: desk.service.admission.retry_rejected(desk.job(own)),
    ):
        with pytest.raises(NotNow, match="has expired"):
            forgotten()


# --- stopping -------------------------------------------------------------------------------------------------------


def cancelled(desk: Desk, job: Job) -> tuple[Job, float]:
    """Cancel a job; returns it as it ended, and the seconds that it took."""
    asked_at = desk.service.cancel(desk.job(job)).cancel_requested_at
    ended = desk.ended(job)
    return ended, seconds_between(asked_at, ended.finished_at)


def retried(desk: Desk, job: Job) -> Job:
    """Have a job go on, and see it end well."""
    again = desk.service.admission.retry(desk.job(job))
    desk.service.wake()
    return desk.completed(again)


def test_a_job_can_be_cancelled_while_its_query_is_copied(desk: Desk, database: str, postgres: Postgres) -> None:
    desk.service.connections.put(desk.tenant, "db", database)
    postgres.execute("CREATE TABLE pace AS SELECT 0.1::float8 AS seconds", database)
    # A span of it are 8 rows, as they are wide.
    query = (
        "SELECT i AS id, i::float8 AS value, repeat('x', 4000000) AS note, pg_sleep(seconds)::text AS slept"
        " FROM pace, generate_series(0, 39) AS i"
    )
    sql = {"source": "sql", "connection": "db", "query": query}
    job = desk.submit("Recorded", input=sql, output=parquet_out(desk, columns=["id"]), config={"batch_size": 2})
    first = desk.until(job, lambda now: now.snapshot_rows, "its first rows").snapshot_rows
    second = desk.until(job, lambda now: now.snapshot_rows != first, "more rows").snapshot_rows
    ended, seconds = cancelled(desk, job)
    listing = sorted(path.name for path in desk.folder.iterdir())
    postgres.execute("UPDATE pace SET seconds = 0", database)
    done = retried(desk, job)

    assert first is not None
    assert second is not None
    assert 0 < first < second < 40
    assert ended.status == "cancelled"
    assert seconds < 5
    assert [move.to for move in desk.moves(job)][:3] == ["submitted", "preparing", "cancelled"]
    assert listing == []
    assert (done.total_rows, done.attempt) == (40, 2)
    assert desk.result() == doubled(range(40))


@pytest.mark.parametrize("model", ["Held", "Deaf"])
def test_a_job_can_be_cancelled_while_its_model_does_not_return(desk: Desk, model: str) -> None:
    desk.write(numbers(100), files=10)
    desk.tell("free", "4")
    job = desk.submit(model, config={"parallelism": 1})
    desk.await_word("held")
    desk.until(job, lambda now: now.live.staged >= 20 or model == "Deaf", "staged rows")
    ended, seconds = cancelled(desk, job)
    listing = sorted(path.name for path in desk.folder.iterdir())
    first = desk.scored_ids()
    helpers = [each["helper"] for each in desk.told("held")]
    until(lambda: not any(map(is_alive, helpers)), PATIENCE_S, "what the model has started to go")
    desk.tell("go")
    done = retried(desk, job)

    assert ended.status == "cancelled"
    assert seconds < 5
    # What the model had started is gone, a session of its own or not.
    assert helpers
    # Nothing is to be seen, and what is kept lies hidden.
    assert listing == [f".out.penstock-{job.id}", "in"]
    assert first == list(range(40))
    assert done.attempt == 2
    assert done.already.total >= (20 if model == "Held" else 0)
    # What was kept is not scored again.
    assert len(desk.scored_ids()) == 100 + len(first) - done.already.total
    assert desk.result() == doubled(range(100))
    # The manifest alone lies beside the result.
    assert hidden(desk.folder) == [".out.penstock.json"]


def test_a_cancelled_job_leaves_no_process_however_its_model_hides_them(desk: Desk) -> None:
    desk.write(numbers(10))
    job = desk.submit("Stubborn", config={"parallelism": 1})
    helpers = [each["helper"] for each in desk.await_word("held", 3)]
    pid = desk.job(job).pid
    asked_at = desk.service.cancel(desk.job(job)).cancel_requested_at
    until(lambda: not any(map(is_alive, [pid or 0, *helpers])), PATIENCE_S, "all processes to go")
    seconds = seconds_between(asked_at, datetime.now(UTC))
    ended = desk.ended(job)

    assert ended.status == "cancelled"
    assert seconds < 5


@pytest.mark.parametrize("anew", [False, True], ids=["its launcher lives", "another launcher is there"])
def test_a_killed_process_leaves_none_however_its_model_hides_them(desk: Desk, anew: bool) -> None:
    desk.write(numbers(10))
    job = desk.submit("Stubborn", config={"parallelism": 1})
    helpers = [each["helper"] for each in desk.await_word("held", 3)]
    if anew:
        # The fork server that would know of them went with it.
        desk.launcher.stop()
        desk.launcher.start()
    desk.tell("go")
    os.kill(desk.job(job).pid or 0, 9)
    killed_at = datetime.now(UTC)
    until(lambda: not any(map(is_alive, helpers)), PATIENCE_S, "all processes to go")
    seconds = seconds_between(killed_at, datetime.now(UTC))
    done = desk.completed(job)

    assert seconds < 5
    assert done.attempt == 2
    assert desk.result() == doubled(range(10))


def test_a_job_that_fails_in_passing_just_when_it_is_cancelled_does_not_wait_to_be_tried_again(desk: Desk) -> None:
    desk.write(numbers(10))
    job = desk.submit("Flaky", config={"retry_count": 1})
    desk.await_word("held")
    # Its process looks each second, and fails before it looks again.
    looked_at = desk.job(job).live_at
    desk.until(job, lambda now: now.live_at != looked_at, "a beat")
    asked = desk.service.cancel(desk.job(job))
    desk.tell("go")
    ended = desk.ended(job)

    assert ended.status == "cancelled"
    assert seconds_between(asked.cancel_requested_at, ended.finished_at) < 5
    assert [move.to for move in desk.moves(job)][-2:] == ["running", "cancelled"]


@pytest.mark.parametrize("in_time", [False, True], ids=["and does not end", "and ends"])
def test_a_job_can_be_stopped_while_it_publishes_and_settles_when_it_goes_on(
    desk: Desk, database: str, postgres: Postgres, in_time: bool
) -> None:
    desk.write(numbers(100), files=2)
    desk.service.connections.put(desk.tenant, "db", database)
    postgres.execute("CREATE TABLE scores (id bigint, score float8)", database)
    postgres.execute("INSERT INTO scores VALUES (-1, -1)", database)
    output = {
        "destination": "table",
        "connection": "db",
        "table_name": "scores",
        "mode": "overwrite",
        "columns": ["id"],
    }
    with adbc_driver_postgresql.dbapi.connect(database) as reader, reader.cursor() as cursor:
        job = desk.submit("Held", output=output)
        desk.await_word("held")
        # It waits for the writers before it, and there is one.
        cursor.execute("LOCK TABLE scores IN ROW EXCLUSIVE MODE")
        desk.tell("go")
        desk.await_status(job, "completing")
        during = postgres.execute("SELECT id, score FROM scores", database)
        asked_at = desk.service.cancel(desk.job(job)).cancel_requested_at
        if in_time:
            reader.rollback()
        ended = desk.ended(job)
        after = postgres.execute("SELECT id, score FROM scores ORDER BY id", database)
        reader.rollback()
    done = ended if in_time else retried(desk, job)
    tables = postgres.execute("SELECT relname FROM pg_class WHERE relname LIKE '\\_penstock%'", database)

    assert during == [(-1, -1.0)]
    assert seconds_between(asked_at, ended.finished_at) < 5
    if in_time:
        assert (ended.status, ended.attempt) == ("completed", 1)
        assert after == doubled(range(100))
    else:
        assert (ended.status, done.attempt) == ("failed", 2)
        assert "after publishing had begun" in (ended.error or "")
        assert after == during
    assert postgres.execute("SELECT id, score FROM scores ORDER BY id", database) == doubled(range(100))
    assert tables == []
    assert desk.scored_ids() == list(range(100))


# --- how far it is --------------------------------------------------------------------------------------------------


def test_progress_never_goes_back_not_even_when_the_worker_is_killed(desk: Desk) -> None:
    desk.write(numbers(400), files=40)
    job = desk.submit("Slow", config={"parallelism": 2, "retry_count": 3})
    seen: list[Job] = []
    killed = False

    def look() -> bool:
        nonlocal killed
        now = desk.job(job)
        if not seen or now != seen[-1]:
            seen.append(now)
        if (
            not killed
            and now.status == "running"
            and job_object(now, desk.launcher.home.jobs)["progress"]["processed_rows"] >= 120
        ):
            assert now.pid is not None
            psutil.Process(now.pid).kill()
            killed = True
        return now.is_over

    until(look, PATIENCE_S, "the end")
    done = desk.completed(job)
    told = [job_object(now, desk.launcher.home.jobs) for now in seen]
    processed = [each["progress"]["processed_rows"] for each in told]
    news = sorted({now.live_at for now in seen if now.status == "running" and now.live_at})
    gaps = [seconds_between(*pair) for pair in itertools.pairwise(news)]
    with_gap = max(gap for gap in gaps if gap)
    print(f"{len(seen)} different answers, longest between two beats {with_gap:.2f} s, attempts {done.attempt}")

    assert killed
    assert done.attempt == 2
    assert processed == sorted(processed)
    assert processed[-1] == 400
    for each in told:
        assert sum(each["counts"].values()) == each["progress"]["processed_rows"] <= 400
    assert sorted(gaps)[len(gaps) // 2] <= 1
    assert desk.result() == doubled(range(400))


def test_a_job_starts_at_once(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.write(numbers(1000))
    for n in range(2):
        job = desk.submit("Recorded", output=parquet_out(desk, path=str(desk.folder / f"out-{n}")))
        first = desk.until(job, lambda now: now.shown.total or now.is_over, "the first row")
        done = desk.completed(job)
    times = {str(move.to): move.at for move in desk.moves(job)} | {"first row": first.live_at}
    with capsys.disabled():
        line = {name: round(1e3 * seconds_between(job.created_at, at)) for name, at in times.items()}
        print(f"\nms after a job was sent, load {os.getloadavg()[0]:.1f}: {line}")

    assert done.outcome == "clean"


# --- what a job may know --------------------------------------------------------------------------------------------


def test_a_model_finds_none_of_the_service_s_secrets(desk: Desk, database: str, postgres: Postgres) -> None:
    uri = postgres.role(database, PASSWORD)
    desk.service.connections.put(desk.tenant, "db", uri)
    query = "SELECT i AS id, i::float8 AS value FROM generate_series(0, 9) AS i"
    job = desk.completed(desk.submit("Curious", input={"source": "sql", "connection": "db", "query": query}))
    seen = json.loads((desk.models / "seen.json").read_text())

    names = set(seen["os.environ"])
    for source in ("own environ", "parent's environ"):
        names |= {line.partition("=")[0] for line in seen[source].splitlines()}
    # Its own id, and nothing else of ours.
    assert {name for name in names if name.startswith(("PENSTOCK", "BATCH", "PG"))} <= {"PENSTOCK_JOB_ID"}
    assert seen["os.environ"]["PENSTOCK_JOB_ID"] == job.id
    assert "hidden" not in json.dumps(seen)
    assert "PATH" in names
    assert "launcher.forks.forkserver" in seen["parent's cmdline"]


def test_no_password_is_in_any_log_file_or_record_of_a_job(
    desk: Desk, database: str, postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    right = postgres.role(database, PASSWORD)
    wrong = right.replace("hidden", "unbidden-hidden")
    desk.service.connections.put(desk.tenant, "right", right)
    desk.service.connections.put(desk.tenant, "wrong", wrong)
    jobs = []
    for name, query in (
        ("right", "SELECT 1::bigint AS id, 1.0::float8 AS value"),
        ("right", "SELECT 1::bigint AS id, (1 / (i - 1))::float8 AS value FROM generate_series(1, 2) AS i"),
        ("wrong", "SELECT 1::bigint AS id, 1.0::float8 AS value"),
    ):
        output = {"destination": "table", "connection": name, "table_name": "scores", "mode": "append"}
        sql = {"source": "sql", "connection": name, "query": query}
        jobs.append(desk.ended(desk.submit("Recorded", input=sql, output=output, config={"retry_count": 0})))
    home = desk.launcher.home
    told: dict[str, bytes] = {
        str(path): path.read_bytes()
        for folder in [home.job(job.id).path for job in jobs] + [desk.folder]
        for path in folder.rglob("*")
        if path.is_file()
    }
    told["forkserver.log"] = (home.path / "forkserver.log").read_bytes()
    told["launcher"] = caplog.text.encode()
    with closing(sqlite3.connect(home.store)) as store:
        for table in ("jobs", "moves", "deliveries", "totals"):
            told[table] = repr(store.execute(f"SELECT * FROM {table}").fetchall()).encode()

    assert [job.status for job in jobs] == ["failed"] * 3, [job.error for job in jobs]
    assert any(path.endswith("/log") for path in told)
    for place, text in told.items():
        for word in (b"hidden", b"%C3%A4", b"w0rd", PASSWORD.encode()):
            assert word not in text, (place, text[max(0, text.index(word) - 200) :][:400])


# --- what may be reached --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["input.path", "output.path", "rejects.path"])
def test_a_path_that_has_become_a_way_out_is_not_followed(desk: Desk, tmp_path: Path, field: str) -> None:
    desk.write(numbers(10))
    outside = tmp_path / "outside"
    outside.mkdir()
    pq.write_table(numbers(7), outside / "secret.parquet")
    before = sorted(outside.iterdir())
    request = desk.request("Recorded", rejects={"path": str(desk.folder / "rejects")})
    job = desk.service.admission.make(desk.caller, request)
    named = desk.folder / {"input.path": "in", "output.path": "out", "rejects.path": "rejects"}[field]
    if field == "input.path":
        named.rename(desk.folder / "moved")
    named.symlink_to(outside)
    desk.service.store.add(job, "test")
    ended = desk.ended(desk.watched(job))

    assert (ended.status, ended.outcome, ended.attempt) == ("failed", "request_wrong", 1)
    assert (ended.error or "").startswith(field)
    assert "outside of the folders that a request may name" in (ended.error or "")
    assert "secret" not in (ended.error or "")
    assert desk.told("calls") == []
    assert sorted(outside.iterdir()) == before
    assert not (desk.launcher.home.job(job.id).path / "plan.json").exists()


# --- the rows that were refused -------------------------------------------------------------------------------------

REFUSED, HOPELESS = [3, 17, 18, 59], [40]
ROWS = 60


class Destination:
    """A kind of place that rows come from and results go to."""

    def __init__(self, desk: Desk, kind: str, database: str, postgres: Postgres) -> None:
        self._desk, self._kind = desk, kind
        self._database, self._postgres = database, postgres
        ids = list(range(ROWS))
        rows = pa.table(
            {
                "id": ids,
                "value": [float(id_) for id_ in ids],
                "error": [f"was {id_}" for id_ in ids],
                "note": ["x"] * ROWS,
            }
        )
        if kind == "parquet":
            desk.write(rows, files=2)
            return
        self._file = desk.folder / "numbers.db"
        uri = database if kind == "postgresql" else f"sqlite:///{self._file}"
        desk.service.connections.put(desk.tenant, "db", uri)
        self._run("CREATE TABLE numbers (id bigint, value double precision, error text, note text)")
        values = ", ".join(f"({id_}, {float(id_)}, 'was {id_}', 'x')" for id_ in ids)
        self._run(f"INSERT INTO numbers VALUES {values}")

    def body(self, columns: list[str] | None) -> dict[str, Any]:
        kept = {} if columns is None else {"columns": columns}
        if self._kind == "parquet":
            return {"output": parquet_out(self._desk, **kept)}
        return {
            "input": {"source": "sql", "connection": "db", "query": "SELECT id, value, error, note FROM numbers"},
            "output": {"destination": "table", "connection": "db", "table_name": "scores", **kept},
        }

    def rows(self, columns: list[str]) -> list[tuple[Any, ...]]:
        """What readers see, sorted."""
        if self._kind == "parquet":
            table = pq.read_table(self._desk.folder / "out").select(columns)
            return sorted(tuple(row.values()) for row in table.to_pylist())
        return sorted(self._run(f"SELECT {', '.join(columns)} FROM scores"))

    def _run(self, sql: str) -> list[tuple[Any, ...]]:
        if self._kind == "postgresql":
            return self._postgres.execute(sql, self._database)
        with closing(sqlite3.connect(self._file, timeout=60)) as database, database:
            return database.execute(sql).fetchall()


@pytest.mark.parametrize("columns", [None, ["id", "error"]], ids=["all-columns", "some-columns"])
@pytest.mark.parametrize("kind", ["parquet", "sqlite", "postgresql"])
def test_only_the_refused_rows_are_scored_again(
    desk: Desk, kind: str, columns: list[str] | None, database: str, postgres: Postgres
) -> None:
    place = Destination(desk, kind, database, postgres)
    desk.tell("refused", REFUSED)
    desk.tell("hopeless", HOPELESS)
    path = {} if columns is None else {"path": str(desk.folder / "rejects")}
    body = {**place.body(columns), "rejects": {"max_reject_ratio": 0.5, **path}}
    parent = desk.completed(desk.submit("Choosy", features=None if columns is None else ("id", "value"), **body))
    before = desk.scored_ids()
    desk.tell("mended")
    admission = desk.service.admission
    child = desk.watched(admission.retry_rejected(parent))
    with pytest.raises(NotNow, match=f"scored again already, by {child.id}"):
        admission.retry_rejected(parent)
    child = desk.completed(child)
    with pytest.raises(NotNow, match=f"scored again already, by {child.id}|ran after"):
        admission.retry_rejected(parent)
    left = first_rejects(child, 10).to_pylist()

    good = [id_ for id_ in range(ROWS) if id_ not in HOPELESS]
    assert parent.counts is not None
    assert parent.counts.rejected == len(REFUSED) + len(HOPELESS)
    assert before == [id_ for id_ in good if id_ not in REFUSED]
    assert desk.scored_ids() == good
    assert (child.retry_of, child.outcome) == (parent.id, "with_rejects")
    assert child.counts is not None
    assert (child.counts.scored, child.counts.rejected) == (len(REFUSED), len(HOPELESS))
    assert place.rows(["id", "score", "error"]) == [(id_, 2.0 * id_, f"was {id_}") for id_ in good]
    if columns is None:
        assert place.rows(["id", "note", "value"]) == [(id_, "x", float(id_)) for id_ in good]
    assert [(row["id"], row["error"], row["note"]) for row in left] == [(40, "was 40", "x")]
    assert list(left[0].values())[1:3] == ["RowsRejected", "no such customer"]

    # What is left may be tried once more, and passes in the end.
    desk.tell("hopeless", [])
    last = desk.completed(desk.watched(admission.retry_rejected(child)))

    assert last.outcome == "clean"
    assert place.rows(["id", "score"]) == doubled(range(ROWS))
    assert desk.scored_ids() == list(range(ROWS))


# --- somebody exchanges files for links while the model loads ---------------------------------------------------------


def write_database(file: Path, score: float) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE scores (id INTEGER, value REAL, score REAL)")
        database.execute("INSERT INTO scores VALUES (1, ?, ?)", (score, score))
        database.commit()


@pytest.mark.parametrize(
    ("exchanged", "body", "message"),
    [
        pytest.param("in/000.parquet", {}, "input.path leads to a file outside", id="a file that is read"),
        pytest.param("in", {}, "input.path leads to a file outside", id="the folder of one"),
        pytest.param(
            "scores.db",
            {"input": {"source": "sql", "connection": "db", "query": "SELECT id, value FROM scores"}},
            "leads elsewhere",
            id="a database that is read",
        ),
        pytest.param(
            "scores.db",
            {"output": {"destination": "table", "connection": "db", "table_name": "scores", "mode": "append"}},
            "leads elsewhere",
            id="a database that is written",
        ),
        pytest.param("out", {}, "output.path .* leads out of the folders", id="a result"),
        pytest.param("sub", {}, "output.path .* leads out of the folders", id="the folder of one"),
        pytest.param("rejects", {}, "rejects.path .* leads out of the folders", id="rejects"),
    ],
)
def test_what_takes_a_files_place_while_the_model_loads_is_neither_read_nor_written(
    desk: Desk, tmp_path: Path, exchanged: str, body: dict[str, Any], message: str
) -> None:
    other = tmp_path / "other"
    for place, n in ((desk.folder, 1.0), (other, 42.0)):
        for folder in ("in", "out", "sub/out", "rejects"):
            (place / folder).mkdir(parents=True)
        write_database(place / "scores.db", n)
        pq.write_table(pa.table({"id": [1], "value": [n]}), place / "in" / "000.parquet")
        for folder in ("out", "sub/out", "rejects"):
            manifest = {"job_id": "batch-0000000000", "counts": {}, "files": []}
            (place / folder / "_manifest.json").write_text(json.dumps(manifest))
    there = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    desk.service.connections.put(desk.tenant, "db", f"sqlite:///{desk.folder}/scores.db")
    desk.tell("exchange", [[str(desk.folder / exchanged), str(other / exchanged)]])
    out = desk.folder / ("sub/out" if exchanged == "sub" else "out")
    given = {"output": {"destination": "parquet", "path": str(out), "mode": "overwrite"}, **body}
    rejects = {"path": str(desk.folder / "rejects")}

    job = desk.ended(desk.submit("Exchanging", rejects=rejects, config={"retry_count": 0}, **given))

    assert desk.told("exchanged")
    assert (job.status, re.search(message, job.error or "") is not None) == ("failed", True), job.error
    assert str(other) not in (job.error or "")
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == there


# --- the launcher goes, the job stays -------------------------------------------------------------------------------


def test_a_launcher_that_starts_again_adopts_what_runs(desk: Desk) -> None:
    desk.write(numbers(100), files=10)
    desk.tell("free", "2")
    job = desk.submit("Held")
    desk.await_word("held")
    before = desk.job(job)
    desk.launcher.stop()
    desk.launcher.start()
    after = desk.job(job)
    assert before.pid is not None
    alive = session(before.pid)
    beat = desk.until(job, lambda now: now.live_at != after.live_at, "a further beat")
    desk.tell("go")
    done = desk.completed(job)

    assert alive
    assert beat.status == "running"
    assert (done.attempt, done.pid, done.owner) == (1, before.pid, before.owner)
    assert done.owner != desk.service.id
    assert [move.to for move in desk.moves(job)] == ["submitted", "preparing", "running", "completing", "completed"]
    assert [each["pid"] for each in desk.told("processes")] == [done.pid]
    assert desk.result() == doubled(range(100))


def test_a_job_that_dies_while_no_launcher_is_there_goes_on_with_the_next(desk: Desk) -> None:
    desk.write(numbers(100), files=10)
    desk.tell("free", "2")
    job = desk.submit("Held")
    desk.await_word("held", DEFAULT_PARALLELISM)
    pid = desk.job(job).pid
    assert pid is not None
    desk.launcher.stop()
    helpers = [psutil.Process(each["helper"]) for each in desk.told("held")]
    # Nobody could know of these: their own sessions, and no parent any more.
    for process in [*session(pid), *helpers]:
        process.kill()
    until(lambda: not session(pid), PATIENCE_S, "the end of its process")
    desk.tell("go")
    desk.launcher.start()
    done = desk.completed(job)

    assert done.attempt == 2
    assert desk.result() == doubled(range(100))
