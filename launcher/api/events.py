"""A job's life as it goes on: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Header, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from launcher.api import documented
from launcher.api.answers import dumped
from launcher.api.auth import Viewer, token_of
from launcher.api.lookup import own_job
from launcher.api.threads import in_thread, quickly
from launcher.api.view import JOBS_PATH, job_object, stamp
from launcher.errors import JobUnknown, Overloaded, StoreUnavailable, TooManyStreams, Unauthorized
from launcher.service import Service
from launcher.state.job import Job, Move

router = APIRouter(prefix=JOBS_PATH, tags=["jobs"])

# So often the store is asked; a job's process tells it of progress once a second.
_LOOK_EVERY_S = 0.5
# A comment, so that nobody between takes the silence for the end.
_QUIET_S = 15.0
# Each keeps a connection, and asks the store twice a second. A tenant has jobs at work by the handful, and whoever has
# more to follow can ask for lists; all together leave more than half of the connections to others.
_MOST_OF_TENANT = 100
_MOST_OF_ALL = 400

EVENT_STREAM = "text/event-stream"


_EVENT_SCHEMA = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "description": "The number of a move; not of progress."},
        "event": {"enum": ["state", "progress"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [{"$ref": "#/components/schemas/StateEvent"}, {"$ref": "#/components/schemas/JobAnswer"}]
            },
        },
    },
}


class Streams:
    """How many streams there are, by tenant. For the event loop alone."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def one_more(self, tenant: str) -> Iterator[None]:
        """Count a stream until the block ends.

        Raises:
            TooManyStreams, Overloaded: there are enough.
        """
        if self._open[tenant] >= _MOST_OF_TENANT:
            raise TooManyStreams(f"the tenant follows {_MOST_OF_TENANT} jobs already; end some, or ask now and then")
        if self._open.total() >= _MOST_OF_ALL:
            raise Overloaded(f"{_MOST_OF_ALL} jobs are followed already; ask now and then where this one stands")
        self._open[tenant] += 1
        try:
            yield
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]


class _Stream(StreamingResponse):
    """Events as an answer, which counts for as long as it takes."""

    def __init__(self, told: AsyncIterator[bytes], streams: Streams, tenant: str) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(told, headers=headers, media_type=EVENT_STREAM)
        self._streams = streams
        self._tenant = tenant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.one_more(self._tenant):
            await super().__call__(scope, receive, send)


class _Seen(NamedTuple):
    """A look at a job, and at its moves if there were any since the last one."""

    job: Job
    moves: list[Move] | None


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Events `state` (data: StateEvent) for each move so far and to come, and `progress` (data: "
            "JobAnswer) when it goes on. The stream ends with the job.",
            "content": {
                EVENT_STREAM: {
                    # As OpenAPI has it from 3.2 on, and readers of 3.1 pass over.
                    "itemSchema": _EVENT_SCHEMA,
                    "examples": {
                        "a move": {
                            "value": 'id: 3\nevent: state\ndata: {"job_id":"batch-0123456789","status":"running",'
                            '"previous_status":"preparing","reason":"500,000 rows","attempt":1,'
                            '"at":"2025-03-15T10:00:02Z"}\n\n'
                        }
                    },
                }
            },
        },
        **documented.refusals("not-found", "invalid-request", "too-many-requests", "overloaded"),
    },
)
async def events(
    request: Request,
    caller: Viewer,
    job_id: str,
    last_event_id: Annotated[
        str | None,
        Header(pattern="^[0-9]{1,9}$", description="Moves up to this one are not told again.", examples=["2"]),
    ] = None,
) -> StreamingResponse:
    """Each move with its number as the event's id; progress at least once a second while there is any."""
    service: Service = request.app.state.service
    job = await quickly(request.scope, own_job, service, caller, job_id)
    told = _told(request.app.state, token_of(request), job.id, int(last_event_id or 0))
    return _Stream(told, request.app.state.streams, caller.tenant)


async def _told(state: Any, token: str, job_id: str, told: int) -> AsyncIterator[bytes]:
    """The events of a job, from move `told` + 1 on, until it is over, the key is revoked, or the service stops."""
    service: Service = state.service
    known: Job | None = None
    shown: dict[str, Any] | None = None
    spoke_at = time.monotonic()
    while not state.closing.is_set():
        try:
            seen = await in_thread(state.threads.streams, _look, service, token, job_id, known)
        except (JobUnknown, Unauthorized):
            return
        except StoreUnavailable:
            # It comes back, or the client gives up.
            seen = None
        if seen is not None:
            pieces = []
            for n, move in enumerate(seen.moves or [], 1):
                if n > told:
                    pieces.append(_event("state", _move(job_id, move), n))
                    told = n
            now = job_object(seen.job, service.home.jobs)
            if now != shown:
                pieces.append(_event("progress", now))
            known, shown = seen.job, now
            if pieces:
                yield b"".join(pieces)
                spoke_at = time.monotonic()
            if known.is_over:
                return
        if time.monotonic() - spoke_at >= _QUIET_S:
            yield b": still here\n\n"
            spoke_at = time.monotonic()
        await asyncio.sleep(_LOOK_EVERY_S)


def _look(service: Service, token: str, job_id: str, known: Job | None) -> _Seen:
    if not service.ring.still_opens(token):
        raise Unauthorized("the API key is revoked")
    job = service.store.get(job_id)
    # Every move leaves its time.
    if known is not None and (job.status, job.attempt, job.times) == (known.status, known.attempt, known.times):
        return _Seen(job, None)
    moves = service.store.moves(job_id)
    if moves and moves[-1].to != job.status:
        # Moved in between: what is told of the job should be no older than its moves.
        job = service.store.get(job_id)
        moves = service.store.moves(job_id)
    return _Seen(job, moves)


def _move(job_id: str, move: Move) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "status": move.to,
        "previous_status": move.source,
        "reason": move.reason,
        "attempt": move.attempt,
        "at": stamp(move.at),
    }


def _event(name: str, data: dict[str, Any], number: int | None = None) -> bytes:
    head = b"" if number is None else b"id: %d\n" % number
    # JSON has no line breaks of its own.
    return head + b"event: %s\ndata: %s\n\n" % (name.encode(), dumped(data))
