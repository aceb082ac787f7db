"""Jobs over HTTP: submitted, looked at, listed, cancelled, tried again."""

import contextlib
import json
import re
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.api.models import EstimateAnswer, JobAnswer, JobPage, LogPage, RowPage, ScheduledJob, SubmittedJob
from launcher.errors import AsideFailed
from launcher.state.job import Live, Seconds
from launcher.state.speed import sped
from tests.api import ASIDE, BATCH, JSON, ROWS, SEED, Api, checked, problem, serving, wait_for
from tests.contract.sinks import manifest_of, split_of
from tests.mute import mute_postgres
from transforms.batches import ScoredSpan, Span
from transforms.connection import Connection
from transforms.counts import Counts
from transforms.sinks.table import table_sink


@pytest.fixture
def client(api: Api, tenant: str) -> httpx.Client:
    client = api.client(tenant, "admin")
    api.stock(client)
    return client


def test_the_first_request_of_the_documentation_is_answered_as_there(api: Api, client: httpx.Client) -> None:
    answer = client.post(BATCH, content=SEED, headers=JSON)

    submitted = checked(answer, 202, SubmittedJob)
    assert list(answer.json()) == [
        "job_id",
        "status",
        "estimated_duration_minutes",
        "estimated_duration_seconds",
        "input_row_count",
    ]
    assert re.fullmatch("batch-[0-9a-f]{10}", submitted.job_id)
    assert submitted.input_row_count == ROWS
    assert (submitted.estimated_duration_minutes, submitted.estimated_duration_seconds) == (1, 1.5)
    assert answer.headers["Location"] == f"{BATCH}/{submitted.job_id}"


def test_a_running_job_is_told_of_as_in_the_documentation(api: Api, client: httpx.Client) -> None:
    job_id = api.submit(client)
    job = api.run(job_id, scored=650)
    assert job.running_at is not None
    now = job.running_at + timedelta(seconds=650)
    api.service.store.update(job_id, ["running"], live_at=now, speed=sped(None, 1, job.running_at, 650, now))

    answer = client.get(f"{BATCH}/{job_id}")

    told = checked(answer, 200, JobAnswer)
    body = answer.json()
    assert body["progress"] == {"total_rows": ROWS, "processed_rows": 650, "percentage": 65}
    assert told.status == "running"
    assert told.rows_per_second == 1.0
    done_at = datetime.fromisoformat(body["estimated_completion"])
    assert abs(done_at - (job.running_at + timedelta(seconds=1000))) < timedelta(milliseconds=2)


def test_a_job_says_what_it_was_asked_for(api: Api, client: httpx.Client) -> None:
    job_id = api.submit(client, name="churn, daily", labels={"team": "growth"}, config={"batch_size": 7})

    told = checked(client.get(f"{BATCH}/{job_id}"), 200, JobAnswer)

    assert (told.name, told.labels, told.config.batch_size) == ("churn, daily", {"team": "growth"}, 7)
    assert (told.model_id, told.model_version) == ("model-xyz789", 1)
    assert told.output.location == "predictions.churn_scores"
    assert told.links.events == f"{BATCH}/{job_id}/events"


def test_a_job_that_took_long_before_is_estimated_to_again(api: Api, client: httpx.Client) -> None:
    first = api.submit(client)
    api.run(first, ROWS)
    done = {"outcome": "clean", "counts": Counts(ROWS), "total_rows": ROWS}
    api.move(first, "completing", "completed", seconds=Seconds(1, 118, 1), **done)

    answer = client.post(BATCH, content=SEED, headers=JSON)

    told = checked(answer, 202, SubmittedJob)
    assert told.estimated_duration_seconds == 120
    assert told.estimated_duration_minutes == 2


def test_a_job_with_a_schedule_becomes_a_schedule(api: Api, client: httpx.Client) -> None:
    body = {**json.loads(SEED), "name": "nightly", "schedule": {"cron": "0 2 * * *", "timezone": "UTC"}}

    answer = client.post(BATCH, json=body)

    made = checked(answer, 202, ScheduledJob)
    assert len(made.next_runs) == 5
    kept = client.get(answer.headers["Location"]).json()
    assert kept["schedule_id"] == made.schedule_id
    assert kept["name"] == "nightly"
    assert "schedule" not in kept["job"]


