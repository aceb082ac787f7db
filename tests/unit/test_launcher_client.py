"""The client, against a server that plays the service: also one that is busy, slow, newer, cut off, or no service."""

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

import launcher.client.errors as errors
from launcher.client import (
    AnswerUnreadable,
    Client,
    Conflict,
    FieldError,
    Forbidden,
    Gone,
    Misconfigured,
    NotFound,
    PenstockError,
    Problem,
    Refusal,
    RequestRefused,
    ServerFailed,
    ServerUnavailable,
    StillRunning,
    Unauthorized,
    Unwritable,
)
from tests.unit.playing import Reply, Stage, playing, problem, sent, stream
from tests.unit.test_error_trees import classes, drawn

BATCH = "/api/v1/inference/batch"
JOB = f"{BATCH}/batch-1"
KEY = "psk_very-secret"
SPEC = {"model_id": "churn", "input": {"source": "sql", "query": "SELECT 1"}}
TAKEN = {"job_id": "batch-1", "status": "submitted", "estimated_duration_minutes": None, "input_row_count": 7}
ACCEPTED = Reply(202, TAKEN)
BUSY = problem(503, "store-unavailable", "the job store does not answer", headers={"Retry-After": "0"})


def job(status: str = "running", processed: int = 3, **further: Any) -> dict[str, Any]:
    return {
        "job_id": "batch-1",
        "status": status,
        "outcome": None,
        "progress": {"total_rows": 10, "processed_rows": processed, "percentage": 10 * processed},
        "counts": {"scored_rows": processed, "rejected_rows": 0, "skipped_rows": 0},
        "started_at": "2025-03-15T10:00:00Z",
        "created_at": "2025-03-15T09:59:59.250Z",
        "attempt": 1,
        **further,
    }


DONE = job("completed", 10, outcome="clean", finished_at="2025-03-15T10:00:09Z")


@pytest.fixture
def service() -> Iterator[Stage]:
    with playing() as stage:
        yield stage


@pytest.fixture
def client(service: Stage) -> Iterator[Client]:
    with Client(service.url, KEY) as client:
        yield client


# --- requests ------------------------------------------------------------------------------------------------------


def test_a_job_is_submitted_with_the_key_and_a_key_of_its_own(service: Stage, client: Client) -> None:
    service.on("POST", BATCH, ACCEPTED)
    first, second = client.submit(SPEC), client.submit(SPEC, idempotency_key="mine")
    one, two = service.asked

    assert (first.id, second.id) == ("batch-1", "batch-1")
    assert first.submission is not None
    assert first.submission.input_row_count == 7
    assert one.body == SPEC
    assert one.headers["authorization"] == f"Bearer {KEY}"
    assert one.headers["content-type"] == "application/json"
    assert len(one.headers["idempotency-key"]) == 36
    assert two.headers["idempotency-key"] == "mine"


@pytest.mark.parametrize(
    "trouble",
    [
        BUSY,
        Reply(502, b"<html>bad gateway</html>"),
        Reply(429, headers={"Retry-After": "0"}),
        problem(409, "idempotency-key-busy", "it is still being answered", headers={"Retry-After": "0"}),
        Reply(drop=True),
        Reply(202, TAKEN, drop=True),
    ],
    ids=["store away", "gateway", "too many", "first try under way", "dropped before the answer", "dropped within"],
)
def test_a_submission_that_may_have_been_taken_is_sent_again_under_the_same_key(
    service: Stage, client: Client, trouble: Reply
) -> None:
    service.on("POST", BATCH, trouble, trouble, ACCEPTED)
    submitted = client.submit(SPEC)

    assert submitted.id == "batch-1"
    assert len(service.asked) == 3
    assert len({each.headers["idempotency-key"] for each in service.asked}) == 1
    assert [each.body for each in service.asked] == [SPEC] * 3


def test_a_slow_answer_is_asked_for_again(service: Stage) -> None:
    over = threading.Event()
    service.on("GET", JOB, Reply(200, job(), hold=over), Reply(200, job()))
    with Client(service.url, timeout_s=0.3) as client:
        status = client.job("batch-1").status()
    over.set()

    assert status.status == "running"
    assert len(service.asked) == 2


