"""Sending one webhook: a job's move as a CloudEvent, signed, to an address that was judged.

Events are CloudEvents 1.0, JSON, structured mode (https://github.com/cloudevents/spec). Signatures are those of
Standard Webhooks (https://www.standardwebhooks.com): HMAC-SHA256 of `id.timestamp.body`. Receivers that are written in
Python may use `verify`, which is all that it takes.

Delivered at least once: who answers too late gets the same event again, under the same `webhook-id`.
"""

import base64
import binascii
import hashlib
import hmac
import json
import random
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import httpcore
import httpx

from launcher.errors import AddressForbidden, HostUnknown, SecretUnreadable, WebhookFailed
from launcher.reach.egress import Egress

CONTENT_TYPE = "application/cloudevents+json"
MAX_TRIES = 12
# What a receiver is given at most, whatever is asked for.
MAX_TIMEOUT_S = 10.0
# Standard Webhooks: clocks may differ, and copies must not be sent for ever.
TOLERANCE_S = 300.0

_SECRET_PREFIX = "whsec_"
_MAX_ANSWER_BYTES = 64 * 1024
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 3600.0
_PORTS = {"http": 80, "https": 443}
# Told to come later; every other 4xx will be answered the same the next time.
_LATER = (408, 429)


def cloud_event(
    event_id: str, source: str, status: str, job_id: str, at: datetime, data: Mapping[str, Any]
) -> dict[str, Any]:
    """The event of a job's move to `status`, as JSON.

    Args:
        event_id: the same for the same event, however often it is sent; receivers tell copies by it and `source`.
        source: the service, as a URI or the path of one.
        job_id: whose move it is: the event's subject.
        at: when it moved.
        data: what there is to say, JSON.
    """
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": f"com.penstock.job.{status}",
        "subject": job_id,
        "time": at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": dict(data),
    }


def sign(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of a webhook: `v1,` and the HMAC in base64.

    Args:
        secret: `whsec_` and the key in base64, or any other text, which is the key itself.
        id: the `webhook-id`.
        timestamp: the `webhook-timestamp`, in seconds since the epoch.

    Raises:
        SecretUnreadable: the secret is empty, or not base64 behind its `whsec_`.
    """
    signed = b".".join((id.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode()


def verify(
    secret: str, headers: Mapping[str, str], body: bytes, now: datetime, tolerance_s: float = TOLERANCE_S
) -> bool:
    """Whether a webhook was signed with `secret`, at most `tolerance_s` from `now`.

    A wrong signature takes as long to tell however wrong it is.

    Args:
        headers: of the request, in any case; others are not looked at.
        body: of the request, byte for byte.

    Raises:
        SecretUnreadable: see `sign`.
    """
    found = {name.lower(): value for name, value in headers.items()}
    id, stamp = found.get("webhook-id", ""), found.get("webhook-timestamp", "")
    # As a sender writes them, and no otherwise: a dot in the id could take over a piece of the timestamp.
    if not re.fullmatch(r"[!-\-/-~]+", id) or not re.fullmatch(r"[1-9][0-9]{0,11}", stamp):
        return False
    if abs(now.timestamp() - int(stamp)) > tolerance_s:
        return False
    expected = sign(secret, id, int(stamp), body).encode()
    # While a secret is changed, a sender may sign with the old one and the new one.
    signatures = found.get("webhook-signature", "").encode("utf-8", "replace").split(b" ")
    return any(hmac.compare_digest(signature, expected) for signature in signatures)


def check_secret(secret: str) -> None:
    """Look whether webhooks can be signed with `secret`.

    Raises:
        SecretUnreadable: see `sign`.
    """
    _key(secret)


def next_try(tries: int, chance: Callable[[], float] = random.random) -> float | None:
    """How many seconds to wait after so many failed tries; None to give up.

    It doubles from 5 s on, never over an hour, and varies so that many that failed together do not come back together.

    Args:
        tries: 1 or more.
        chance: from 0 to below 1.
    """
    if tries >= MAX_TRIES:
        return None
    return min(_FIRST_WAIT_S * 2.0 ** (tries - 1), _LONGEST_WAIT_S / 2) * (1 + chance())


def send(
    url: str,
    event: Mapping[str, Any],
    secret: str | None,
    egress: Egress,
    timeout_s: float = MAX_TIMEOUT_S,
    tls: ssl.SSLContext | None = None,
    whose: str = "",
) -> None:
    """Post an event, once. It was taken if the answer's status is 2xx; nothing else of the answer matters.

    Redirects are not followed, and proxies of the environment not used.

    Args:
        url: http or https.
        event: from `cloud_event`.
        secret: what signs it; None for no signature.
        egress: which addresses may be reached; connected is to one of those that it gave, and to no other.
        timeout_s: for all together, at most 10, save for looking up the host, see `Egress`.
        tls: what certificates are trusted; those of `SSL_CERT_FILE`, or else of certifi, when None.
        whose: the tenant whose it is.

    Raises:
        WebhookFailed: it was not taken; `retry` says whether the same may be taken later.
        SecretUnreadable: see `sign`.
    """
    target, authority = _target(url)
    body = json.dumps(event, separators=(",", ":")).encode()
    headers = {
        "host": authority,
        "content-type": CONTENT_TYPE,
        "user-agent": "penstock",
        "accept": "*/*",
        "connection": "close",
    }
    event_id, timestamp = str(event["id"]), int(time.time())
    headers |= {"webhook-id": event_id, "webhook-timestamp": str(timestamp)}
    if secret is not None:
        headers["webhook-signature"] = sign(secret, event_id, timestamp, body)
    deadline = _Deadline(min(timeout_s, MAX_TIMEOUT_S))
    backend = _JudgedBackend(egress, deadline, whose)
    host = target.host.decode()
    try:
        with (
            httpcore.ConnectionPool(ssl_context=tls or _trusted(), network_backend=backend) as pool,
            pool.stream("POST", target, headers=list(headers.items()), content=body) as response,
        ):
            _read_away(response)
    except AddressForbidden as error:
        raise WebhookFailed(str(error), retry=False) from error
    except HostUnknown as error:
        raise WebhookFailed(str(error), retry=True) from error
    except httpcore.TimeoutException as error:
        raise WebhookFailed(f"{host} did not answer within {deadline.timeout_s:g} s", retry=True) from error
    except httpcore.ConnectError as error:
        raise WebhookFailed(f"{host} cannot be connected to: {_line(error)}", retry=True) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise WebhookFailed(f"{host} broke off before it answered", retry=True) from error
    _judge(host, response.status)


def check_url(url: str) -> None:
    """Look whether a webhook can be sent to `url`, without looking up its host.

    Raises:
        WebhookFailed: it cannot.
    """
    _target(url)


def _target(url: str) -> tuple[httpcore.URL, str]:
    """Where to send, and the `Host` that is named there."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise WebhookFailed("the webhook's url cannot be read; write https://host/path", retry=False) from error
    if parsed.scheme not in _PORTS or not parsed.host:
        raise WebhookFailed("the webhook's url is neither https nor http; write https://host/path", retry=False)
    if parsed.userinfo:
        raise WebhookFailed(
            "the webhook's url holds a user or a password; leave them out, and check the signature instead", retry=False
        )
    port = _PORTS[parsed.scheme] if parsed.port is None else parsed.port
    if not 0 < port < 65_536:
        raise WebhookFailed("the webhook's url has a port that cannot be; use one from 1 to 65535", retry=False)
    target = httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=port, target=parsed.raw_path)
    return target, parsed.netloc.decode()