class TestLists:
    def test_come_in_pages_that_have_every_job_once(self, api: Api, client: httpx.Client) -> None:
        made = [api.submit(client) for _ in range(5)]

        seen: list[str] = []
        cursor = None
        while True:
            query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = checked(client.get(BATCH, params=query), 200, JobPage)
            seen += [job.job_id for job in page.jobs]
            cursor = page.next_cursor
            if cursor is None:
                break
            # Comes first, and shifts nothing.
            api.submit(client)

        assert seen == made[::-1]

    def test_are_filtered(self, api: Api, client: httpx.Client) -> None:
        waiting, running, cancelled = (api.submit(client) for _ in range(3))
        api.run(running, 1)
        api.move(cancelled, "cancelled")
        client.post("/api/v1/models", json={"model_id": "other", "uri": "churn.onnx"})
        other = api.submit(client, model_id="other")
        began = api.service.store.get(running).created_at

        def listed(**query: Any) -> list[str]:
            return [job.job_id for job in checked(client.get(BATCH, params=query), 200, JobPage).jobs]

        assert listed(status="running") == [running]
        assert listed(status=["running", "cancelled"]) == [cancelled, running]
        assert listed(model_id="other") == [other]
        assert listed(model_id="model-xyz789", status="submitted") == [waiting]
        assert listed(schedule_id="sched-0123456789") == []
        assert listed(since=began.isoformat()) == [other, cancelled, running]
        assert listed(until=began.isoformat().replace("+00:00", "Z")) == [waiting]

    @pytest.mark.parametrize(
        "query",
        [
            "limit=0",
            "limit=501",
            "limit=x",
            "status=done",
            "cursor=x",
            "cursor=WyJqIl0",
            "cursor=bm9uZQ",
            "since=yesterday",
            "since=2025-03-15",
            "since=0001-01-01T00:00:00%2B23:00",
            "model_id=a%00b",
            "schedule_id=x",
            "stauts=running",
        ],
    )
    def test_do_not_take_what_nobody_understands(self, client: httpx.Client, query: str) -> None:
        told = problem(client.get(f"{BATCH}?{query}"), 422, "invalid-request")

        assert told.errors[0].field in query

    def test_take_no_cursor_of_another_list(self, api: Api, client: httpx.Client) -> None:
        for n in range(2):
            client.post("/api/v1/models", json={"model_id": f"m{n}", "uri": "churn.onnx"})
        cursor = client.get("/api/v1/models?limit=1").json()["next_cursor"]

        problem(client.get(f"{BATCH}?cursor={cursor}"), 422, "invalid-request")


class TestCancelling:
    @pytest.mark.parametrize("by", ["POST", "DELETE"])
    def test_a_job_that_waits_is_done_at_once(self, api: Api, client: httpx.Client, by: str) -> None:
        job_id = api.submit(client)

        answer = client.request(by, f"{BATCH}/{job_id}" + ("/cancel" if by == "POST" else ""))

        assert checked(answer, 200, JobAnswer).status == "cancelled"
        problem(client.post(f"{BATCH}/{job_id}/cancel"), 409, "conflict")

    def test_a_job_at_work_is_told_to_stop(self, api: Api, client: httpx.Client) -> None:
        job_id = api.submit(client)
        api.run(job_id, 1)

        told = checked(client.post(f"{BATCH}/{job_id}/cancel"), 202, JobAnswer)

        assert (told.status, told.cancel_requested) == ("running", True)
        assert api.service.store.get(job_id).cancel_requested_at is not None


