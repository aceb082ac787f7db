"""What whoever runs the service sees of it."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import launcher.home
from launcher.api.models import Health, Readiness
from launcher.api.operations import Counted
from launcher.errors import StoreUnavailable
from launcher.home import Home
from launcher.state.job import Live, Status
from launcher.state.sql import QUEUE_WAIT_BUCKETS_S
from tests.api import Api, checked, serving
from transforms.counts import Counts
from transforms.telemetry import CALL_BUCKETS_S

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(answer: httpx.Response) -> Samples:
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_a_service_that_lives_says_so_to_everybody(api: Api) -> None:
    assert checked(api.client().get("/healthz"), 200, Health).status == "ok"


def test_a_service_whose_fork_server_is_cold_is_not_ready(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forks:
        pid: int | None = None

    client, forks = api.client(), Forks()
    monkeypatch.setattr(api.service, "forks", forks)
    cold = checked(client.get("/readyz"), 503, Readiness)
    forks.pid = 1
    warm = checked(client.get("/readyz"), 200, Readiness)

    def away() -> bool:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(api.service.keys, "any", away)
    away_ = checked(client.get("/readyz"), 503, Readiness)

    assert cold.model_dump() == {
        "status": "not_ready",
        "store": "ok",
        "fork_server": "cold",
        "disk": "ok",
        "reason": "the fork server is not warm yet",
    }
    assert warm.model_dump() == {
        "status": "ready",
        "store": "ok",
        "fork_server": "warm",
        "disk": "ok",
        "reason": None,
    }
    assert (away_.status, away_.store, away_.reason) == ("not_ready", "unavailable", "the store does not answer")


def test_a_service_without_room_on_its_disk_is_not_ready_until_there_is_some(
    api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Forks:
        pid = 1

    client = api.client()
    monkeypatch.setattr(api.service, "forks", Forks())
    with monkeypatch.context() as full:
        full.setattr(launcher.home, "MIN_FREE_BYTES", 2**62)
        without_room = checked(client.get("/readyz"), 503, Readiness)
    with monkeypatch.context() as gone:
        gone.setattr(api.service, "home", Home(tmp_path / "gone"))
        unwritable = checked(client.get("/readyz"), 503, Readiness)
    again = checked(client.get("/readyz"), 200, Readiness)

    assert (without_room.disk, unwritable.disk, again.disk) == ("unusable", "unusable", "ok")
    assert "is full" in (without_room.reason or "")
    assert "cannot be written" in (unwritable.reason or "")


def test_metrics_tell_what_the_jobs_did(tmp_path: Path) -> None:
    with serving(tmp_path, keyless=True) as api:
        client = api.client()
        api.stock(client)
        done, running, _ = (api.submit(client) for _ in range(3))
        (claimed,) = api.service.store.claim("me", 1, 10, 60)
        assert claimed.id == done
        api.move(done, "running")
        calls = [0] * (len(CALL_BUCKETS_S) + 1)
        calls[0], calls[2], calls[-1] = 5, 3, 1
        live = Live(scored=900, rejected=90, skipped=10, calls=9, call_s=100.0, call_buckets=tuple(calls))
        api.move(done, "completing")
        api.move(done, "completed", outcome="with_rejects", counts=Counts(900, 90, 10), live=live)
        api.run(running, scored=7)
        told = samples(client.get("/metrics"))

    def jobs(status: Status) -> float:
        return told["penstock_jobs", (("status", status), ("tenant", "default"))]

    assert (jobs("completed"), jobs("running"), jobs("submitted"), jobs("failed")) == (1, 1, 1, 0)
    assert told["penstock_rows_total", (("result", "scored"),)] == 907
    assert told["penstock_rows_total", (("result", "rejected"),)] == 90
    assert told["penstock_jobs_ended_total", (("outcome", "with_rejects"),)] == 1
    bounds = ["0.001", "0.0025", "0.005", "60.0", "+Inf"]
    assert [told["penstock_model_call_seconds_bucket", (("le", bound),)] for bound in bounds] == [5, 5, 8, 8, 9]
    assert told["penstock_model_call_seconds_count", ()] == 9
    assert told["penstock_model_call_seconds_sum", ()] == 100
    waits = [value for (name, _), value in told.items() if name == "penstock_queue_wait_seconds_bucket"]
    assert len(waits) == len(QUEUE_WAIT_BUCKETS_S) + 1
    assert waits == sorted(waits)
    assert told["penstock_queue_wait_seconds_count", ()] == 1


def test_only_who_runs_the_service_sees_what_other_tenants_do(api: Api, tenant: str) -> None:
    other = api.client(f"{tenant}-too")
    api.stock(other)
    api.submit(other)

    def tenants(client: httpx.Client) -> set[str]:
        return {dict(labels)["tenant"] for name, labels in samples(client.get("/metrics")) if name == "penstock_jobs"}

    # It was counted a moment ago, perhaps.
    api.app.state.counted._until = float("-inf")
    assert tenants(api.client(tenant, "viewer")) == {tenant}
    assert tenants(api.client(tenant, "admin")) == {tenant}
    assert "penstock_rows" not in api.client(tenant, "admin").get("/metrics").text
    assert {"default", f"{tenant}-too"} <= tenants(api.client("default", "admin"))


def test_jobs_are_not_counted_for_every_scraper() -> None:
    asked: list[int] = []
    now = 0.0

    def count() -> dict[Any, int]:
        asked.append(1)
        return {}

    counted = Counted(count, lambda: now)
    for now in (0.0, 1.0, 4.9, 5.0, 6.0):  # noqa: B007
        counted()

    assert len(asked) == 2
