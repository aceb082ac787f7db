"""HTTP on a connection: uvicorn's, with bounds on what may be sent before a request is known, and on how long it takes.

uvicorn and httptools have none of their own: a path may grow for ever (each piece of it copies all before), headers
fill the memory, and who sends nothing keeps a descriptor. A caller is not known before the head of a request is
complete, so all this holds for everybody.

Not promised: what an answer costs. Nobody is cut off while one is worked out, or a stream of events goes on.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import httptools
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from launcher.api.documented import OPEN_PATHS
from launcher.api.problems import problem

# Of what comes behind a refusal, so much is read: who is still writing may not see the answer otherwise.
_DRAINED_BYTES = 16 * 1024 * 1024
# As much of a path as a problem repeats.
_SHOWN_BYTES = 200
# What is told once need not be told again so soon.
_TOLD_EVERY_S = 60.0

_log = logging.getLogger("launcher.serve")


@dataclass(frozen=True)
class Bounds:
    """What a server bears.

    Args:
        connections: that are open at once. Beyond, whichever has waited longest for its client gives way.
        spare: beyond these, where nobody waits: they are told so, and health checks are answered.
        head_bytes: of the request line and the headers; ours have some 300, those of browsers a few thousand.
        headers: of one request; as many as Apache bears (LimitRequestFields).
        pipelined: requests that wait for the answer to another on the same connection. Hardly any client has one.
        head_s: from the first byte, or from the opening of the connection, to the end of the headers.
        silence_s: between two pieces of a body.
        body_s: from the end of the headers to the end of the body: 1 MiB at 17 KiB/s.
        stalled_s: in which a client takes nothing of its answer.
        linger_s: after a refusal, for the client to read it.
    """

    connections: int = 1000
    spare: int = 50
    head_bytes: int = 64 * 1024
    headers: int = 100
    pipelined: int = 8
    head_s: float = 10.0
    silence_s: float = 30.0
    body_s: float = 60.0
    stalled_s: float = 60.0
    linger_s: float = 2.0


def bounded(bounds: Bounds) -> type["BoundedProtocol"]:
    """The protocol of one server, for uvicorn's `http`."""

    class Bounded(BoundedProtocol):
        waiting = {}
        told = [float("-inf")]

    Bounded.bounds = bounds
    return Bounded