class TestPurging:
    def test_leaves_nothing_of_a_job(self, api: Api, client: httpx.Client) -> None:
        schedule = client.post("/api/v1/schedules", json={"schedule": {"cron": "0 2 * * *"}, "job": json.loads(SEED)})
        schedule_path = schedule.headers["Location"]
        made = client.post(f"{schedule_path}/run").json()["job_id"]
        api.move(made, "cancelled")
        key = {"Idempotency-Key": f"purged-{made}"}
        first = client.post(BATCH, content=SEED, headers={**JSON, **key})
        job_id = first.json()["job_id"]
        api.move(job_id, "cancelled")
        result = completed(api, client)
        answers = [client.delete(f"{BATCH}/{each}", params={"purge": "true"}) for each in (made, job_id, result)]

        assert [(answer.status_code, answer.content) for answer in answers] == [(204, b"")] * 3
        for each in (made, job_id, result):
            for path in ("", "/results", "/logs", "/events"):
                problem(client.get(f"{BATCH}/{each}{path}"), 404, "not-found")
            problem(client.delete(f"{BATCH}/{each}?purge=true"), 404, "not-found")
            assert not api.service.home.job(each).path.exists()
        assert client.get(BATCH).json()["jobs"] == []
        assert client.get(schedule_path).json()["last_job_id"] is None
        # The same request is answered as it was, and nothing is run again.
        again = client.post(BATCH, content=SEED, headers={**JSON, **key})
        assert (again.status_code, again.json()) == (202, first.json())
        assert client.get(BATCH).json()["jobs"] == []

    def test_leaves_what_was_published_elsewhere(self, api: Api, client: httpx.Client) -> None:
        job_id = tabled(api, client)

        assert client.delete(f"{BATCH}/{job_id}?purge=true").status_code == 204
        with contextlib.closing(sqlite3.connect(api.work / "customers.db")) as database:
            assert database.execute("SELECT count(*) FROM scores").fetchone() == (3,)

    def test_is_for_jobs_that_are_over(self, api: Api, client: httpx.Client) -> None:
        waiting, running = api.submit(client), api.submit(client)
        api.run(running, 1)

        for job_id, status in ((waiting, "submitted"), (running, "running")):
            told = problem(client.delete(f"{BATCH}/{job_id}?purge=true"), 409, "conflict")
            assert told.detail == f"{job_id} is {status}; cancel it first, and purge it once it is over"
            # Without, it is cancelled; and another word is none.
            problem(client.delete(f"{BATCH}/{job_id}?purge=perhaps"), 422, "invalid-request")
            assert api.service.store.get(job_id).cancel_requested_at is None
            assert client.delete(f"{BATCH}/{job_id}?purge=false").status_code in (200, 202)

    def test_waits_for_a_job_that_adds_to_the_result(self, api: Api, client: httpx.Client) -> None:
        job_id = completed(api, client)
        again = client.post(f"{BATCH}/{job_id}/retry?only=rejected").json()["job_id"]

        told = problem(client.delete(f"{BATCH}/{job_id}?purge=true"), 409, "conflict")

        assert again in told.detail
        assert client.get(f"{BATCH}/{job_id}/results").status_code == 200
        client.post(f"{BATCH}/{again}/cancel")
        assert client.delete(f"{BATCH}/{job_id}?purge=true").status_code == 204


