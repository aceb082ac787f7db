"""Errors become problems (RFC 9457): what is wrong, where, and what to do, in a shape that programs can read."""

import http
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from launcher import errors as told
from launcher.errors import LauncherError
from predictors.errors import PredictorError
from transforms.errors import ConnectionRefused, PipelineError

MEDIA_TYPE = "application/problem+json"
_BASE = "https://penstock.dev/problems/"
# So soon what does not answer may be asked again.
_AGAIN_S = {
    "idempotency-key-busy": 1,
    "too-many-requests": 5,
    "store-unavailable": 2,
    "unavailable": 5,
    "overloaded": 2,
}

_log = logging.getLogger("launcher.api")


class Kind(NamedTuple):
    """A kind of problem. Its slug is a promise to programs; its title and remedy are for people."""

    status: int
    title: str
    remedy: str


KINDS: Mapping[str, Kind] = {
    "malformed-json": Kind(400, "The body is not JSON", "Send one JSON object, as UTF-8."),
    "malformed-request": Kind(400, "This is no HTTP request", "Send HTTP/1.1; the connection is closed."),
    "unauthorized": Kind(401, "An API key is needed", "Send a key that is not revoked as Authorization: Bearer psk_…"),
    "forbidden": Kind(403, "This caller may not do this", "Use a key with another role."),
    "not-found": Kind(404, "There is no such thing", "Look at the list of what there is."),
    "method-not-allowed": Kind(405, "This path does not know the method", "Use one of the methods that Allow lists."),
    "not-acceptable": Kind(406, "No such media type is offered", "Accept one of those that are offered."),
    "conflict": Kind(409, "This cannot be done as things stand", "Look again, and decide again."),
    "idempotency-key-reused": Kind(
        409, "The Idempotency-Key came with another request", "Send a new request with a new key."
    ),
    "idempotency-key-busy": Kind(409, "The same request is being answered", "Send it again in a moment."),
    "gone": Kind(410, "This is not there any more", "Submit the job anew."),
    "body-too-large": Kind(413, "The body is too large", "Send at most 1 MiB."),
    "unsupported-media-type": Kind(415, "The body is of another media type", "Send Content-Type: application/json."),
    "invalid-request": Kind(422, "The request is wrong", "Correct the fields that errors lists."),
    "too-many-requests": Kind(429, "Too many requests", "Wait as long as Retry-After says."),
    "head-too-large": Kind(
        431, "The path or the headers are too large", "Send at most 64 KiB, and at most 100 headers."
    ),
    "internal": Kind(500, "The service failed", "Report it with its request id; its log tells more."),
    "store-unavailable": Kind(503, "The job store does not answer", "Try again in a moment; nothing was changed."),
    "unavailable": Kind(503, "Something that is needed for this does not answer", "Try again in a moment."),
    "overloaded": Kind(503, "The service is at its bounds", "Try again in a moment."),
}


# By class; the first that an error is an instance of. What is missing is our own fault.
_SLUGS: Sequence[tuple[tuple[type[Exception], ...], str]] = (
    ((told.Unauthorized,), "unauthorized"),
    ((told.CallerForbidden, told.RoleLacking), "forbidden"),
    ((told.NotAcceptable,), "not-acceptable"),
    ((told.BodyTooLarge,), "body-too-large"),
    ((told.MediaTypeUnsupported,), "unsupported-media-type"),
    ((told.JsonMalformed,), "malformed-json"),
    ((told.JobUnknown, told.ModelUnknown, told.ConnectionUnknown, told.ScheduleUnknown), "not-found"),
    ((told.KeyReused,), "idempotency-key-reused"),
    ((told.KeyBusy,), "idempotency-key-busy"),
    ((told.ResultGone,), "gone"),
    (
        (
            told.Conflict,
            told.NotNow,
            told.MoveForbidden,
            told.JobAlive,
            told.JobExists,
            told.ModelInUse,
            told.ConnectionInUse,
            told.NoRejects,
        ),
        "conflict",
    ),
    ((told.StoreUnavailable,), "store-unavailable"),
    ((told.TooManyStreams,), "too-many-requests"),
    ((told.Overloaded,), "overloaded"),
    (
        (told.HomeUnusable, told.ForkFailed, told.AsideFailed, told.ResultUnreadable, ConnectionRefused),
        "unavailable",
    ),
    (
        (
            told.RequestError,
            told.PathForbidden,
            told.UriForbidden,
            told.AddressForbidden,
            told.HostUnknown,
            told.CronUnreadable,
            told.TemplateWrong,
            told.SecretUnreadable,
            told.StatusUnknown,
            PipelineError,
            PredictorError,
        ),
        "invalid-request",
    ),
)