class BoundedProtocol(HttpToolsProtocol):
    """One connection; see `bounded`."""

    bounds: ClassVar[Bounds]
    # The server's connections that wait for their clients, be it for a request or for the rest of one; the longest
    # first.
    waiting: ClassVar[dict["BoundedProtocol", None]]
    # When it was last told that there are too many.
    told: ClassVar[list[float]]

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.url = b""
        # Bytes since the parser made the last thing of them: the end of a head, a piece of a body, the end of one.
        self._undelivered = 0
        self._in_head = True
        self._begun = False
        self._requests = 0
        # Where it was at the end of the last piece: how many requests were complete, and whether it was in a head.
        self._phase = (0, True)
        self._phase_began = self._heard = self.loop.time()
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._fault: tuple[str, str] | None = None
        self._refused = False
        self._drained = 0
        self._is_spare = False

    # What happens to a connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let a client in, perhaps for another."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections and not self._has_room():
            transport.abort()
            return
        self.waiting[self] = None
        self._late = self.loop.call_later(self.bounds.head_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of all that waits for the connection."""
        self.waiting.pop(self, None)
        for handle in (self._late, self._stalled):
            if handle is not None:
                handle.cancel()
        self._late = self._stalled = None
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what came, in pieces so small that each can be judged before the next."""
        self._unset_keepalive_if_required()
        at = 0
        while at < len(data) and not self._refused:
            piece = data[at : at + self.bounds.head_bytes - self._undelivered]
            at += len(piece)
            self._undelivered += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade:
                # To nothing that is offered here: it is answered as if it had not been asked for.
                pass
            except httptools.HttpParserError:
                self._refuse(*self._fault or ("malformed-request", "what came is no request; send HTTP/1.1"))
                return
            if self._undelivered >= self.bounds.head_bytes:
                kib = self.bounds.head_bytes // 1024
                self._refuse("head-too-large", f"the path and the headers have over {kib} KiB; send less")
                return
            # Those behind a body are among them.
            if self.headers is not None and len(self.headers) > self.bounds.headers:
                self._refuse(*self._too_many_headers())
                return
        if self._refused:
            self._drained += len(data) - at
            if self._drained > _DRAINED_BYTES:
                self.transport.abort()
            return
        self._set_clock()

    def eof_received(self) -> None:
        """The client sends no more, and the connection is closed once it has taken everything."""
        self._watch_writing()

    def pause_writing(self) -> None:
        """The client does not take its answer as fast as it is made."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    # What the parser finds.

    def on_message_begin(self) -> None:
        """The first byte of a request line came."""
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is there."""
        if len(self.headers) > self.bounds.headers:
            self._fault = self._too_many_headers()
            raise ValueError("too many headers")
        if len(self.pipeline) >= self.bounds.pipelined:
            # Refused without a word, as others are still to be answered.
            raise ValueError("too many requests at once")
        self._undelivered = 0
        self._in_head = False
        super().on_headers_complete()
        if self._is_spare:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of a body came."""
        self._undelivered = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        self._undelivered = 0
        self._in_head = True
        self._begun = False
        self._requests += 1
        if not self.cycle.response_complete:
            self.waiting.pop(self, None)
        super().on_message_complete()

    # What becomes of requests.

    def on_response_complete(self) -> None:
        """A request is answered."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_writing()
        elif self._begun or self.cycle.response_complete:
            self.waiting.pop(self, None)
            self.waiting[self] = None

    def timeout_keep_alive_handler(self) -> None:
        """No other request came."""
        super().timeout_keep_alive_handler()
        # Closed is it once the client has taken everything.
        self._watch_writing()

    def _set_clock(self) -> None:
        """Wait as long as is due for what has to come next."""
        # Before a request there may be empty lines, which begin none.
        if not self._begun and not (self._in_head and self._undelivered):
            if self._late is not None:
                self._late.cancel()
                self._late = None
            # A body may be complete after its answer, and only before that does uvicorn set the time.
            if (self.cycle is None or self.cycle.response_complete) and self.timeout_keep_alive_task is None:
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
            return
        self._heard = self.loop.time()
        phase = (self._requests, self._in_head)
        if phase != self._phase:
            self._phase, self._phase_began = phase, self._heard
            if self._late is not None:
                self._late.cancel()
                self._late = None
        if self._late is None:
            self._late = self.loop.call_at(self._due(), self._look)

    def _due(self) -> float:
        """When the next thing should be there, by the loop's clock."""
        if self._in_head:
            return self._phase_began + self.bounds.head_s
        return min(self._phase_began + self.bounds.body_s, self._heard + self.bounds.silence_s)

    def _look(self) -> None:
        """Close the connection if its client is late."""
        self._late = None
        now = self.loop.time()
        if self.flow.read_paused:
            # It is us who keep the client waiting.
            self._phase_began = self._heard = now
        if now < self._due():
            self._late = self.loop.call_at(self._due(), self._look)
            return
        self.transport.close()
        self._watch_writing()

    def _watch_writing(self, before: int | None = None) -> None:
        """Cut the connection if its client takes nothing of what is to be sent; slow ones may take their time."""
        if before is None and self._stalled is not None:
            return
        left = self.transport.get_write_buffer_size()
        self._stalled = None
        if before is not None and left >= before:
            self.transport.abort()
        elif left:
            self._stalled = self.loop.call_later(self.bounds.stalled_s, self._watch_writing, left)

    # Refusals.

    def _too_many_headers(self) -> tuple[str, str]:
        return "head-too-large", f"the request has over {self.bounds.headers} headers; send fewer"

    def _refuse(self, slug: str, detail: str) -> None:
        """Answer with a problem, read no more, and close the connection in a moment."""
        self._refused = True
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self.cycle is not None and not self.cycle.response_complete:
            # It would come within another answer.
            self.transport.close()
            self._watch_writing()
            return
        path = self.url.partition(b"?")[0][:_SHOWN_BYTES].decode("ascii", "replace")
        answer = problem(slug, path or "/", detail, headers={"Connection": "close"})
        lines = [*self.server_state.default_headers, *answer.raw_headers]
        self.transport.write(
            b"".join([STATUS_LINE[answer.status_code], *(b"%s: %s\r\n" % line for line in lines), b"\r\n", answer.body])
        )
        self.transport.write_eof()
        self._late = self.loop.call_later(self.bounds.linger_s, self.transport.abort)

    def _has_room(self) -> bool:
        """Find a place for a connection too many."""
        longest = next(iter(self.waiting), None)
        if longest is not None:
            del self.waiting[longest]
            self.connections.discard(longest)
            longest.transport.abort()
        too_many = len(self.connections) - self.bounds.connections
        if too_many <= 0:
            return True
        now = self.loop.time()
        if now - self.told[0] >= _TOLD_EVERY_S:
            self.told[0] = now
            _log.warning("all %d connections are in use, so others are refused", self.bounds.connections)
        self._is_spare = True
        self.app = self._answer_health
        return too_many <= self.bounds.spare

    async def _answer_health(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Whoever watches the service has to see that it lives.
        if scope["path"] in OPEN_PATHS:
            await self.config.loaded_app(scope, receive, send)
            return
        answer = problem("overloaded", scope["path"], "all connections are in use; try again in a moment")
        await answer(scope, receive, send)


__all__ = ["BoundedProtocol", "Bounds", "bounded"]
