"""What happens to every request, whatever it asks for."""

import logging
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from launcher.api.problems import problem_of
from launcher.api.threads import quickly
from launcher.errors import BodyTooLarge, CallerForbidden, StoreUnavailable
from launcher.keyring import Keyring

MAX_BODY_BYTES = 1024 * 1024
# Of a body that is too large, so much is read before the answer: who is still writing may not see it otherwise.
_DRAINED_BYTES = 16 * MAX_BODY_BYTES
# Under this name a request carries what its log line will say.
FACTS = "penstock"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_LOOPBACK_CLIENTS = ("127.", "::1", "::ffff:127.")
_JOB_ID = re.compile(r"/(batch-[0-9a-f]{10})(/|$)")
# Asked for every few seconds, by whoever watches the service.
_NOT_LOGGED = ("/healthz", "/readyz")
_REMEDY = "`penstock keys create` makes a key"

_log = logging.getLogger("launcher.access")


class AccessLog:
    """Gives each request an id, says in one line how it went, and answers for what nobody foresaw."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        facts: dict[str, Any] = {"request_id": request_id}
        scope[FACTS] = facts
        began = time.perf_counter()

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts["status_code"] = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except ClientDisconnect:
            # Before the end of its body, or it was too slow: nobody is there to be answered, and nothing is broken.
            return
        except Exception as error:
            if "status_code" in facts:
                # Too late for another answer: the connection is cut, so that nobody takes the half for the whole.
                raise
            await problem_of(error, scope["path"])(scope, receive, noting_send)
        finally:
            self._tell(scope, facts, time.perf_counter() - began)

    @staticmethod
    def _tell(scope: Scope, facts: dict[str, Any], seconds: float) -> None:
        path = scope["path"]
        if path in _NOT_LOGGED and facts.get("status_code") == 200:
            return
        job = _JOB_ID.search(path)
        told = {"method": scope["method"], "path": path, "duration_ms": round(1000 * seconds, 2), **facts}
        if job is not None:
            told.setdefault("job_id", job[1])
        _log.info("%s %s %s", scope["method"], path, facts.get("status_code", "cut off"), extra=told)


class LoopbackOnly:
    """While no key is asked for, answers this machine alone, and no page of another site in its browser.

    A page elsewhere can have a browser send what it likes to this address, also under a name of the page's own that it
    lets lead here (DNS rebinding); it cannot forge `Host` and `Origin`.
    """

    def __init__(self, app: ASGIApp, ring: Keyring) -> None:
        self._app = app
        self._ring = ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http":
            try:
                keyless = self._ring.remembers_keyless()
                if keyless is None:
                    keyless = await quickly(scope, self._ring.is_keyless)
                if keyless:
                    _check_local(scope)
            except (CallerForbidden, StoreUnavailable) as error:
                await problem_of(error, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _check_local(scope: Scope) -> None:
    client = scope.get("client")
    if client is not None and not client[0].startswith(_LOOPBACK_CLIENTS):
        raise CallerForbidden(f"without an API key only this machine is answered; {_REMEDY}")
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if re.sub(r":[0-9]*$", "", host).lower() not in _LOOPBACK_HOSTS:
        raise CallerForbidden(f"without an API key the Host has to be localhost or 127.0.0.1; {_REMEDY}")
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        raise CallerForbidden(f"without an API key no page of another site is answered; {_REMEDY}")


class BodyLimit:
    """Reads no more of a body than anybody needs."""

    def __init__(self, app: ASGIApp, most_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; who reads too much of it gets a `BodyTooLarge`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        too_large = declared.isdecimal() and int(declared) > self._most_bytes
        read = 0

        async def counting_receive() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most_bytes:
                raise BodyTooLarge(f"the body has over {self._most_bytes:,} bytes; send at most 1 MiB")
            return message

        if not too_large:
            await self._app(scope, counting_receive, send)
            return
        if int(declared) <= _DRAINED_BYTES:
            while (await receive()).get("more_body", False):
                continue
        error = BodyTooLarge(f"the body has {int(declared):,} bytes; send at most 1 MiB")
        response = problem_of(error, scope["path"])
        response.headers["Connection"] = "close"
        await response(scope, receive, send)