def slug_of(error: Exception) -> str:
    """Which kind of problem an error is."""
    return next((slug for kinds, slug in _SLUGS if isinstance(error, kinds)), "internal")


def problem_of(error: Exception, instance: str) -> Response:
    """The answer that an error becomes. What is our own fault is logged, and not told.

    Args:
        instance: the path that was asked for.
    """
    slug = slug_of(error)
    if slug == "internal":
        _log.error("a request failed", exc_info=error)
        return problem(slug, instance, "something went wrong that should not; the log has it under the request's id")
    return problem(slug, instance, str(error), errors=_mistakes(error))


def problem(
    slug: str,
    instance: str,
    detail: str,
    *,
    errors: Sequence[told.Problem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as an answer."""
    kind = KINDS[slug]
    body: dict[str, Any] = {
        "type": f"{_BASE}{slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": "; ".join(detail.splitlines()),
        "instance": instance,
    }
    if slug == "invalid-request":
        body["errors"] = [{"field": each.field, "message": each.message} for each in errors]
    # Our messages end in what to do, behind the last semicolon; a list of them ends in the last one's only.
    _, found, remedy = detail.rpartition("; ")
    body["remedy"] = _sentence(remedy) if found and len(detail.splitlines()) == 1 else kind.remedy
    sent = dict(headers or {})
    if slug == "unauthorized":
        sent["WWW-Authenticate"] = "Bearer"
    if slug in _AGAIN_S:
        sent["Retry-After"] = str(_AGAIN_S[slug])
    content = json.dumps(body, ensure_ascii=False).encode(errors="replace")
    return Response(content, kind.status, sent, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Have every error of `app` answered by a problem."""

    # Coroutines: other handlers would wait for a thread.
    async def known(request: Request, error: Exception) -> Response:
        return problem_of(error, request.url.path)

    async def unreadable(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_of(told.RequestError(_parameter_mistakes(error.errors())), request.url.path)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _refusal(app, request, error)

    for kind in (LauncherError, PipelineError, PredictorError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, unreadable)
    app.add_exception_handler(HTTPException, refused)


def _mistakes(error: Exception) -> list[told.Problem]:
    if isinstance(error, told.RequestError):
        return error.problems
    if isinstance(error, told.PathForbidden):
        return [told.Problem(error.field, f"{error.path!r} {error.reason}")]
    if isinstance(error, told.TemplateWrong):
        return [told.Problem(error.field, error.problem)]
    return [told.Problem("", str(error))]


def _parameter_mistakes(found: Iterable[Any]) -> list[told.Problem]:
    """Mistakes in the path, the query or the headers; bodies are read by `launcher.request`."""
    # Behind the name may stand which of several values it is.
    return [told.Problem(str(each["loc"][1]), _sentence_of(each)) for each in found]


def _sentence_of(found: Any) -> str:
    given = found.get("input")
    shown = "" if given is None or isinstance(given, dict) else f"is {str(given)[:60]!r}; "
    message = str(found["msg"]).removeprefix("Value error, ")
    return f"{shown}{message[:1].lower()}{message[1:]}"


def _refusal(app: FastAPI, request: Request, error: HTTPException) -> Response:
    path = request.url.path
    if error.status_code == http.HTTPStatus.NOT_FOUND:
        return problem("not-found", path, "there is nothing under this path; /docs shows all that there is")
    if error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_methods(app, request))
        detail = f"{request.method} is not for this path; use {allowed}"
        return problem("method-not-allowed", path, detail, headers={"Allow": allowed})
    slug = next((slug for slug, kind in KINDS.items() if kind.status == error.status_code), "internal")
    return problem(slug, path, str(error.detail), headers=error.headers)


def _methods(app: FastAPI, request: Request) -> list[str]:
    """All methods of a path: each route only knows its own."""
    found = [route for route in app.state.routes if route.matches(request.scope)[0] is not Match.NONE]
    # `/batch/estimate` is a path of its own, though it could be the name of a job.
    own = min((route.path for route in found), key=lambda path: path.count("{"), default="")
    return sorted({method for route in found if route.path == own for method in route.methods})


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