def test_a_server_that_stays_away_is_told_after_some_tries(service: Stage) -> None:
    service.on("GET", JOB, BUSY)
    with Client(service.url, retries=2) as client, pytest.raises(ServerUnavailable) as caught:
        client.job("batch-1").status()

    assert len(service.asked) == 3
    assert str(caught.value) == f"{service.url} has no time for GET {JOB}: the job store does not answer"


def test_a_server_that_asks_for_more_than_a_minute_is_not_waited_for(service: Stage, client: Client) -> None:
    service.on("GET", JOB, problem(503, "store-unavailable", "away", headers={"Retry-After": "3600"}))
    with pytest.raises(ServerUnavailable):
        client.job("batch-1").status()

    assert len(service.asked) == 1


def test_nobody_there_is_said_with_what_to_do() -> None:
    with playing() as gone:
        pass
    with Client(gone.url, retries=1) as client, pytest.raises(ServerUnavailable) as caught:
        client.submit(SPEC)

    assert str(caught.value).startswith(f"{gone.url} cannot be reached (")
    assert str(caught.value).endswith("); is `penstock serve` running there?")


def test_a_deletion_whose_answer_was_lost_has_worked(service: Stage, client: Client) -> None:
    path = "/api/v1/models/churn"
    service.on("DELETE", path, Reply(drop=True), problem(404, "not-found", "there is no model 'churn'"))
    client.models.delete("churn")
    service.on("DELETE", path, problem(404, "not-found", "there is no model 'churn'"))

    with pytest.raises(NotFound):
        client.models.delete("churn")


@pytest.mark.parametrize(
    ("status", "slug", "kind"),
    [
        (400, "malformed-json", RequestRefused),
        (401, "unauthorized", Unauthorized),
        (403, "forbidden", Forbidden),
        (404, "not-found", NotFound),
        (409, "conflict", Conflict),
        (409, "idempotency-key-reused", Conflict),
        (410, "gone", Gone),
        (413, "body-too-large", RequestRefused),
        (422, "invalid-request", RequestRefused),
        (500, "internal", ServerFailed),
    ],
)
def test_a_refusal_is_raised_as_its_kind_and_not_tried_again(
    service: Stage, client: Client, status: int, slug: str, kind: type[Refusal]
) -> None:
    service.on("POST", BATCH, problem(status, slug, "that is wrong", remedy="Do this."))
    with pytest.raises(PenstockError) as caught:
        client.submit(SPEC)

    assert type(caught.value) is kind
    assert str(caught.value) == "that is wrong; do this"
    assert caught.value.type == f"https://penstock.dev/problems/{slug}"
    assert len(service.asked) == 1


def test_a_wrong_request_names_each_field(service: Stage, client: Client) -> None:
    mistakes = [{"field": "input.query", "message": "is missing; write one"}, {"field": "", "message": "is too long"}]
    service.on("POST", BATCH, problem(422, "invalid-request", "the request is wrong", errors=mistakes))
    with pytest.raises(RequestRefused) as caught:
        client.submit(SPEC)

    assert caught.value.errors == (FieldError("input.query", "is missing; write one"), FieldError("", "is too long"))
    assert str(caught.value) == "input.query is missing; write one; is too long"


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b"[1, 2", b"[]", b'"no"', b"{}", b'{"job_id": 7}', b'{"job_id": "batch-1"}', b"[" * 100_000]
    + [
        b'{"job_id": "batch-1", "status": "running", "progress": ' + part + b"}"
        for part in (b"3", b'{"total_rows": "x"}')
    ]
    + [b'{"job_id": "batch-1", "status": "running", "started_at": "yesterday"}', b"<html>" + b"x" * 100_000],
)
def test_an_answer_that_is_none_is_told_in_a_line(service: Stage, client: Client, body: bytes) -> None:
    service.on("GET", JOB, Reply(200, body))
    with pytest.raises(AnswerUnreadable) as caught:
        client.job("batch-1").status()

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "body", [b"<html>no</html>", b"[]", b'{"detail": [1], "errors": [3, {"field": 1}], "type": 7}']
)
def test_a_refusal_without_a_problem_is_one_all_the_same(service: Stage, client: Client, body: bytes) -> None:
    service.on("GET", JOB, Reply(404, body))
    with pytest.raises(NotFound) as caught:
        client.job("batch-1").status()

    assert "\n" not in str(caught.value)
    assert str(caught.value)