class TestRetrying:
    def test_makes_another_attempt_that_bears_more(self, api: Api, client: httpx.Client) -> None:
        job_id = api.submit(client)
        api.run(job_id, 400)
        api.move(job_id, "failed", outcome="too_many_rejects", error="no", counts=Counts(400, 600))

        answer = client.post(f"{BATCH}/{job_id}/retry?max_reject_ratio=0.75")

        told = checked(answer, 202, JobAnswer)
        assert (told.job_id, told.status, told.attempt) == (job_id, "submitted", 2)
        assert told.progress.processed_rows == ROWS
        assert api.service.store.get(job_id).spec.rejects.max_reject_ratio == 0.75

    def test_is_not_for_jobs_that_run_or_are_done(self, api: Api, client: httpx.Client) -> None:
        job_id = api.submit(client)

        problem(client.post(f"{BATCH}/{job_id}/retry"), 409, "conflict")
        problem(client.post(f"{BATCH}/{job_id}/retry?only=rejected"), 409, "conflict")
        problem(client.post(f"{BATCH}/{job_id}/retry?only=scored"), 422, "invalid-request")
        problem(client.post(f"{BATCH}/{job_id}/retry?max_reject_ratio=2"), 422, "invalid-request")
        problem(client.post(f"{BATCH}/{job_id}/retry?max_reject_ratio=nan"), 422, "invalid-request")

    def test_of_rejected_rows_makes_another_job(self, api: Api, client: httpx.Client) -> None:
        job_id = completed(api, client)

        answer = client.post(f"{BATCH}/{job_id}/retry?only=rejected")

        told = checked(answer, 202, JobAnswer)
        assert told.job_id != job_id
        assert told.retry_of == job_id
        assert told.input_row_count == 3
        assert answer.headers["Location"] == f"{BATCH}/{told.job_id}"
        problem(client.post(f"{BATCH}/{job_id}/retry?only=rejected"), 409, "conflict")
        problem(client.post(f"{BATCH}/{job_id}/retry?only=rejected&max_reject_ratio=1"), 422, "invalid-request")

    def test_of_rejected_rows_does_not_tell_where_the_service_keeps_the_result(
        self, api: Api, client: httpx.Client
    ) -> None:
        """Nor does one of what that job rejected again."""
        first = completed(api, client)
        kept = api.service.store.get(first).output
        again = checked(client.post(f"{BATCH}/{first}/retry?only=rejected"), 202, JobAnswer)
        rejects = api.service.home.job(again.job_id).path / "rejects"
        bad = {"customer_id": [999], "position": ["a:1"], "error_type": ["E"], "error": ["no"]}
        publish(rejects, again.job_id, [pa.table(bad)])
        api.run(again.job_id, 2)
        ended = {"outcome": "with_rejects", "counts": Counts(2, 1), "output": kept, "rejects": str(rejects)}
        api.move(again.job_id, "completing", "completed", **ended)
        last = checked(client.post(f"{BATCH}/{again.job_id}/retry?only=rejected"), 202, JobAnswer)

        assert (again.output.location, last.output.location) == (None, None)
        told = checked(client.get(f"{BATCH}/{again.job_id}"), 200, JobAnswer)
        assert told.output.location == f"{BATCH}/{again.job_id}/results"


def completed(api: Api, client: httpx.Client, **changes: Any) -> str:
    """A job that is completed: 997 rows, of which the service keeps the scores, and 3 rejected ones."""
    job_id = api.submit(client, output=None, **changes)
    folder = api.service.home.job(job_id)
    folder.create()
    result, rejects = folder.path / "results", folder.path / "rejects"
    publish(result, job_id, [pa.table({"customer_id": range(500)}), pa.table({"customer_id": range(500, 997)})])
    bad = {"customer_id": [997, 998, 999], "position": ["a:1"] * 3, "error_type": ["E"] * 3, "error": ["no"] * 3}
    publish(rejects, job_id, [pa.table(bad)])
    api.run(job_id, 997)
    api.move(
        job_id,
        "completing",
        "completed",
        outcome="with_rejects",
        counts=Counts(997, 3),
        output=str(result),
        rejects=str(rejects),
    )
    return job_id


def tabled(api: Api, client: httpx.Client) -> str:
    """A job that is completed, with 3 rows in a table."""
    job_id = api.submit(client, output={"destination": "table", "table_name": "scores"})
    database = Connection(f"sqlite:///{api.work}/customers.db")
    sink = table_sink(database, "scores", "overwrite", job_id, api.service.home.job(job_id).path)
    rows = pa.record_batch({"id": [0, 1, 2]})
    split = split_of(1, 3, 3)
    sink.prepare(rows.schema)
    sink.stage([ScoredSpan(Span(split, 0, 3, True), rows)], None)
    sink.publish(manifest_of(sink, job_id, [split]))
    sink.clean()
    api.run(job_id, 3)
    api.move(job_id, "completing", "completed", outcome="clean", counts=Counts(3))
    return job_id


def publish(folder: Path, job_id: str, tables: list[pa.Table]) -> None:
    folder.mkdir()
    files = []
    for n, table in enumerate(tables):
        pq.write_table(table, folder / f"part-{n}.parquet")
        files.append({"name": f"part-{n}.parquet", "rows": table.num_rows})
    manifest = {"job_id": job_id, "counts": {}, "files": files}
    (folder / "_manifest.json").write_text(json.dumps(manifest))


