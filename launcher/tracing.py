"""Traces by OpenTelemetry: a span of each request, and a tree of spans of each job once it has ended.

The process of a job knows nothing of it: its tree is made from its recorded moves. What leaves the service are ids,
states, times, counts and the line that says why a job failed; no query, path, or address.

Where traces go, and how many, is said by OpenTelemetry's own variables: OTEL_EXPORTER_OTLP_ENDPOINT (its protocol is
http/protobuf), OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME and their like.
"""

import hashlib
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from launcher.api.middleware import FACTS
from launcher.errors import JobUnknown
from launcher.state.job import TERMINAL, Job, Move, shown_counts
from launcher.state.job import Status as JobStatus
from launcher.state.store import JobStore
from launcher.traceparent import answering_in

# Whoever stops the service does not wait longer for a receiver of traces that does not answer.
_FLUSH_S = 3.0
# A job may be seen so long after the time that its end is dated: another job's end was committed first.
_LATE = timedelta(seconds=10)
# Jobs in one tick: with five spans each, half of what waits at most to be sent.
_AT_ONCE = 200
# Asked for every few seconds, by whoever watches the service.
_NOT_TRACED = ("/healthz", "/readyz", "/metrics")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What a job is doing in each of its states.
_STATE_NAMES: dict[JobStatus, str] = {
    "submitted": "queued",
    "preparing": "preparing",
    "running": "running",
    "completing": "completing",
}
_W3C = TraceContextTextMapPropagator()

_log = logging.getLogger("launcher.tracing")