def test_what_a_newer_server_tells_besides_is_kept_raw(service: Stage, client: Client) -> None:
    service.on("GET", JOB, Reply(200, job(status="dreaming", dreams=["sheep"], counts={"scored_rows": 1, "lost": 2})))
    status = client.job("batch-1").status()

    assert (status.status, status.is_over, status.counts.scored_rows) == ("dreaming", False, 1)
    assert status.started_at == datetime(2025, 3, 15, 10, tzinfo=UTC)
    assert status.created_at == datetime(2025, 3, 15, 9, 59, 59, 250_000, UTC)
    assert status.raw["dreams"] == ["sheep"]


# --- the key -------------------------------------------------------------------------------------------------------


def test_the_key_goes_to_no_other_address_and_into_no_message(service: Stage) -> None:
    with playing() as other, Client(service.url, KEY, retries=0) as client:
        service.on("GET", JOB, Reply(307, headers={"Location": f"{other.url}{JOB}"}))
        with pytest.raises(AnswerUnreadable) as led:
            client.job("batch-1").status()
        service.on("GET", JOB, Reply(drop=True))
        with pytest.raises(ServerUnavailable) as dropped:
            client.job("batch-1").status()
        told = [repr(client), repr(client.job("batch-1")), str(led.value), repr(dropped.value), repr(client.__dict__)]

        assert other.asked == []
        assert "name the server's own address" in str(led.value)
        assert [line for line in told if KEY in line or "secret" in line] == []


