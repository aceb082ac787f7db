"""Errors of the client; each message is a line that says what, where and what to do, never with the API key in it.

PenstockError
├── Misconfigured        nothing was sent: the address, the    -> the line says what to mend
│                        key or the request cannot be
├── Unwritable           what came does not go into the file   -> the line says why
├── Refusal              the server said no; `problem` has all -> the leaf says what kind of no
│   ├── RequestRefused   the request is wrong                  -> `errors` names each field
│   ├── Unauthorized     no API key, or not a known one        -> another key
│   ├── Forbidden        the key may not do this               -> a key with another role
│   ├── NotFound         the tenant has nothing of this id     -> look at a list
│   ├── Conflict         not in the state that this is now in  -> look again, decide again
│   ├── Gone             the result is not there any more      -> the line says whose is
│   └── ServerFailed     the server broke over the request     -> its log says why
├── ServerUnavailable    not reached, or busy, after retries   -> later
├── AnswerUnreadable     what answers speaks another language  -> is it Penstock? which version?
└── StillRunning         the job was not over in time          -> wait again, or cancel it
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

# As much of a text that is none of ours as a line bears.
_SHOWN_CHARS = 200


@dataclass(frozen=True)
class FieldError:
    """One mistake in a request: the field (empty: the whole request) and the rest of the sentence about it."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field} {self.message}".lstrip()


@dataclass(frozen=True)
class Problem:
    """Why a request was refused (RFC 9457).

    Args:
        status: of HTTP.
        type: a URI that stays the same for the same kind of problem; `about:blank` where it was not told.
        title: the kind, for people.
        detail: what happened this time.
        errors: each mistake in the request, where it is wrong.
        remedy: what to do; empty where that is not known.
        instance: the path of the request.
    """

    status: int
    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    errors: tuple[FieldError, ...] = ()
    remedy: str = ""
    instance: str = ""

    @property
    def slug(self) -> str:
        """The last word of `type`, such as `invalid-request`."""
        return self.type.rstrip("/").rpartition("/")[2]

    @property
    def line(self) -> str:
        """All of it in one line."""
        said = "; ".join(map(str, self.errors)) or self.detail or self.title or f"the server answered {self.status}"
        line = " ".join(said.split())
        remedy = " ".join(self.remedy.split()).rstrip(".")
        # Most lines say by themselves what to do, and better than what holds for all problems of the kind.
        if not remedy or self.errors or ";" in line:
            return line
        return f"{line.rstrip('.')}; {remedy[0].lower()}{remedy[1:]}"


def problem_of(status: int, body: Any, path: str) -> Problem:
    """The problem that an answer tells of, whatever of it is there.

    Args:
        body: the values of its JSON; anything.
        path: of the request.
    """
    told: Mapping[str, Any] = body if isinstance(body, Mapping) else {}

    def text(name: str, default: str = "") -> str:
        value = told.get(name)
        return value if isinstance(value, str) else default

    listed = told.get("errors")
    errors = [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
    return Problem(
        status,
        text("type", "about:blank"),
        text("title", _phrase(status)),
        text("detail", f"{path}: the server answered {status} {_phrase(status)}".rstrip() if not told else ""),
        tuple(FieldError(str(each.get("field") or ""), str(each.get("message") or "is wrong")) for each in errors),
        text("remedy"),
        text("instance", path),
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


class PenstockError(Exception):
    """What went wrong between the client and the service; `str(error)` is one line."""


class Misconfigured(PenstockError):
    """The client cannot do anything with what it was given, and has asked nothing; the key is never repeated."""


class Unwritable(PenstockError):
    """What the server gave cannot be written where it was to go; nothing of it is there."""


class Refusal(PenstockError):
    """The server understood the request, and said no."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem.line

    @property
    def type(self) -> str:
        """A URI that stays the same for the same kind of problem."""
        return self.problem.type

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """Each mistake in the request, where it is wrong."""
        return self.problem.errors

    @property
    def remedy(self) -> str:
        """What to do; empty where that is not known."""
        return self.problem.remedy


class RequestRefused(Refusal):
    """The request is wrong in one or more ways."""


class Unauthorized(Refusal):
    """The request had no API key, or one that the server does not know."""


class Forbidden(Refusal):
    """The API key's role may not do this."""


class NotFound(Refusal):
    """The tenant has no job, model, connection or schedule of this id."""


class Conflict(Refusal):
    """The state of the job, or of what is to be deleted, does not allow it."""


class Gone(Refusal):
    """What was asked for has been there, and is not any more."""


class ServerFailed(Refusal):
    """The server broke over the request."""


class ServerUnavailable(PenstockError):
    """The server was not reached, or had no time, as often as it was asked.

    Args:
        url: of the server.
        reason: the rest of the sentence about it.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.url} {self.reason}"


class AnswerUnreadable(PenstockError):
    """The server's answer is not what the contract says.

    Args:
        request: its method and path.
        reason: the rest of the sentence about the answer.
    """

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(request, reason)
        self.request = request
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.request}: the answer {self.reason}"


class StillRunning(PenstockError):
    """A job was not over when the time to wait was.

    Args:
        job_id: which job.
        status: the state it was in.
        after_s: how long was waited.
    """

    def __init__(self, job_id: str, status: str, after_s: float) -> None:
        super().__init__(job_id, status, after_s)
        self.job_id = job_id
        self.status = status
        self.after_s = after_s

    def __str__(self) -> str:
        return f"{self.job_id} is still {self.status} after {self.after_s:g} s; it goes on"


# By status of HTTP; every other 4xx is a `RequestRefused`, every other 5xx a `ServerFailed`.
_KINDS: Mapping[int, type[Refusal]] = {401: Unauthorized, 403: Forbidden, 404: NotFound, 409: Conflict, 410: Gone}
_FIRST_OF_SERVER = 500


def refusal_of(problem: Problem) -> Refusal:
    """The error that a problem is raised as."""
    other = RequestRefused if problem.status < _FIRST_OF_SERVER else ServerFailed
    return _KINDS.get(problem.status, other)(problem)


def shortened(text: str) -> str:
    """A text that may be anything, on one line of bearable length."""
    line = "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))
    return line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]}…"