def _judge(host: str, status: int) -> None:
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        raise WebhookFailed(f"{host} answered {status}, a redirect, and none is followed; name its target", retry=True)
    retry = not 400 <= status < 500 or status in _LATER
    raise WebhookFailed(f"{host} answered {status}", retry=retry)


def _read_away(response: httpcore.Response) -> None:
    """Take some of the answer, so that its sender is not cut off; that it was taken is known already."""
    left = _MAX_ANSWER_BYTES
    try:
        for part in response.iter_stream():
            left -= len(part)
            if left <= 0:
                return
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        return


class _Deadline:
    """So many seconds, for all that is done together."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._until = time.monotonic() + timeout_s

    def left_s(self, error: type[Exception]) -> float:
        """The seconds that are left.

        Raises:
            error: there are none.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise error
        return left


class _JudgedBackend(httpcore.NetworkBackend):
    """Connects to the addresses that were judged. TLS still asks for the certificate of the host that was named."""

    def __init__(self, egress: Egress, deadline: _Deadline, whose: str) -> None:
        self._egress = egress
        self._whose = whose
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._egress.resolve(host, port, self._whose)
        for n, address in enumerate(addresses):
            # One that swallows packets leaves some time for the others.
            patience_s = self._deadline.left_s(httpcore.ConnectTimeout) / (len(addresses) - n)
            try:
                stream = self._sockets.connect_tcp(address, port, patience_s, local_address, socket_options)
                return _TimedStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if n == len(addresses) - 1:
                    raise
        raise httpcore.ConnectError("it has no address")


class _TimedStream(httpcore.NetworkStream):
    """A connection whose every step has the time that is left for all of them."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left_s(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left_s(httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left_s = self._deadline.left_s(httpcore.ConnectTimeout)
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, left_s), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


@cache
def _trusted() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _key(secret: str) -> bytes:
    if not secret.startswith(_SECRET_PREFIX):
        key = secret.encode("utf-8", "surrogatepass")
    else:
        encoded = secret.removeprefix(_SECRET_PREFIX)
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise SecretUnreadable(
                "the webhook's secret begins with whsec_ and does not go on in base64; write it as it was given to you"
            ) from error
    if not key:
        raise SecretUnreadable("the webhook's secret is empty; write a long random one")
    return key


def _line(error: Exception) -> str:
    """What the system said of a connection, on one line."""
    text = " ".join(str(error).split())
    return text[:200] or "no reason was given"