def test_a_key_that_no_header_can_hold_is_refused_unseen() -> None:
    with pytest.raises(Misconfigured) as caught:
        Client("http://127.0.0.1:1", "psk_secret\r\nX-Admin: yes")

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8080",
        "ftp://host",
        "http://",
        "http://[::1",
        "http://host:port",
        "http://me:pass@host",
        "http://host/?a",
        "http://host/#a",
        "http://ho\nst",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        Client(url)

    assert "pass@" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_address_and_key_come_from_the_environment(service: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SERVER", f"{service.url}/")
    monkeypatch.setenv("PENSTOCK_API_KEY", f"{KEY}\n")
    # For a proxy, loopback is another machine.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    service.on("GET", JOB, Reply(200, job()))
    with Client() as client:
        client.job("batch-1").status()

    assert client.url == service.url
    assert service.asked[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("id", ["../../metrics", "a/b?c", "..", "ä %"])
def test_an_id_stays_one_part_of_the_path(service: Stage, client: Client, id: str) -> None:
    with pytest.raises(NotFound):
        client.job(id).status()

    assert service.asked[0].path.startswith(f"{BATCH}/")
    assert service.asked[0].path.count("/") == JOB.count("/")
    assert service.asked[0].path != f"{BATCH}/.."


def test_nothing_has_no_id(client: Client) -> None:
    with pytest.raises(NotFound, match="there is no job without a name"):
        client.job("")


# --- jobs ----------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_page_by_page(service: Stage, client: Client) -> None:
    pages = [
        Reply(200, {"jobs": [job(), job(job_id="batch-2")], "next_cursor": "c2"}),
        Reply(200, {"jobs": [], "next_cursor": "c3"}),
        Reply(200, {"jobs": [job(job_id="batch-3")], "next_cursor": None}),
    ]
    service.on("GET", BATCH, *pages)
    since = datetime(2025, 3, 15, tzinfo=UTC)
    listed = list(client.jobs(status=["running", "failed"], model_id="m", since=since, page_size=2))

    assert [each.id for each in listed] == ["batch-1", "batch-2", "batch-3"]
    assert all(each.seen is not None for each in listed)
    first, second, third = (each.query for each in service.asked)
    assert first == {
        "status": ["running", "failed"],
        "model_id": ["m"],
        "since": ["2025-03-15T00:00:00+00:00"],
        "limit": ["2"],
    }
    assert (second["cursor"], third["cursor"]) == (["c2"], ["c3"])


def test_a_list_that_leads_to_itself_is_left(service: Stage, client: Client) -> None:
    service.on("GET", BATCH, Reply(200, {"jobs": [], "next_cursor": "c"}))
    with pytest.raises(AnswerUnreadable):
        list(client.jobs())

    assert len(service.asked) == 2


def test_rows_come_as_dicts_and_as_a_table(service: Stage, client: Client) -> None:
    rows = pa.table({"id": [1, 2, 3], "p": [0.5, None, 1.5]})

    def results(asked: Any) -> Reply:
        at = int(asked.query.get("cursor", ["0"])[0])
        more = {"X-Next-Cursor": str(at + 2)} if at == 0 else {}
        page = rows.slice(at, 2)
        if asked.headers["accept"] == "application/json":
            return Reply(200, {"rows": page.to_pylist(), "next_cursor": more.get("X-Next-Cursor")})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, page.schema) as writer:
            writer.write_table(page)
        kind = {"Content-Type": "application/vnd.apache.arrow.stream"}
        return Reply(200, sink.getvalue().to_pybytes(), {**kind, **more})

    service.on("GET", f"{JOB}/results", results)
    service.on("GET", f"{JOB}/rejects", Reply(200, {"rows": [{"position": "a:1"}], "next_cursor": None}))
    asked = client.job("batch-1")

    assert list(asked.results()) == rows.to_pylist()
    assert asked.results_arrow() == rows
    assert list(asked.rejects()) == [{"position": "a:1"}]


def arrow_pages(*tables: pa.Table) -> Callable[[Any], Reply]:
    """A result in pages, one after the other."""

    def results(asked: Any) -> Reply:
        at = int(asked.query.get("cursor", ["0"])[0])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, tables[at].schema) as writer:
            writer.write_table(tables[at])
        more = {"X-Next-Cursor": str(at + 1)} if at + 1 < len(tables) else {}
        return Reply(200, sink.getvalue().to_pybytes(), {"Content-Type": "application/vnd.apache.arrow.stream", **more})

    return results


ROWS = pa.table({"id": [1, 2, 3], "p": [0.5, None, 1.5], "name": ["a", "b", 'c"d']})
READERS: dict[str, Callable[[Path], pa.Table]] = {
    "scores.parquet": pq.read_table,
    "scores.CSV": csv.read_csv,
    "scores.arrow": lambda path: pa.ipc.open_file(path).read_all(),
}


@pytest.mark.parametrize("name", READERS)
def test_a_whole_result_is_saved(service: Stage, client: Client, tmp_path: Path, name: str) -> None:
    service.on("GET", f"{JOB}/results", arrow_pages(ROWS.slice(0, 2), ROWS.slice(2), ROWS.slice(0, 0)))
    told: list[int] = []
    rows = client.job("batch-1").save_results(tmp_path / name, saved=told.append)

    assert READERS[name](tmp_path / name) == ROWS
    assert (rows, told) == (3, [2, 3, 3])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_csv_cannot_write_is_json_there(service: Stage, client: Client, tmp_path: Path) -> None:
    probabilities = pa.array([[0.25, 0.75], None], pa.list_(pa.float32(), 2))
    service.on("GET", f"{JOB}/results", arrow_pages(pa.table({"id": [1, 2], "probabilities": probabilities})))
    client.job("batch-1").save_results(tmp_path / "scores.csv")

    assert (tmp_path / "scores.csv").read_text().splitlines() == [
        '"id","probabilities"',
        '1,"[0.25, 0.75]"',
        "2,",
    ]


