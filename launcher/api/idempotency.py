"""A POST that comes again under its `Idempotency-Key` is answered as it was, and does nothing more."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Header, Request
from starlette.responses import Response

from launcher.api.auth import Submitter
from launcher.api.bodies import json_bytes
from launcher.errors import LauncherError, StoreUnavailable
from launcher.state.idempotency import Answer, Idempotency, Turn

# What is repeated of an answer beside status and body.
_KEPT_HEADERS = ("location",)
# Answering takes no longer. Should the service die over it, the request may be repeated after this.
BUSY_S = 15.0

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,255}$",
        description="Any name for this request. Sent again with the same name, within a day, it is answered as it was "
        "the first time, and nothing is done again. What was refused may be corrected and sent under the same name.",
        examples=["8a7f1c52-daily-2025-03-15"],
    ),
]


class Once:
    """Does what a request asks for once, however often the request comes.

    Args:
        body: of the request.
    """

    def __init__(self, kept: Idempotency, tenant: str, key: str | None, request_hash: str, body: bytes) -> None:
        self.body = body
        self._kept = kept
        self._tenant = tenant
        self._key = key
        self._hash = request_hash

    def __call__(self, act: Callable[[Turn], Response], busy_s: float = BUSY_S) -> Response:
        """Answer the request by `act`, or as it was answered before.

        A refusal lets the key go: nothing came of the request, so it may be corrected. After a failure, as of the
        store, something may have come of it all the same; the same request may be sent again, and no other.

        Args:
            act: is called again when the request comes again because the service died before it could answer.
            busy_s: how long `act` may take.

        Raises:
            KeyReused: the key came with another request.
            KeyBusy: another thread or launcher is answering it.
        """
        if self._key is None:
            return act(Turn())
        turn = self._kept.begin(self._tenant, self._key, self._hash, busy_s)
        if isinstance(turn, Answer):
            return _repeated(turn.status_code, turn.body)
        try:
            response = act(turn)
        except BaseException as error:
            is_refusal = isinstance(error, LauncherError) and not isinstance(error, StoreUnavailable)
            # Should the store be away: the turn ends by itself.
            with contextlib.suppress(StoreUnavailable):
                (self._kept.abandon if is_refusal else self._kept.put_off)(self._tenant, self._key, turn)
            raise
        self._kept.finish(self._tenant, self._key, turn, response.status_code, _as_text(response))
        return response


async def _once(request: Request, caller: Submitter, key: IdempotencyKey = None) -> Once:
    return _made(request, caller.tenant, key, await request.body())


async def _once_with_json(request: Request, caller: Submitter, key: IdempotencyKey = None) -> Once:
    return _made(request, caller.tenant, key, await json_bytes(request))


def _made(request: Request, tenant: str, key: str | None, body: bytes) -> Once:
    parts = (request.method, request.url.path, request.url.query)
    hashed = hashlib.sha256(json.dumps(parts).encode() + body).hexdigest()
    return Once(request.app.state.service.idempotency, tenant, key, hashed, body)


def _as_text(response: Response) -> str:
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return json.dumps({"headers": headers, "type": response.media_type, "body": bytes(response.body).decode()})


def _repeated(status_code: int, text: str) -> Response:
    kept = json.loads(text)
    headers = {**kept["headers"], "Idempotency-Replayed": "true"}
    return Response(kept["body"], status_code, headers, kept["type"])


# Of a POST without a body, and of one with a body in JSON.
OnceOnly = Annotated[Once, Depends(_once)]
OnceOnlyJson = Annotated[Once, Depends(_once_with_json)]