class TestRows:
    def test_of_a_result_come_in_pages(self, api: Api, client: httpx.Client) -> None:
        job_id = completed(api, client)

        seen: list[int] = []
        cursor = None
        while True:
            query = {"limit": 300} | ({"cursor": cursor} if cursor else {})
            page = checked(client.get(f"{BATCH}/{job_id}/results", params=query), 200, RowPage)
            seen += [row["customer_id"] for row in page.rows]
            cursor = page.next_cursor
            if cursor is None:
                break

        assert seen == list(range(997))

    def test_come_as_arrow_to_whoever_wants_it(self, api: Api, client: httpx.Client) -> None:
        job_id = completed(api, client)
        arrow = {"Accept": "application/vnd.apache.arrow.stream"}

        answer = client.get(f"{BATCH}/{job_id}/results?limit=10", headers=arrow)

        assert answer.headers["Content-Type"] == arrow["Accept"]
        assert pa.ipc.open_stream(answer.content).read_all().num_rows == 10
        following = client.get(
            f"{BATCH}/{job_id}/results", params={"cursor": answer.headers["X-Next-Cursor"], "limit": 1}
        )
        assert following.json()["rows"] == [{"customer_id": 10}]

    def test_that_were_rejected_begin_with_the_reason(self, api: Api, client: httpx.Client) -> None:
        job_id = completed(api, client)

        page = checked(client.get(f"{BATCH}/{job_id}/rejects?limit=2"), 200, RowPage)

        assert [list(row) for row in page.rows] == [["position", "error_type", "error", "customer_id"]] * 2
        rest = checked(client.get(f"{BATCH}/{job_id}/rejects?cursor={page.next_cursor}"), 200, RowPage)
        assert [row["customer_id"] for row in rest.rows] == [999]

    def test_of_a_job_that_is_not_done_are_not_there(self, api: Api, client: httpx.Client) -> None:
        job_id = api.submit(client)

        problem(client.get(f"{BATCH}/{job_id}/results"), 409, "conflict")
        problem(client.get(f"{BATCH}/{job_id}/rejects"), 409, "conflict")

    @pytest.mark.parametrize(
        ("status", "outcome", "remedy"),
        [
            ("failed", "error", "`penstock retry {}` goes on with it"),
            ("failed", "request_wrong", "correct the request, as its error says, and submit it again"),
            ("cancelled", None, "`penstock retry {}` goes on with it"),
        ],
    )
    def test_of_a_job_that_came_to_nothing_are_not_awaited(
        self, api: Api, client: httpx.Client, status: Any, outcome: Any, remedy: str
    ) -> None:
        job_id = api.submit(client)
        api.move(job_id, status, outcome=outcome, error="no")

        said = problem(client.get(f"{BATCH}/{job_id}/results"), 409, "conflict")

        assert said.detail == f"{job_id} is {status}, and has no result; {remedy.format(job_id)}"

    def test_that_were_never_rejected_are_an_empty_page(self, api: Api, client: httpx.Client) -> None:
        job_id = api.submit(client)
        api.run(job_id, ROWS)
        api.move(job_id, "completing", "completed", outcome="clean", counts=Counts(ROWS))

        assert checked(client.get(f"{BATCH}/{job_id}/rejects"), 200, RowPage).rows == []
        arrow = client.get(f"{BATCH}/{job_id}/rejects", headers={"Accept": "application/vnd.apache.arrow.stream"})
        assert pa.ipc.open_stream(arrow.content).read_all().num_rows == 0

    def test_that_expired_are_gone(self, api: Api, client: httpx.Client) -> None:
        job_id = completed(api, client)
        api.service.store.update(job_id, ["completed"], expired_at=datetime.now(UTC))

        problem(client.get(f"{BATCH}/{job_id}/results"), 410, "gone")
        problem(client.get(f"{BATCH}/{job_id}/rejects"), 410, "gone")
        assert client.get(f"{BATCH}/{job_id}").json()["expired_at"] is not None

    def test_that_another_job_replaced_are_gone(self, api: Api, client: httpx.Client) -> None:
        job_id = completed(api, client)
        manifest = api.service.home.job(job_id).path / "results" / "_manifest.json"
        manifest.write_text(manifest.read_text().replace(job_id, "batch-0000000000"))

        problem(client.get(f"{BATCH}/{job_id}/results"), 410, "gone")

    def test_behind_a_link_that_came_later_are_not_shown(self, api: Api, client: httpx.Client, tmp_path: Path) -> None:
        folder = api.work / f"scores-{tmp_path.name}"
        job_id = api.submit(client, output={"destination": "parquet", "path": str(folder)})
        publish(folder, job_id, [pa.table({"x": [1]})])
        api.run(job_id, ROWS)
        api.move(job_id, "completing", "completed", outcome="clean", counts=Counts(ROWS), output=str(folder))
        shown = client.get(f"{BATCH}/{job_id}/results")

        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")

        assert checked(shown, 200, RowPage).rows == [{"x": 1}]
        problem(client.get(f"{BATCH}/{job_id}/results"), 410, "gone")

    @pytest.mark.parametrize("linked", ["file", "folder"])
    def test_that_were_rejected_are_neither_shown_nor_scored_again_behind_a_link_that_came_later(
        self, api: Api, client: httpx.Client, tmp_path: Path, linked: str
    ) -> None:
        folder = api.work / f"rejects-{tmp_path.name}"
        job_id = api.submit(client, rejects={"path": str(folder)})
        bad = {"x": [1], "position": ["a:1"], "error_type": ["E"], "error": ["no"]}
        publish(folder, job_id, [pa.table(bad)])
        api.run(job_id, ROWS - 1)
        api.move(
            job_id,
            "completing",
            "completed",
            outcome="with_rejects",
            counts=Counts(ROWS - 1, 1),
            rejects=str(folder),
        )
        shown = client.get(f"{BATCH}/{job_id}/rejects")

        moved = folder if linked == "folder" else folder / "part-0.parquet"
        moved.rename(tmp_path / "elsewhere")
        moved.symlink_to(tmp_path / "elsewhere")

        assert checked(shown, 200, RowPage).rows[0]["x"] == 1
        problem(client.get(f"{BATCH}/{job_id}/rejects"), 409, "conflict")
        problem(client.post(f"{BATCH}/{job_id}/retry?only=rejected"), 409, "conflict")
        moved.unlink()
        (tmp_path / "elsewhere").rename(moved)
        checked(client.post(f"{BATCH}/{job_id}/retry?only=rejected"), 202, JobAnswer)

    def test_in_a_table_are_read_where_it_is(self, api: Api, client: httpx.Client) -> None:
        job_id = tabled(api, client)

        page = checked(client.get(f"{BATCH}/{job_id}/results?limit=2"), 200, RowPage)

        assert page.rows == [{"id": 0}, {"id": 1}]
        rest = checked(client.get(f"{BATCH}/{job_id}/results?cursor={page.next_cursor}"), 200, RowPage)
        assert (rest.rows, rest.next_cursor) == ([{"id": 2}], None)

    def test_in_a_database_that_never_answers_hold_up_nobody_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("launcher.rows.tablepages.TIMEOUT_S", 1)
        monkeypatch.setattr("launcher.api.threads._TURN_S", 0.5)
        hosts = {"PENSTOCK_ALLOWED_HOSTS": "127.0.0.1"}
        with (
            mute_postgres() as uri,
            serving(tmp_path, keyless=False, preload=ASIDE, **hosts) as api,
            ThreadPoolExecutor(45) as threads,
        ):
            client, other = api.client("acme", "admin"), api.client("globex", "admin")
            for each in (client, other):
                api.stock(each)
            job_id, others_id = tabled(api, client), completed(api, other)
            assert client.post("/api/v1/connections", json={"name": "default", "uri": uri}).status_code == 200
            many = httpx.Client(base_url=api.url, headers=client.headers, timeout=60, limits=httpx.Limits())
            # More than the server has threads.
            asked = [threads.submit(many.get, f"{BATCH}/{job_id}/results") for _ in range(45)]
            wait_for(lambda: len(psutil.Process(api.service.forks.pid).children()) == 2)
            others = [
                other.get(f"{BATCH}/{others_id}/results"),
                other.post(BATCH, content=SEED, headers=JSON),
                other.get("/api/v1/models"),
            ]
            refused = [problem(each.result(), 503, "unavailable").detail for each in asked]
            many.close()

        assert [each.status_code for each in others] == [200, 202, 200]
        assert all("s3cret" not in line for line in refused)
        assert {line.rpartition(": ")[2].partition(";")[0] for line in refused} == {
            "no answer within 1 s",
            "2 pages of results are being read already, which takes long",
        }

    @pytest.mark.parametrize("what", ["results", "rejects", "logs"])
    def test_are_offered_in_two_media_types(self, api: Api, client: httpx.Client, what: str) -> None:
        job_id = completed(api, client)

        told = problem(client.get(f"{BATCH}/{job_id}/{what}", headers={"Accept": "text/html"}), 406, "not-acceptable")

        assert "application/json or " in told.detail
        assert client.get(f"{BATCH}/{job_id}/{what}", headers={"Accept": "text/html, */*;q=0.1"}).status_code == 200