def test_a_date_beyond_those_that_arrow_writes_is_text_in_csv(service: Stage, client: Client, tmp_path: Path) -> None:
    days = pa.array([0, 2**31 - 1], pa.int32()).view(pa.date32())
    service.on("GET", f"{JOB}/results", arrow_pages(pa.table({"day": days})))
    client.job("batch-1").save_results(tmp_path / "scores.csv")

    assert (tmp_path / "scores.csv").read_text().splitlines() == ['"day"', '"1970-01-01"', '"5881580-07-11"']


def test_a_page_whose_rows_have_narrower_types_fits(service: Stage, client: Client, tmp_path: Path) -> None:
    service.on("GET", f"{JOB}/results", arrow_pages(pa.table({"p": [0.5]}), pa.table({"p": [1]})))
    client.job("batch-1").save_results(tmp_path / "scores.parquet")

    assert pq.read_table(tmp_path / "scores.parquet").to_pydict() == {"p": [0.5, 1.0]}


def test_a_file_that_is_there_is_replaced_only_when_told(service: Stage, client: Client, tmp_path: Path) -> None:
    service.on("GET", f"{JOB}/results", arrow_pages(ROWS))
    file = tmp_path / "scores.parquet"
    file.write_text("mine")
    with pytest.raises(Misconfigured, match="is there already"):
        client.job("batch-1").save_results(file)
    with pytest.raises(Misconfigured, match=r"name a file that ends in \.parquet, \.csv or \.arrow"):
        client.job("batch-1").save_results(tmp_path / "scores.txt")

    assert service.asked == []
    assert file.read_text() == "mine"
    client.job("batch-1").save_results(file, overwrite=True)
    assert pq.read_table(file) == ROWS


def test_of_a_result_that_ends_in_the_middle_nothing_is_there(service: Stage, client: Client, tmp_path: Path) -> None:
    pages = arrow_pages(ROWS, ROWS)
    gone = problem(410, "gone", "the result is gone")
    service.on("GET", f"{JOB}/results", lambda asked: gone if "cursor" in asked.query else pages(asked))
    with pytest.raises(Gone):
        client.job("batch-1").save_results(tmp_path / "scores.parquet")
    service.on("GET", f"{JOB}/results", arrow_pages(ROWS, pa.table({"other": [1]})))
    with pytest.raises(Unwritable, match="cannot be written: "):
        client.job("batch-1").save_results(tmp_path / "scores.csv")
    with pytest.raises(Unwritable, match="cannot be written: No such file or directory"):
        client.job("batch-1").save_results(tmp_path / "no" / "scores.parquet")

    assert list(tmp_path.iterdir()) == []


def test_what_is_no_arrow_is_said(service: Stage, client: Client) -> None:
    service.on("GET", f"{JOB}/results", Reply(200, {"rows": []}))
    with pytest.raises(AnswerUnreadable, match="is no Arrow stream"):
        client.job("batch-1").results_arrow()


def test_a_log_is_read_to_where_it_is_and_followed_to_its_end(service: Stage, client: Client) -> None:
    pages = [
        Reply(200, {"lines": ["a", "b"], "next_offset": 4, "complete": False}),
        Reply(200, {"lines": [], "next_offset": 4, "complete": False}),
        Reply(200, {"lines": ["c"], "next_offset": 6, "complete": True}),
    ]
    service.on("GET", f"{JOB}/logs", *pages)
    so_far = list(client.job("batch-1").logs(tail=2))
    service.on("GET", f"{JOB}/logs", *pages)
    followed = list(client.job("batch-1").logs(follow=True))

    assert so_far == ["a", "b"]
    assert service.asked[0].query == {"tail": ["2"]}
    assert followed == ["a", "b", "c"]