class Tracing:
    """Traces of one launcher, sent in the background. A receiver that is away costs traces, and nothing else.

    Args:
        launcher_id: tells apart who sent a trace.
        store: whose jobs are traced.
        is_ours: whether jobs of this owner are for this launcher to trace; None: nobody ever started the job.
        exporter: where to; None is what the environment says.
        now: the time, as the store has it.
    """

    def __init__(
        self,
        launcher_id: str,
        store: JobStore,
        is_ours: Callable[[str | None], bool],
        exporter: SpanExporter | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        # What the environment says goes before what we say.
        resource = Resource.create(
            {
                "service.name": "penstock",
                "service.version": version("penstock"),
                "service.instance.id": launcher_id,
            }
        ).merge(OTELResourceDetector().detect())
        self._exporter = _Telling(exporter or OTLPSpanExporter())
        self._processor = BatchSpanProcessor(self._exporter)
        requests = TracerProvider(resource=resource, shutdown_on_exit=False)
        ids = _IdsOfJobs()
        jobs = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=ids)
        for provider in (requests, jobs):
            provider.add_span_processor(self._processor)
        self.tracer = requests.get_tracer("penstock")
        self._jobs = JobTracer(store, jobs.get_tracer("penstock"), is_ours, ids.begin, now)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """`app` with a span for each request."""
        return TracingMiddleware(app, self.tracer)

    def start(self) -> None:
        """Jobs that end from now on are traced."""
        self._jobs.start()

    def tick(self) -> int:
        """Trace jobs that have ended. Returns how many."""
        return self._jobs.tick()

    def close(self) -> None:
        """Send what is left, as far as that takes no longer than a moment."""
        sending = threading.Thread(target=self._processor.shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(_FLUSH_S)
        if sending.is_alive():
            # Tries no more; what it is at is cut off with the process.
            self._exporter.shutdown()


class TracingMiddleware:
    """Answers each request in a span, which goes on the caller's trace where `traceparent` names one."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["path"] in _NOT_TRACED:
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        span = self._tracer.start_span(
            method, _parent(Headers(scope=scope)), SpanKind.SERVER, {"http.request.method": method}
        )

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= 500:
                    span.set_status(StatusCode.ERROR)
            await send(message)

        try:
            scope.get(FACTS, {})["trace_id"] = f"{span.get_span_context().trace_id:032x}"
            with answering_in(_traceparent(span)):
                await self._app(scope, receive, noting_send)
        except Exception as error:
            # Not its text, which may quote the request.
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            route = getattr(scope.get("route"), "path", None)
            if route is not None:
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
            for name in ("tenant", "job_id"):
                if (known := scope.get(FACTS, {}).get(name)) is not None:
                    span.set_attribute(f"penstock.{name}", known)
            if (asked := scope.get("path_params", {}).get("job_id")) is not None:
                span.set_attribute("penstock.job_id", asked)
            span.end()


class JobTracer:
    """Tells of each job that ended, as a trace made from its recorded moves.

    A trace goes from when the job was asked for, or asked for again, to its end: the job's span, in the trace that it
    was submitted in, and below it one for each state that it was in, attempt by attempt. Whoever else tells of the
    same job tells the same, ids included. Jobs that ended while no launcher ran are not told of.

    Args:
        is_ours: whether jobs of this owner are for this launcher to trace; None: nobody ever started the job.
        begin: is told of which job and attempt the next spans are.
        now: the time, as the store has it.
    """

    def __init__(
        self,
        store: JobStore,
        tracer: Tracer,
        is_ours: Callable[[str | None], bool],
        begin: Callable[[str, int], None] = lambda job_id, attempt: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._tracer = tracer
        self._is_ours = is_ours
        self._begin = begin
        self._now = now
        # All that ended before was looked at; of what ended shortly before, this is what was.
        self._position = self._start = now()
        self._seen: dict[tuple[str, int], datetime] = {}

    def start(self) -> None:
        """Jobs that end from now on are told of."""
        self._position = self._start = self._now()

    def tick(self) -> int:
        """Tell of jobs that have ended. Returns how many."""
        told = 0
        for ended in self._store.ended(max(self._start, self._position - _LATE)):
            key = (ended.job_id, ended.attempt)
            if key in self._seen:
                continue
            if told == _AT_ONCE:
                break
            if self._is_ours(ended.owner):
                told += self._tell(ended.job_id)
            self._seen[key] = ended.finished_at
            self._position = max(self._position, ended.finished_at)
        self._seen = {key: at for key, at in self._seen.items() if at >= self._position - _LATE}
        return told

    def _tell(self, job_id: str) -> int:
        try:
            job, moves = self._store.get(job_id), self._store.moves(job_id)
        except JobUnknown:
            return 0
        moves = since_asked_for(moves)
        # Somebody may just have asked for it again: it has no end now.
        if not moves or not job.is_over or moves[-1].to not in TERMINAL:
            return 0
        self._begin(job.id, moves[0].attempt)
        parent = _W3C.extract({"traceparent": job.traceparent or ""}, Context())
        last = moves[-1]
        root = self._tracer.start_span(
            "job", parent, attributes=_facts(job, moves), start_time=_ns(moves[0].at), kind=SpanKind.CONSUMER
        )
        if last.to == "failed":
            root.set_status(_failed(job.error or last.reason))
        within = set_span_in_context(root, Context())
        for move, following in itertools.pairwise(moves):
            span = self._tracer.start_span(
                _STATE_NAMES[move.to],
                within,
                attributes={"penstock.job_id": job.id, "penstock.attempt": move.attempt},
                start_time=_ns(move.at),
            )
            # Back in the queue: this attempt failed, and there is to be another.
            if following.to in ("failed", "submitted"):
                span.set_status(_failed(following.reason))
            span.end(_ns(following.at))
        root.end(_ns(last.at))
        return 1


def since_asked_for(moves: Sequence[Move]) -> list[Move]:
    """The moves of a job since it was last asked for: submitted, or retried after it had ended."""
    first = max((n for n, move in enumerate(moves) if move.source is None or move.source in TERMINAL), default=0)
    return list(moves[first:])


class _IdsOfJobs(IdGenerator):
    """Ids that follow from the job: two launchers that tell of one job tell the same. One thread makes them."""

    def __init__(self) -> None:
        self._of = ""
        self._spans = 0

    def begin(self, job_id: str, attempt: int) -> None:
        """What follows is of this job, from this attempt on."""
        self._of = f"{job_id} {attempt}"
        self._spans = 0

    def generate_trace_id(self) -> int:
        """16 bytes."""
        return self._hashed("trace", 16)

    def generate_span_id(self) -> int:
        """8 bytes, others at each call."""
        self._spans += 1
        return self._hashed(f"span {self._spans}", 8)

    def _hashed(self, what: str, size: int) -> int:
        return int.from_bytes(hashlib.sha256(f"{self._of} {what}".encode()).digest()[:size], "big")


class _Telling(SpanExporter):
    """Another exporter that tells once when traces get lost, and once when they arrive again."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._fails = False
        # It would tell of each batch, every five seconds.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send some; the same as the other."""
        result = self._inner.export(spans)
        fails = result is not SpanExportResult.SUCCESS
        if fails and not self._fails:
            _log.warning(
                "traces do not arrive, and are dropped; look at OTEL_EXPORTER_OTLP_ENDPOINT, which is spoken to in "
                "http/protobuf, as on port 4318"
            )
        elif self._fails and not fails:
            _log.info("traces arrive again")
        self._fails = fails
        return result

    def shutdown(self) -> None:
        """Send nothing more."""
        self._inner.shutdown()


def _facts(job: Job, moves: Sequence[Move]) -> dict[str, str | int]:
    counts = shown_counts(job)
    facts: dict[str, str | int | None] = {
        "penstock.job_id": job.id,
        "penstock.tenant": job.tenant,
        # One that is not registered is known by its address alone, which may hold a secret.
        "penstock.model": job.model_id,
        "penstock.model_version": job.model_version,
        "penstock.model_flavor": job.spec.model.flavor,
        "penstock.schedule_id": job.schedule_id,
        "penstock.status": job.status,
        "penstock.outcome": job.outcome,
        "penstock.rows.scored": counts.scored,
        "penstock.rows.rejected": counts.rejected,
        "penstock.rows.skipped": counts.skipped,
        "penstock.attempts": moves[-1].attempt - moves[0].attempt + 1,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _failed(line: str) -> Status:
    return Status(StatusCode.ERROR, " ".join(line.split()))


def _ns(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000


def _parent(headers: Headers) -> Context:
    given = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
    return _W3C.extract(given, Context())


def _traceparent(span: Span) -> str:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, set_span_in_context(span, Context()))
    return carrier["traceparent"]
