"""A receiver of OpenTelemetry traces: a real server that reads OTLP, and keeps what it was sent."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


@dataclass(frozen=True)
class Told:
    """One span as it was sent."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    start_ns: int
    end_ns: int
    failed: bool
    message: str
    attributes: dict[str, Any]


@dataclass
class Collector:
    """What was sent so far. `status` is how the next requests are answered."""

    url: str = ""
    status: int = 200
    requests: int = 0
    bodies: list[bytes] = field(default_factory=list)
    spans: list[Told] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    _arrived: threading.Condition = field(default_factory=threading.Condition)

    def take(self, path: str, body: bytes) -> int:
        with self._arrived:
            self.requests += 1
            if self.status == 200:
                assert path == "/v1/traces"
                self.bodies.append(body)
                for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self.resources.append(_values(group.resource.attributes))
                    for scope in group.scope_spans:
                        self.spans += [_told(span) for span in scope.spans]
            self._arrived.notify_all()
            return self.status

    def wait_for(self, spans: int, patience_s: float = 30) -> list[Told]:
        """All spans, once there are so many."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.spans) >= spans, patience_s), f"only {len(self.spans)} came"
            return list(self.spans)


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector on a free port."""
    collected = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(collected.take(self.path, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """The tests look at what came, not at how."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collected.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collected
        finally:
            server.shutdown()
            thread.join()


def _told(span: Span) -> Told:
    return Told(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        message=span.status.message,
        attributes=_values(span.attributes),
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