def test_a_job_is_cancelled_and_tried_again(service: Stage, client: Client) -> None:
    service.on("POST", f"{JOB}/cancel", Reply(202, job(cancel_requested=True)))
    service.on("POST", f"{JOB}/retry", Reply(202, job("submitted")), Reply(202, job("submitted", job_id="batch-2")))
    asked = client.job("batch-1")
    cancelled = asked.cancel()
    again = asked.retry(max_reject_ratio=0.25)
    rejected = asked.retry(only_rejected=True)

    assert cancelled.cancel_requested
    assert again is asked
    assert rejected.id == "batch-2"
    assert [each.query for each in service.asked] == [{}, {"max_reject_ratio": ["0.25"]}, {"only": ["rejected"]}]
    assert all("idempotency-key" in each.headers for each in service.asked)


def test_a_job_is_purged(service: Stage, client: Client) -> None:
    service.on("DELETE", JOB, Reply(204))
    asked = client.job("batch-1")

    asked.purge()

    assert [each.query for each in service.asked] == [{"purge": ["true"]}]
    assert asked.seen is None


def test_an_estimate_is_read(service: Stage, client: Client) -> None:
    told = {
        "rows": 100,
        "seconds": {"low": 1, "likely": 2.5, "high": 4},
        "memory_gb": 0.5,
        "assumptions": ["one worker"],
        "sample": {"rows": 2, "predictions": [{"p": 1}], "refused": ["row 3: null"]},
        "output": [{"column": "p", "type": "double"}],
    }
    service.on("POST", f"{BATCH}/estimate", Reply(200, told))
    estimate = client.estimate(SPEC)

    assert (estimate.rows, estimate.seconds.likely, estimate.memory_gb) == (100, 2.5, 0.5)
    assert (estimate.sample.refused, estimate.output[0].column) == (("row 3: null",), "p")


# --- waiting -------------------------------------------------------------------------------------------------------


def test_waiting_follows_the_events_and_goes_on_where_they_were_cut(service: Stage, client: Client) -> None:
    service.on("GET", JOB, Reply(200, job("submitted", 0)))
    service.on(
        "GET",
        f"{JOB}/events",
        stream(
            sent("state", {"job_id": "batch-1", "status": "running"}, "2"),
            sent("progress", job(processed=4)),
            # Cut within an event.
            sent("progress", job(processed=5))[:20],
            drop=True,
        ),
        stream(b": still here\r\n\r\n", sent("progress", job(processed=8)), sent("progress", DONE)),
    )
    asked = client.job("batch-1")
    status = asked.wait(show_progress=False)
    first, second = service.asked_for("GET", f"{JOB}/events")

    assert status.status == "completed"
    assert asked.seen == status
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] == "2"
    assert first.headers["accept"] == "text/event-stream"


def test_the_end_that_is_only_told_as_a_state_is_looked_up(service: Stage, client: Client) -> None:
    service.on("GET", JOB, Reply(200, job()), Reply(200, DONE))
    service.on("GET", f"{JOB}/events", stream(sent("state", {"job_id": "batch-1", "status": "completed"}, "5")))

    assert client.job("batch-1").wait(show_progress=False).outcome == "clean"


@pytest.mark.parametrize(
    "events",
    [
        Reply(404, {}),
        Reply(200, {"job_id": "batch-1"}),
        Reply(503, {}),
        Reply(drop=True),
        stream(),
        stream(b"data: no\n\n"),
        stream(sent("progress", {"job_id": 3})),
    ],
    ids=["none", "no stream", "busy", "dropped", "empty", "garbage", "progress of nothing"],
)
def test_without_events_the_job_is_asked_for(service: Stage, client: Client, events: Reply) -> None:
    running = Reply(200, job())
    service.on("GET", JOB, running, running, running, running, Reply(200, DONE))
    service.on("GET", f"{JOB}/events", events)
    status = client.job("batch-1").wait(show_progress=False)

    assert status.status == "completed"


def test_waiting_outlives_a_server_that_starts_anew(service: Stage, client: Client) -> None:
    service.on("GET", JOB, Reply(drop=True), BUSY, Reply(200, DONE))

    assert client.job("batch-1").wait(show_progress=False).status == "completed"