class TestLogs:
    @pytest.fixture
    def job_id(self, api: Api, client: httpx.Client) -> str:
        job_id = api.submit(client)
        api.service.home.job(job_id).create()
        api.service.home.job(job_id).log.write_text("".join(f"line {n}\n" for n in range(100)) + "half")
        return job_id

    def test_are_read_on_from_where_one_was(self, api: Api, client: httpx.Client, job_id: str) -> None:
        path = f"{BATCH}/{job_id}/logs"
        seen: list[str] = []
        offset = 0
        while True:
            page = checked(client.get(path, params={"offset": offset, "limit_bytes": 100}), 200, LogPage)
            seen += page.lines
            if page.next_offset == offset:
                break
            offset = page.next_offset
        # Somebody may still be writing it.
        assert not page.complete
        api.move(job_id, "cancelled")

        end = checked(client.get(path, params={"offset": offset}), 200, LogPage)

        assert seen == [f"line {n}" for n in range(100)]
        assert (end.lines, end.complete) == (["half"], True)

    def test_can_be_had_from_their_end(self, client: httpx.Client, job_id: str) -> None:
        page = checked(client.get(f"{BATCH}/{job_id}/logs?tail=2"), 200, LogPage)

        assert page.lines == ["line 98", "line 99"]
        problem(client.get(f"{BATCH}/{job_id}/logs?tail=2&offset=0"), 422, "invalid-request")

    def test_can_be_had_as_text(self, client: httpx.Client, job_id: str) -> None:
        answer = client.get(f"{BATCH}/{job_id}/logs?limit_bytes=20", headers={"Accept": "text/plain"})

        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.text == "line 0\nline 1\n"
        assert answer.headers["X-Next-Offset"] == "14"

    def test_are_never_read_through_a_link(self, api: Api, client: httpx.Client, job_id: str, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret\n")
        log = api.service.home.job(job_id).log
        log.unlink()
        log.symlink_to(tmp_path / "secret")

        assert checked(client.get(f"{BATCH}/{job_id}/logs"), 200, LogPage).lines == []

    def test_of_a_job_that_has_not_begun_are_empty(self, api: Api, client: httpx.Client) -> None:
        page = checked(client.get(f"{BATCH}/{api.submit(client)}/logs"), 200, LogPage)

        assert (page.lines, page.next_offset, page.complete) == ([], 0, False)


def test_a_job_of_postgresql_is_told_of_likewise(database: str, tmp_path: Path) -> None:
    with serving(tmp_path, keyless=True, store_url=database, preload=ASIDE) as api:
        client = api.client()
        api.stock(client)
        headers = {**JSON, "Idempotency-Key": "the-first"}
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: client.post(BATCH, content=SEED, headers=headers), range(4)))
        ids = {answer.json()["job_id"] for answer in answers if answer.status_code == 202}
        (job_id,) = ids
        job = api.run(job_id, 500)
        told = checked(client.get(f"{BATCH}/{job_id}"), 200, JobAnswer)
        page = checked(client.get(BATCH, params={"since": job.created_at.isoformat()}), 200, JobPage)
        missing = [client.get(path) for path in ("/api/v1/models/%00", f"{BATCH}/%00", "/api/v1/schedules/a%00")]

    assert {answer.status_code for answer in answers} <= {202, 409}
    assert told.progress.percentage == 50
    assert [each.job_id for each in page.jobs] == [job_id]
    for answer in missing:
        problem(answer, 404, "not-found")


