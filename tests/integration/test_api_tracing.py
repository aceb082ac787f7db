"""Requests and jobs of a service whose traces go to a real receiver."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from launcher.home import Home
from launcher.state.sql import SqlJobStore
from tests.api import BATCH, Api, serving
from tests.collector import Collector, collector
from tests.faults.launchers import LauncherProcess, light_job, until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as collecting:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collecting.url)
        # Spans are sent at once.
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        yield collecting


@pytest.fixture
def api(received: Collector, tmp_path: Path) -> Iterator[Api]:
    with serving(tmp_path, keyless=True, OTEL_EXPORTER_OTLP_ENDPOINT=received.url) as served:
        yield served
        assert served.service.tracing is not None
        served.service.tracing.close()


@pytest.fixture
def client(api: Api, received: Collector) -> httpx.Client:
    client = api.client()
    api.stock(client)
    received.wait_for(2)
    received.spans.clear()
    return client


def test_a_request_is_a_span_named_by_its_route_and_not_by_its_path(
    api: Api, client: httpx.Client, received: Collector
) -> None:
    job_id = api.submit(client)
    client.get(f"{BATCH}/{job_id}?token=secret", headers={"Authorization": "Bearer psk_secret"})
    client.get("/nowhere/secret")
    client.get("/healthz")
    client.get(f"{BATCH}?limit=0")

    spans = received.wait_for(4)
    assert [
        (span.name, span.kind, span.attributes["http.response.status_code"], span.attributes.get("penstock.job_id"))
        for span in spans
    ] == [
        ("POST /api/v1/inference/batch", "SERVER", 202, None),
        ("GET /api/v1/inference/batch/{job_id}", "SERVER", 422, job_id),
        ("GET", "SERVER", 404, None),
        ("GET /api/v1/inference/batch", "SERVER", 422, None),
    ]
    assert not any(span.failed or span.parent_id for span in spans)
    assert spans[0].attributes["penstock.tenant"] == "default"
    assert not any(b"secret" in body for body in received.bodies)


def test_a_request_goes_on_its_callers_trace_and_hands_it_to_the_job(
    api: Api, client: httpx.Client, received: Collector
) -> None:
    client.headers["traceparent"] = TRACE
    job_id = api.submit(client)

    span = received.wait_for(1)[0]
    assert (span.trace_id, span.parent_id) == (TRACE[3:35], TRACE[36:52])
    assert api.service.store.get(job_id).traceparent == f"00-{span.trace_id}-{span.span_id}-01"


def test_a_caller_that_does_not_trace_is_followed_in_that_too(
    api: Api, client: httpx.Client, received: Collector
) -> None:
    job_id = api.submit(httpx.Client(base_url=api.url, headers={"traceparent": TRACE.replace("-01", "-00")}))
    api.submit(client)

    assert len(received.wait_for(1)) == 1
    kept = api.service.store.get(job_id).traceparent
    assert kept is not None
    assert kept.startswith(TRACE[:35])
    assert kept.endswith("-00")


def test_without_tracing_the_job_keeps_what_the_request_gave(keyless_api: Api) -> None:
    client = keyless_api.client()
    keyless_api.stock(client)
    kept = []
    for given in (TRACE, "00-nonsense", None):
        client.headers["traceparent"] = given or ""
        kept.append(keyless_api.service.store.get(keyless_api.submit(client)).traceparent)

    assert keyless_api.service.tracing is None
    assert kept == [TRACE, None, None]


def test_a_request_that_breaks_is_marked_without_what_it_said(
    api: Api, client: httpx.Client, received: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(api.service.store, "database", None)
        answer = client.get(f"{BATCH}/batch-0123456789")

    span = received.wait_for(1)[0]
    assert answer.status_code == 500
    assert span.failed
    assert span.message == ""


def test_a_job_that_a_launcher_ran_is_traced_from_end_to_end(received: Collector, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    launcher = LauncherProcess(home.path, tmp_path, "tests.faults.light_attempt")
    try:
        launcher.await_warm()
        store = SqlJobStore.at(home.store)
        job = light_job(tmp_path)
        store.add(job, "POST")
        until(lambda: store.get(job.id).is_over, 60, "the job")
        spans = {span.name: span for span in received.wait_for(5)}
        moves = {move.to: move.at for move in store.moves(job.id)}
        store.close()
    finally:
        launcher.signal(signal.SIGTERM)
        launcher.kill()

    assert set(spans) == {"job", "queued", "preparing", "running", "completing"}
    assert spans["job"].attributes["penstock.outcome"] == "clean"
    assert spans["job"].attributes["penstock.rows.scored"] == 10
    assert spans["job"].end_ns // 1000 == round(moves["completed"].timestamp() * 1e6)
    assert received.resources[-1]["service.instance.id"] == launcher.id