def test_waiting_ends_in_time_and_leaves_the_job(service: Stage, client: Client) -> None:
    service.on("GET", JOB, Reply(200, job()))
    with pytest.raises(StillRunning) as caught:
        client.job("batch-1").wait(timeout_s=0.3, show_progress=False)

    assert str(caught.value) == "batch-1 is still running after 0.3 s; it goes on"
    assert {each.method for each in service.asked} == {"GET"}


def test_no_job_is_not_waited_for(client: Client) -> None:
    with pytest.raises(NotFound):
        client.job("batch-9").wait(show_progress=False)


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    service: Stage, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    service.on("GET", JOB, Reply(200, job(rows_per_second=3.5)))
    service.on("GET", f"{JOB}/events", stream(sent("progress", job("completing", 10)), sent("progress", DONE)))
    client.job("batch-1").wait(show_progress=True)

    assert capsys.readouterr().err.splitlines() == [
        "batch-1 running: 3 of 10 rows (30%), 4 rows/s, 0:02 left, 0 rejected",
        "batch-1 completing: publishing the result",
    ]


def test_an_interrupt_leaves_the_job_and_says_how_to_end_it(
    service: Stage, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(asked: Any) -> Reply:
        # As Ctrl-C does it, once the main thread waits for the events.
        import _thread

        _thread.interrupt_main()
        return stream(*[b": still here\n\n"] * 3, hold=over)

    over = threading.Event()
    service.on("GET", JOB, Reply(200, job()))
    service.on("GET", f"{JOB}/events", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.job("batch-1").wait(show_progress=True)
    over.set()

    assert capsys.readouterr().err.splitlines()[-1] == (
        f"batch-1 goes on; `penstock cancel batch-1 --server {service.url}` ends it"
    )
    assert service.asked_for("POST", f"{JOB}/cancel") == []


# --- what is registered --------------------------------------------------------------------------------------------


def test_models_are_registered_listed_and_deleted(service: Stage, client: Client) -> None:
    told = {"model_id": "churn", "version": 2, "uri": "/m.onnx", "flavor": "onnx", "features": ["a"], "nulls": "reject"}
    service.on("POST", "/api/v1/models", Reply(201, told))
    service.on("GET", "/api/v1/models", Reply(200, {"models": [told], "next_cursor": None}))
    service.on("GET", "/api/v1/models/churn/versions/2", Reply(200, told))
    service.on("GET", "/api/v1/models/churn/versions", Reply(200, {"versions": [told, told]}))
    service.on("DELETE", "/api/v1/models/churn/versions/2", Reply(204))
    model = client.models.register("churn", "/m.onnx", features=["a"])
    client.models.delete("churn", version=2)

    assert (model.version, model.features) == (2, ("a",))
    assert service.asked[0].body == {"model_id": "churn", "uri": "/m.onnx", "features": ["a"]}
    assert list(client.models.list()) == [client.models.get("churn", 2)]
    assert len(list(client.models.versions("churn"))) == 2


def test_connections_are_set_and_shown_without_their_secret(service: Stage, client: Client) -> None:
    told = {"name": "db", "uri": "postgresql://*****@h/d", "created_at": "2025-03-15T10:00:00Z"}
    service.on("POST", "/api/v1/connections", Reply(201, told))
    service.on("GET", "/api/v1/connections", Reply(200, {"connections": [told]}))
    service.on("GET", "/api/v1/connections/db", Reply(200, told))
    service.on("DELETE", "/api/v1/connections/db", Reply(204))
    connection = client.connections.set("db", "postgresql://u:p@h/d")
    client.connections.delete("db")

    assert connection.uri == "postgresql://*****@h/d"
    assert service.asked[0].body == {"name": "db", "uri": "postgresql://u:p@h/d"}
    assert list(client.connections.list()) == [client.connections.get("db")]


def test_schedules_are_made_paused_changed_and_run(service: Stage, client: Client) -> None:
    path = "/api/v1/schedules"
    told = {
        "schedule_id": "s-1",
        "name": "daily",
        "schedule": {"cron": "0 2 * * *", "timezone": "UTC", "enabled": True, "missed": "skip", "overlap": "queue"},
        "job": SPEC,
        "enabled": True,
        "next_runs": ["2025-03-16T02:00:00Z"],
    }
    service.on("POST", path, Reply(201, told))
    service.on("GET", path, Reply(200, {"schedules": [told]}))
    service.on("GET", f"{path}/s-1", Reply(200, told))
    service.on("PATCH", f"{path}/s-1", Reply(200, told))
    service.on("POST", f"{path}/s-1/pause", Reply(200, {**told, "enabled": False}))
    service.on("POST", f"{path}/s-1/resume", Reply(200, told))
    service.on("POST", f"{path}/s-1/run", ACCEPTED)
    service.on("DELETE", f"{path}/s-1", Reply(204))
    made = client.schedules.create({"cron": "0 2 * * *"}, SPEC, name="daily")
    client.schedules.change("s-1", cron="0 3 * * *", enabled=False)
    client.schedules.delete("s-1")
    created, changed = service.asked_for("POST", path)[0], service.asked_for("PATCH", f"{path}/s-1")[0]

    assert (made.timing.missed, made.next_runs) == ("skip", (datetime(2025, 3, 16, 2, tzinfo=UTC),))
    assert created.body == {"name": "daily", "schedule": {"cron": "0 2 * * *"}, "job": SPEC}
    assert changed.body == {"cron": "0 3 * * *", "enabled": False}
    assert not client.schedules.pause("s-1").enabled
    assert client.schedules.resume("s-1").enabled
    assert client.schedules.run("s-1").id == "batch-1"
    assert list(client.schedules.list()) == [client.schedules.get("s-1")]


def test_a_spec_with_a_schedule_makes_a_schedule_not_a_job(service: Stage, client: Client) -> None:
    answer = {
        "job_id": None,
        "status": "scheduled",
        "estimated_duration_minutes": None,
        "input_row_count": None,
        "schedule_id": "s-1",
        "next_runs": ["2025-03-16T02:00:00Z"],
    }
    service.on("POST", BATCH, Reply(202, answer))
    spec = {**SPEC, "schedule": {"cron": "0 2 * * *"}}

    with pytest.raises(Misconfigured):
        client.submit(spec)
    with pytest.raises(Misconfigured):
        client.schedules.submit(SPEC)
    assert client.schedules.submit(spec).schedule_id == "s-1"
    assert len(service.asked) == 1


# --- errors and imports --------------------------------------------------------------------------------------------

_SAID = Problem(
    422, "https://penstock.dev/problems/invalid-request", "wrong", "", (FieldError("a", "is\nwrong"),), "Mend"
)
_EXAMPLES: list[PenstockError] = [
    Misconfigured("the address is wrong"),
    Unwritable("the disk is full"),
    *(kind(_SAID) for kind in (RequestRefused, Unauthorized, Forbidden, NotFound, Conflict, Gone, ServerFailed)),
    ServerUnavailable("http://h", "is away"),
    AnswerUnreadable("GET /", "is none"),
    StillRunning("batch-1", "running", 3.0),
]


@pytest.mark.parametrize("error", _EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_is_a_line_that_survives_pickling(error: PenstockError) -> None:
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert (again.args, str(again)) == (error.args, str(error))
    assert len(str(error).splitlines()) == 1


def test_every_error_is_in_the_examples() -> None:
    leaves = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, PenstockError)} - {
        PenstockError,
        Refusal,
    }

    assert leaves == {type(each) for each in _EXAMPLES}


def test_the_tree_of_errors_is_that_of_the_classes() -> None:
    edges = drawn(errors)
    real = {
        (each.__name__, None if each is PenstockError else each.__bases__[0].__name__)
        for each in classes(errors, "PenstockError")
    }

    assert set(edges) == real


def test_importing_the_client_loads_nothing_heavy() -> None:
    heavy = [
        "apache_beam",
        "pyarrow",
        "rich",
        "pygments",
        "sqlalchemy",
        "pydantic",
        "fastapi",
        "numpy",
        "typer",
        "yaml",
    ]
    code = f"import sys; from launcher.client import Client; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
