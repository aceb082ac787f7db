"""Requests to the service: sent, sent again where that is safe, and their answers read."""

import json
import random
import re
import ssl
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlsplit

from launcher.client.errors import (
    AnswerUnreadable,
    Misconfigured,
    NotFound,
    Problem,
    ServerUnavailable,
    problem_of,
    refusal_of,
    shortened,
)

# With httpx comes its command line, and with that rich and pygments: most of the time of the import, for nothing here.
_without_program = sys.modules.setdefault("httpx._main", None) is None  # type: ignore[arg-type]
import httpx  # noqa: E402

if _without_program:
    sys.modules.pop("httpx._main", None)

Method = Literal["GET", "POST", "PATCH", "DELETE"]
DEFAULT_URL = "http://127.0.0.1:8080"
ARROW = "application/vnd.apache.arrow.stream"

# Waits between tries double from the first to the longest; a server that says how long is believed up to the bound.
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0
_LONGEST_TOLD_WAIT_S = 60.0
_BUSY = frozenset({429, 502, 503, 504})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Answer(NamedTuple):
    """A successful answer: its headers (small letters) and its bytes."""

    headers: Mapping[str, str]
    body: bytes


class Wire:
    """A connection to one server. May be used from several threads.

    Args:
        url: `http://host:port`, with a path where the service is mounted below one.
        api_key: None where the service knows no keys.
        timeout_s: for the server to connect, and to answer.
        retries: how often a request is sent again when the server is not reached or busy.

    Raises:
        Misconfigured: the address or the key cannot be used.
    """

    def __init__(self, url: str, api_key: str | None, timeout_s: float, retries: int) -> None:
        self.url, host = _address(url)
        self.timeout_s = timeout_s
        self._retries = retries
        headers = {"Accept": "application/json"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {_checked_key(api_key)}"
        mounts: dict[str, httpx.BaseTransport | None] = {}
        verify: ssl.SSLContext | bool = True
        if host in _LOOPBACK:
            # A proxy is on some other machine; for it, loopback is not this one.
            mounts = {f"all://{host}": None}
        if host in _LOOPBACK and self.url.startswith("http:"):
            # There is no certificate to check; reading those of all authorities would take longer than the request.
            verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # A redirect is not followed: it could lead to where the key must not go.
        self._http = httpx.Client(
            headers=headers, timeout=timeout_s, follow_redirects=False, mounts=mounts, verify=verify
        )

    def __repr__(self) -> str:
        return f"Wire({self.url!r})"

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def ask(
        self,
        method: Method,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        retries: int | None = None,
    ) -> dict[str, Any]:
        """Send a request; returns the JSON object of the answer, empty for one without content.

        Args:
            query: values that are None are left out, those that are lists come several times.
            body: what JSON can say.
            idempotency_key: of a POST; None makes one up. The same goes with each try, so that it counts once.
            timeout_s, retries: for this request.

        Raises:
            PenstockError: see the tree.
        """
        answer = self.fetch(
            method,
            path,
            query=query,
            body=body,
            idempotency_key=idempotency_key,
            timeout_s=timeout_s,
            retries=retries,
        )
        if not answer.body:
            return {}
        values = _json(answer.body)
        if not isinstance(values, dict):
            begins = shortened(answer.body[:60].decode(errors="replace"))
            raise AnswerUnreadable(f"{method} {path}", f"is no JSON object ({begins}); is {self.url} Penstock?")
        return values

    def fetch(
        self,
        method: Method,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        retries: int | None = None,
        accept: str = "application/json",
    ) -> Answer:
        """Like `ask`, but the answer as it came.

        Args:
            accept: the kind of content that is wanted.
        """
        headers = {"Accept": accept}
        content = None
        if method == "POST":
            headers["Idempotency-Key"] = str(uuid.uuid4()) if idempotency_key is None else _checked(idempotency_key)
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = _dumped(body)
        request = self._http.build_request(
            method,
            self.url + path,
            params={name: value for name, value in (query or {}).items() if value is not None},
            content=content,
            headers=headers,
            timeout=self.timeout_s if timeout_s is None else timeout_s,
        )
        left = self._retries if retries is None else retries
        wait_s = _FIRST_WAIT_S
        perhaps_done = False
        while True:
            try:
                response = self._http.send(request)
                if 200 <= response.status_code < 300:
                    return Answer({name.lower(): value for name, value in response.headers.items()}, response.content)
                problem = _problem(response, path)
                if method == "DELETE" and response.status_code == 404 and perhaps_done:
                    # It was there: the try whose answer was lost has deleted it.
                    return Answer({}, b"")
                told_s = _retry_after_s(response)
                if not _is_busy(problem):
                    raise _refused(method, path, response, problem)
                # A gateway in between may have lost the answer.
                perhaps_done = perhaps_done or problem.status in (502, 504)
                failure = ServerUnavailable(self.url, f"has no time for {method} {path}: {problem.line}")
            except httpx.TransportError as error:
                failure, told_s = ServerUnavailable(self.url, _reason(error, path)), None
                failure.__cause__ = error
                perhaps_done = perhaps_done or not isinstance(error, httpx.ConnectError)
                if not _may_pass(error):
                    raise failure from error
            except httpx.RequestError as error:
                raise AnswerUnreadable(f"{method} {path}", f"cannot be decoded: {shortened(str(error))}") from error
            if left <= 0 or (told_s or 0) > _LONGEST_TOLD_WAIT_S:
                raise failure
            left -= 1
            # Not all at once: whoever was refused together must not come back together.
            time.sleep((told_s or 0) + wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str], silence_s: float) -> Iterator[Iterator[bytes]]:
        """Read an endless answer of server-sent events, piece by piece, until the block ends.

        Args:
            silence_s: the longest wait for the next piece.

        Raises:
            ServerUnavailable: the server is not reached, or the connection breaks, also in the block.
            PenstockError: see the tree.
        """
        timeout = httpx.Timeout(self.timeout_s, read=silence_s)
        try:
            with self._http.stream(
                "GET", self.url + path, headers={"Accept": "text/event-stream", **headers}, timeout=timeout
            ) as response:
                kind = response.headers.get("content-type", "")
                if response.status_code != 200:
                    response.read()
                    problem = _problem(response, path)
                    if _is_busy(problem):
                        raise ServerUnavailable(self.url, f"has no time for {path}: {problem.line}")
                    raise _refused("GET", path, response, problem)
                if not kind.startswith("text/event-stream"):
                    raise AnswerUnreadable(
                        f"GET {path}", f"is {shortened(kind) or 'of no kind'}, not text/event-stream"
                    )
                yield response.iter_bytes()
        except httpx.TransportError as error:
            raise ServerUnavailable(self.url, _reason(error, path)) from error
        except httpx.RequestError as error:
            raise AnswerUnreadable(f"GET {path}", f"cannot be decoded: {shortened(str(error))}") from error


