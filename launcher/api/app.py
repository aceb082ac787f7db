"""The API, put together."""

import threading
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route

from launcher.api import docs, events, jobs, operations, problems, registry, rows, schedules
from launcher.api.documented import openapi
from launcher.api.middleware import AccessLog, BodyLimit, LoopbackOnly
from launcher.api.operations import Counted
from launcher.api.threads import Threads
from launcher.service import Service

_DESCRIPTION = """Scores data with models in bulk, exactly once: submit a job, follow it, read its result.

Errors are problems (RFC 9457) whose `type` is stable. Every POST takes an `Idempotency-Key`. Lists come in pages.
Any request may be answered 400 (`malformed-request`: no HTTP), 431 (`head-too-large`) or 503 (`overloaded`).
"""


def make_app(service: Service) -> FastAPI:
    """The API of a service, which may be started before or after.

    `app.state.closing`, a `threading.Event`, ends the streams of events once it is set; `app.state.routes` has all
    routes.
    """
    app = FastAPI(
        title="Penstock",
        version=version("penstock"),
        summary="Batch inference as a service.",
        description=_DESCRIPTION,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.closing = threading.Event()
    app.state.counted = Counted(service.store.count_by_status)
    app.state.threads = Threads(elsewhere=service.store.database.is_postgres)
    app.state.streams = events.Streams()
    docs.install(app)
    # With those of FastAPI itself, such as /openapi.json; included ones are hidden among them.
    app.state.routes = [route for route in app.routes if isinstance(route, Route)]
    for each in (jobs, rows, events, registry, schedules, operations):
        app.include_router(each.router)
        app.state.routes += each.router.routes
    problems.install(app)
    # The last is the outermost.
    app.add_middleware(BodyLimit)
    app.add_middleware(LoopbackOnly, ring=service.ring)
    if service.tracing is not None:
        app.add_middleware(service.tracing.middleware)
    app.add_middleware(AccessLog)

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi(app, service.defaults, service.ring.is_keyless())
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
    return app
