"""Traces of jobs, made from a real store's moves and sent to a real receiver."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from launcher.state.job import Move, Status
from launcher.state.sql import SqlJobStore
from launcher.tracing import Tracing, since_asked_for
from tests.collector import Collector, Told, collector
from tests.contract.job_store import SPEC, Clock, queued
from transforms.counts import Counts

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ME = "launcher-1"
# What no trace may tell: see SPEC.
SECRETS = (b"postgresql", b"sqlite", b"SELECT", b"customers", b"churn", b"out/rejects", b"/work")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqlJobStore]:
    opened = SqlJobStore.at(tmp_path / "penstock.db", clock)
    yield opened
    opened.close()


@pytest.fixture
def received() -> Iterator[Collector]:
    with collector() as collecting:
        yield collecting


Start = Callable[..., Tracing]


@pytest.fixture
def start(store: SqlJobStore, received: Collector, clock: Clock) -> Iterator[Start]:
    """Starts the tracing of a launcher, which is closed with the test."""
    started: list[Tracing] = []

    def start_one(launcher_id: str = ME, url: str | None = None) -> Tracing:
        tracing = Tracing(
            launcher_id,
            store,
            lambda owner: owner in (None, launcher_id),
            OTLPSpanExporter(f"{url or received.url}/v1/traces"),
            clock,
        )
        tracing.start()
        started.append(tracing)
        return tracing

    yield start_one
    for each in started:
        each.close()


def submit(store: SqlJobStore, clock: Clock, job_id: str = "batch-1", traceparent: str | None = None) -> None:
    store.add(
        replace(queued(job_id, "team-a", clock.now), model_id="m", model_version=3, traceparent=traceparent), "POST"
    )


def go(store: SqlJobStore, clock: Clock, *states: Status, job_id: str = "batch-1", **changes: object) -> None:
    """Have a job come to some states, each a second after the one before."""
    for n, to in enumerate(states):
        clock.advance(1)
        job = store.get(job_id)
        more = {"owner": ME} if to == "preparing" else {}
        if n == len(states) - 1:
            more |= changes  # type: ignore[arg-type]
        store.move(job_id, job.status, to, f"to {to}", **more)


def by_name(spans: list[Told]) -> dict[str, Told]:
    return {span.name: span for span in spans}


def test_a_job_that_ended_is_told_of_as_one_tree_with_its_own_times(
    store: SqlJobStore, clock: Clock, received: Collector, start: Start
) -> None:
    tracing = start()
    submit(store, clock)
    began = clock.now
    counts = Counts(90, 7, 3)
    go(store, clock, "preparing", "running", "completing", "completed", outcome="with_rejects", counts=counts)
    told = tracing.tick()
    tracing.close()

    spans = by_name(received.wait_for(5))
    root = spans["job"]
    start_ns = int(began.timestamp()) * 10**9 + began.microsecond * 1000
    assert told == 1
    assert [
        (name, (span.start_ns - start_ns) / 1e9, (span.end_ns - start_ns) / 1e9) for name, span in spans.items()
    ] == [
        ("queued", 0, 1),
        ("preparing", 1, 2),
        ("running", 2, 3),
        ("completing", 3, 4),
        ("job", 0, 4),
    ]
    assert root.attributes == {
        "penstock.job_id": "batch-1",
        "penstock.tenant": "team-a",
        "penstock.model": "m",
        "penstock.model_version": 3,
        "penstock.model_flavor": "onnx",
        "penstock.status": "completed",
        "penstock.outcome": "with_rejects",
        "penstock.rows.scored": 90,
        "penstock.rows.rejected": 7,
        "penstock.rows.skipped": 3,
        "penstock.attempts": 1,
    }
    assert {span.parent_id for name, span in spans.items() if name != "job"} == {root.span_id}
    assert {span.trace_id for span in spans.values()} == {root.trace_id}
    assert (root.parent_id, root.failed) == ("", False)
    assert received.resources[0]["service.name"] == "penstock"
    assert received.resources[0]["service.instance.id"] == ME


def test_nothing_of_what_was_asked_leaves_with_a_trace(
    store: SqlJobStore, clock: Clock, received: Collector, start: Start
) -> None:
    tracing = start()
    store.add(replace(queued("batch-1", created_at=clock.now), spec=SPEC), "POST")
    go(store, clock, "preparing", "failed", outcome="error", error="the database is away")
    tracing.tick()
    tracing.close()
    received.wait_for(3)

    assert [secret for secret in SECRETS if any(secret in body for body in received.bodies)] == []


def test_attempts_that_failed_are_marked_with_their_line_and_the_job_is_not_if_it_came_to_a_good_end(
    store: SqlJobStore, clock: Clock, received: Collector, start: Start
) -> None:
    tracing = start()
    submit(store, clock)
    go(store, clock, "preparing", "running")
    store.move("batch-1", "running", "submitted", "its process died\n(pid 7)")
    go(store, clock, "preparing", "running", "completing", "completed", outcome="clean")
    tracing.tick()
    tracing.close()

    spans = received.wait_for(8)
    assert [(span.name, span.attributes.get("penstock.attempt"), span.failed, span.message) for span in spans] == [
        ("queued", 1, False, ""),
        ("preparing", 1, False, ""),
        ("running", 1, True, "its process died (pid 7)"),
        ("queued", 2, False, ""),
        ("preparing", 2, False, ""),
        ("running", 2, False, ""),
        ("completing", 2, False, ""),
        ("job", None, False, ""),
    ]
    assert spans[-1].attributes["penstock.attempts"] == 2


def test_a_failed_job_is_marked_with_its_error(
    store: SqlJobStore, clock: Clock, received: Collector, start: Start
) -> None:
    tracing = start()
    submit(store, clock)
    go(store, clock, "preparing", "running", "failed", outcome="error", error="the model refuses all rows")
    tracing.tick()
    tracing.close()

    spans = by_name(received.wait_for(4))
    assert (spans["job"].failed, spans["job"].message) == (True, "the model refuses all rows")
    assert (spans["running"].failed, spans["running"].message) == (True, "to failed")
    assert not spans["preparing"].failed


def test_a_job_is_part_of_the_trace_that_it_was_submitted_in(
    store: SqlJobStore, clock: Clock, received: Collector, start: Start
) -> None:
    tracing = start()
    submit(store, clock, traceparent=TRACE)
    go(store, clock, "preparing", "cancelled")
    submit(store, clock, "batch-2", traceparent=TRACE.replace("-01", "-00"))
    go(store, clock, "preparing", "cancelled", job_id="batch-2")
    tracing.tick()
    tracing.close()

    spans = received.wait_for(3)
    # The other trace is not kept by whoever began it.
    assert {span.attributes["penstock.job_id"] for span in spans} == {"batch-1"}
    assert {span.trace_id for span in spans} == {TRACE[3:35]}
    assert by_name(spans)["job"].parent_id == TRACE[36:52]
    assert not any(span.failed for span in spans)


def test_a_job_is_told_of_once_by_whose_it_is_and_only_if_it_ended_since_the_start(
    store: SqlJobStore, clock: Clock, start: Start
) -> None:
    submit(store, clock, "batch-1")
    go(store, clock, "preparing", "cancelled", job_id="batch-1")
    clock.advance(1)
    mine, other = start(), start("launcher-2")
    clock.advance(60)
    submit(store, clock, "batch-2")
    go(store, clock, "preparing", "cancelled", job_id="batch-2")

    assert (mine.tick(), other.tick()) == (1, 0)
    assert mine.tick() == 0
    # Nobody had started it, so both tell, and tell the same.
    submit(store, clock, "batch-3")
    store.request_cancel("batch-3", "no")
    assert (mine.tick(), other.tick()) == (1, 1)


def test_two_launchers_that_tell_of_the_same_job_tell_the_same(
    store: SqlJobStore, clock: Clock, received: Collector, start: Start
) -> None:
    launchers = [start(), start("launcher-2")]
    submit(store, clock)
    clock.advance(1)
    store.request_cancel("batch-1", "no")
    for each in launchers:
        each.tick()
        each.close()

    spans = received.wait_for(4)
    assert spans[:2] == spans[2:]
    assert spans[0].trace_id == hashlib.sha256(b"batch-1 1 trace").hexdigest()[:32]


def test_a_job_that_is_asked_for_again_is_another_trace_of_what_came_since(
    store: SqlJobStore, clock: Clock, received: Collector, start: Start
) -> None:
    tracing = start()
    submit(store, clock)
    go(store, clock, "preparing", "failed", outcome="error", error="away")
    tracing.tick()
    go(store, clock, "submitted", "preparing", "running", "completing", "completed", outcome="clean")
    tracing.tick()
    tracing.close()

    spans = received.wait_for(8)
    first, second = (span for span in spans if span.name == "job")
    assert first.trace_id != second.trace_id
    assert second.attributes["penstock.attempts"] == 1
    assert second.start_ns - first.end_ns == 1_000_000_000
    assert len([span for span in spans if span.trace_id == second.trace_id]) == 5


def test_what_ended_a_little_earlier_and_is_seen_later_is_told_of_too(
    store: SqlJobStore, clock: Clock, start: Start
) -> None:
    tracing = start()
    clock.advance(60)
    for n in (1, 2):
        submit(store, clock, f"batch-{n}")
        go(store, clock, "preparing", job_id=f"batch-{n}")
    go(store, clock, "cancelled", job_id="batch-1")
    first = tracing.tick()
    clock.advance(-3)
    go(store, clock, "cancelled", job_id="batch-2")

    assert (first, tracing.tick()) == (1, 1)


def test_many_jobs_at_once_are_told_of_in_several_goes_and_none_is_left_out(
    store: SqlJobStore, clock: Clock, start: Start, received: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracing = start()
    monkeypatch.setattr("launcher.tracing._AT_ONCE", 20)
    for n in range(45):
        submit(store, clock, f"batch-{n}")
        store.request_cancel(f"batch-{n}", "no")
        clock.advance(0.1)
    told = [tracing.tick() for _ in range(4)]
    tracing.close()

    spans = received.wait_for(90)
    assert told == [20, 20, 5, 0]
    assert len({span.attributes["penstock.job_id"] for span in spans}) == 45


def test_a_receiver_that_refuses_is_told_of_once_and_disturbs_nobody(
    store: SqlJobStore, clock: Clock, received: Collector, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    received.status = 400
    tracing = start()
    for n in range(1200):
        tracing.tracer.start_span(f"request {n}").end()
    submit(store, clock)
    store.request_cancel("batch-1", "no")
    with caplog.at_level(logging.INFO):
        assert tracing.tick() == 1
        tracing.close()

    assert received.requests >= 2
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "traces do not arrive, and are dropped; look at OTEL_EXPORTER_OTLP_ENDPOINT, which is spoken to in "
        "http/protobuf, as on port 4318"
    ]


def test_a_receiver_that_is_away_holds_up_the_end_for_a_moment_only(start: Start) -> None:
    # Nobody listens on the discard port; the exporter would try for ten seconds.
    tracing = start(url="http://127.0.0.1:9")
    tracing.tracer.start_span("request").end()
    began = time.monotonic()
    tracing.close()

    assert time.monotonic() - began < 6


def test_what_counts_is_what_came_since_somebody_asked_for_the_job() -> None:
    at = datetime(2025, 3, 15, tzinfo=UTC)

    def move(source: Status | None, to: Status, attempt: int) -> Move:
        return Move(source, to, at, "", attempt)

    moves = [
        move(None, "submitted", 1),
        move("submitted", "failed", 1),
        move("failed", "submitted", 2),
        move("submitted", "preparing", 2),
        move("preparing", "submitted", 3),
        move("submitted", "cancelled", 3),
    ]

    assert since_asked_for(moves) == moves[2:]
    assert since_asked_for(moves[:2]) == moves[:2]
    assert since_asked_for([]) == []