def part(text: str, what: str) -> str:
    """An id as part of a path, whatever is in it.

    Raises:
        NotFound: it is empty, so there is nothing of this id.
    """
    if not text:
        raise NotFound(Problem(404, detail=f"there is no {what} without a name"))
    return quote(text, safe="").replace(".", "%2E") if set(text) == {"."} else quote(text, safe="")


def _address(url: str) -> tuple[str, str]:
    """The server's URL without a slash at its end, and its host."""
    try:
        parts = urlsplit(url.strip())
        parts.port  # noqa: B018  (read to have it checked)
        host = parts.hostname
    except ValueError as error:
        raise Misconfigured("the server's address has no host and port that can be read; write http://host:port") from (
            error
        )
    if parts.scheme not in ("http", "https") or not host:
        raise Misconfigured(f"the server's address {shortened(url)!r} is no URL; write http://host:port")
    if "@" in parts.netloc:
        raise Misconfigured("the server's address holds a user; take it out, the API key goes into PENSTOCK_API_KEY")
    if parts.query or parts.fragment or not url.strip().isprintable():
        raise Misconfigured(f"the server's address {shortened(url)!r} has more than a host and a path; leave it out")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", host


def _checked_key(api_key: str) -> str:
    if not re.fullmatch(r"[!-~]+", api_key.strip()):
        raise Misconfigured(
            "the API key is empty or holds what no key has; write it as `penstock keys create` shows it"
        )
    return api_key.strip()


def _checked(idempotency_key: str) -> str:
    if not re.fullmatch(r"[!-~]{1,255}", idempotency_key):
        raise Misconfigured("the idempotency key cannot be sent; use 1 to 255 visible ASCII characters")
    return idempotency_key


def _dumped(body: Any) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Misconfigured(f"the request holds what JSON cannot say: {shortened(str(error))}") from error


def _json(body: bytes) -> Any:
    """The values of a text that may be no JSON; None for one that is none."""
    try:
        return json.loads(body, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None


def _problem(response: httpx.Response, path: str) -> Problem:
    return problem_of(response.status_code, _json(response.content), path)


def _is_busy(problem: Problem) -> bool:
    """Whether the same request may be taken in a moment."""
    # The first try is still being answered, though its connection is gone.
    return problem.status in _BUSY or (problem.status == 409 and problem.slug == "idempotency-key-busy")


def _refused(method: str, path: str, response: httpx.Response, problem: Problem) -> Exception:
    if response.status_code >= 400:
        return refusal_of(problem)
    if response.has_redirect_location:
        to = urlsplit(response.headers["location"])
        there = f"{to.scheme}://{to.hostname or ''}" if to.scheme else "another path"
        return AnswerUnreadable(f"{method} {path}", f"leads to {shortened(there)}; name the server's own address")
    return AnswerUnreadable(f"{method} {path}", f"is {response.status_code}, which says nothing here")


def _retry_after_s(response: httpx.Response) -> float | None:
    told = response.headers.get("retry-after", "").strip()
    if told.isdecimal():
        return float(told[:6])
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    except ValueError:
        return None


def _may_pass(error: httpx.TransportError) -> bool:
    """Whether another try may go better."""
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return False
    causes: BaseException | None = error
    while causes is not None:
        if isinstance(causes, ssl.SSLCertVerificationError):
            return False
        causes = causes.__cause__ or causes.__context__
    return True


def _reason(error: httpx.TransportError, path: str) -> str:
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
        said = shortened(str(error)) or "no answer"
        return f"cannot be reached ({said}); is `penstock serve` running there?"
    if isinstance(error, httpx.TimeoutException):
        return f"did not answer {path} in time"
    return f"broke off at {path} ({shortened(str(error)) or type(error).__name__})"
