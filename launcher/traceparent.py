"""The trace that a request belongs to, as W3C Trace Context writes it, and what a service needs of its tracing.

Nothing here needs OpenTelemetry: without an endpoint to send traces to, none of it is imported but the interfaces that
FastAPI itself knows.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from starlette.types import ASGIApp

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# version-trace-parent-flags; https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

# Of the request that this task or thread answers.
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


class Tracing(Protocol):
    """What is needed of a `launcher.tracing.Tracing`, which imports OpenTelemetry."""

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """`app` with a span for each request."""
        ...

    def start(self) -> None:
        """Jobs that end from now on are traced."""
        ...

    def tick(self) -> int:
        """Trace jobs that have ended. Returns how many."""
        ...

    def close(self) -> None:
        """Send what is left, as far as that takes no longer than a moment."""
        ...


def current_traceparent(given: str | None = None) -> str | None:
    """The span that the request under way is answered in; without tracing, what the request itself gave.

    Args:
        given: the request's header `traceparent`. One that is none counts as not given.
    """
    current = _current.get()
    if current is None and given is not None and _TRACEPARENT.fullmatch(given):
        return given
    return current


@contextmanager
def answering_in(traceparent: str) -> Iterator[None]:
    """What is done in this block, and in threads that it hands work to, is part of a span."""
    token = _current.set(traceparent)
    try:
        yield
    finally:
        _current.reset(token)


def traces_are_wanted(environment: Mapping[str, str]) -> bool:
    """Whether there is somewhere to send traces to, and nothing that says not to."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return any(environment.get(name, "").strip() for name in ENDPOINTS)
