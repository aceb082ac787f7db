"""For whoever runs the service: does it live, is it ready, and what does it do."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from starlette.responses import Response

from launcher.api import documented, models
from launcher.api.answers import answer
from launcher.api.auth import Viewer
from launcher.errors import StoreUnavailable
from launcher.service import Service
from launcher.state.job import DEFAULT_TENANT, STATUSES, Status
from launcher.state.sql import QUEUE_WAIT_BUCKETS_S
from transforms.telemetry import CALL_BUCKETS_S

router = APIRouter(tags=["operations"])

# Counting 100,000 jobs takes 20 ms; several scrapers may come at once.
_COUNTED_FOR_S = 5.0
_ROWS = ("scored", "rejected", "skipped")

Totals = Mapping[tuple[str, str], float]


@router.get(
    "/healthz",
    summary="Whether the process lives",
    response_model=models.Health,
    responses=documented.refusals("forbidden", "store-unavailable", guarded=False),
)
async def healthz() -> Response:
    """Asks nothing but the process itself."""
    return answer({"status": "ok"})


@router.get(
    "/readyz",
    summary="Whether jobs can be taken and started",
    response_model=models.Readiness,
    responses={
        **documented.refusals("forbidden", "store-unavailable", guarded=False),
        503: {"model": models.Readiness, "description": "Not now; `reason` says why."},
    },
)
def readyz(request: Request) -> Response:
    """The store answers, the disk has room, and the fork server is warm; it takes some seconds after a start."""
    service: Service = request.app.state.service
    try:
        service.keys.any()
        store = "ok"
    except StoreUnavailable:
        store = "unavailable"
    forks = "cold" if service.forks.pid is None else "warm"
    lacks = service.home.lacks()
    reasons = [
        "the store does not answer" if store == "unavailable" else None,
        "the fork server is not warm yet" if forks == "cold" else None,
        lacks,
    ]
    reason = "; ".join(filter(None, reasons)) or None
    values = {
        "status": "not_ready" if reason else "ready",
        "store": store,
        "fork_server": forks,
        "disk": "unusable" if lacks else "ok",
        "reason": reason,
    }
    return answer(values, 503 if reason else 200)


@router.get(
    "/metrics",
    summary="What the service does, for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "Every launcher of a store tells the same. A tenant's key counts the tenant's own jobs; an "
            "admin key of the tenant `default`, who runs the service, all of them, and rows, waits and calls.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **documented.refusals("invalid-request"),
    },
)
def metrics(request: Request, caller: Viewer) -> Response:
    """Jobs by state, queue wait, rows, ends of jobs, and model calls."""
    service: Service = request.app.state.service
    counted: Counted = request.app.state.counted
    is_operator = (caller.tenant, caller.role) == (DEFAULT_TENANT, "admin")
    families = [*_of_jobs(counted(), caller.tenant, is_operator)]
    if is_operator:
        families += _of_totals(service.store.totals())
    return Response(generate_latest(_Families(families)), media_type=CONTENT_TYPE_LATEST)


class Counted:
    """How many jobs there are, counted anew every few seconds. Any thread may ask."""

    def __init__(
        self, count: Callable[[], Mapping[tuple[str, Status], int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._clock = clock
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._known: Mapping[tuple[str, Status], int] = {}

    def __call__(self) -> Mapping[tuple[str, Status], int]:
        with self._lock:
            if self._clock() >= self._until:
                self._known = self._count()
                self._until = self._clock() + _COUNTED_FOR_S
            return self._known


class _Families:
    """Metrics as prometheus_client wants to be given them."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _of_jobs(counted: Mapping[tuple[str, Status], int], own: str, of_all: bool) -> Iterable[Metric]:
    jobs = GaugeMetricFamily("penstock_jobs", "Jobs by tenant and state.", labels=["tenant", "status"])
    everyone = {tenant for tenant, _ in counted} | {own}
    for tenant in sorted(everyone if of_all else {own}):
        for status in STATUSES:
            jobs.add_metric([tenant, status], counted.get((tenant, status), 0))
    yield jobs


def _of_totals(totals: Totals) -> Iterable[Metric]:
    yield _histogram(
        "penstock_queue_wait_seconds", "How long jobs waited in line.", totals, "queue_wait", QUEUE_WAIT_BUCKETS_S
    )
    rows = CounterMetricFamily("penstock_rows", "Rows by what became of them.", labels=["result"])
    for result in _ROWS:
        rows.add_metric([result], totals.get(("rows", result), 0))
    yield rows
    ended = CounterMetricFamily("penstock_jobs_ended", "Jobs by how they ended.", labels=["outcome"])
    for name, outcome in sorted(totals):
        if name == "jobs_ended":
            ended.add_metric([outcome], totals[name, outcome])
    yield ended
    yield _histogram(
        "penstock_model_call_seconds", "How long calls of models took.", totals, "model_call", CALL_BUCKETS_S
    )


def _histogram(name: str, text: str, totals: Totals, key: str, bounds: Sequence[float]) -> Metric:
    """A histogram of counts by bucket, which Prometheus has added up from the left."""
    buckets: list[Any] = []
    so_far = 0.0
    for at, bound in enumerate([*map(float, bounds), float("inf")]):
        so_far += totals.get((key, str(at)), 0)
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), so_far))
    histogram = HistogramMetricFamily(name, text)
    histogram.add_metric([], buckets, sum_value=totals.get((f"{key}_s", ""), 0.0))
    return histogram