def test_live_counters_are_shown_as_they_come(api: Api, client: httpx.Client) -> None:
    job_id = api.submit(client)
    api.run(job_id, 100)
    seen = []
    for scored in (100, 200, 150, 400):
        api.service.store.beat(job_id, 1, 60, live=Live(scored=scored), shown=Counts(max(scored, 200)))
        seen.append(client.get(f"{BATCH}/{job_id}").json()["progress"]["processed_rows"])

    assert seen == sorted(seen)


class TestEstimates:
    REPORT: ClassVar[dict[str, Any]] = {
        "rows": 1000,
        "splits": 1,
        "features": [],
        "output": [{"column": "churn", "type": "float"}],
        "predictions": [{"churn": 0.5}, {"churn": float("nan")}],
        "refused": ["customers:3 ValueError: no"],
        "sample_rows": 10,
        "seconds": {"low": 1.0, "likely": 2, "high": 3.5},
        "memory_bytes": 300 * 2**20,
        "assumptions": ["nothing else runs"],
        "notices": [],
    }

    def test_tell_what_was_found_out(self, api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api.service.admission, "estimate", lambda caller, asked: self.REPORT)

        told = checked(client.post(f"{BATCH}/estimate", content=SEED, headers=JSON), 200, EstimateAnswer)

        assert told.seconds.model_dump() == {"low": 1, "likely": 2, "high": 3.5}
        assert (told.estimated_duration_minutes, told.estimated_duration_seconds) == (1, 2.0)
        assert told.memory_gb == 0.29
        assert told.sample.predictions == [{"churn": 0.5}, {"churn": None}]
        assert client.get(BATCH).json()["jobs"] == []

    def test_that_cannot_be_made_say_why(self, api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(kind: str, line: str) -> Any:
            def forks(*_: Any, **__: Any) -> Any:
                raise AsideFailed(kind, line)

            return forks

        monkeypatch.setattr("launcher.admission.call_aside", fail("SchemaMismatch", "the column tenure is missing"))
        wrong = client.post(f"{BATCH}/estimate", content=SEED, headers=JSON)
        monkeypatch.setattr("launcher.admission.call_aside", fail("ProcessDied", "its process died"))
        away = client.post(f"{BATCH}/estimate", content=SEED, headers=JSON)

        assert "the column tenure is missing" in problem(wrong, 422, "invalid-request").detail
        problem(away, 503, "unavailable")
        assert away.headers["Retry-After"]

    def test_keep_nobody_else_waiting(self, api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
        done = threading.Event()

        def slow(caller: Any, asked: Any) -> dict[str, Any]:
            done.wait(60)
            return self.REPORT

        monkeypatch.setattr(api.service.admission, "estimate", slow)
        job_id = api.submit(client)
        # More than the server has threads.
        limits = httpx.Limits(max_connections=None)
        with (
            httpx.Client(base_url=api.url, headers=client.headers, timeout=60, limits=limits) as many,
            ThreadPoolExecutor(50) as threads,
        ):
            asked = [threads.submit(many.post, f"{BATCH}/estimate", content=SEED, headers=JSON) for _ in range(50)]
            try:
                others = [client.get(f"{BATCH}/{job_id}"), client.post(BATCH, content=SEED, headers=JSON)]
            finally:
                done.set()
            answers = [each.result() for each in asked]

        assert [each.status_code for each in others] == [200, 202]
        assert {each.status_code for each in answers} == {200}
