"""A job's life as it goes on: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Header, Request
from starlette.responses import StreamingResponse

from launcher.api import documented
from launcher.api.answers import dumped
from launcher.api.auth import Viewer
from launcher.api.lookup import own_job
from launcher.api.threads import in_thread, quickly
from launcher.api.view import JOBS_PATH, job_object, stamp
from launcher.errors import JobUnknown, StoreUnavailable
from launcher.service import Service
from launcher.state.job import Job, Move

router = APIRouter(prefix=JOBS_PATH, tags=["jobs"])

# So often the store is asked; a job's process tells it of progress once a second.
_LOOK_EVERY_S = 0.5
# A comment, so that nobody between takes the silence for the end.
_QUIET_S = 15.0

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
        **documented.refusals("not-found", "invalid-request"),
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
    stream = _told(request.app.state, job.id, int(last_event_id or 0))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, headers=headers, media_type=EVENT_STREAM)


async def _told(state: Any, job_id: str, told: int) -> AsyncIterator[bytes]:
    """The events of a job, from move `told` + 1 on, until it is over or the service stops."""
    service: Service = state.service
    known: Job | None = None
    shown: dict[str, Any] | None = None
    spoke_at = time.monotonic()
    while not state.closing.is_set():
        try:
            seen = await in_thread(state.threads.streams, _look, service, job_id, known)
        except JobUnknown:
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
            now = job_object(seen.job)
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


def _look(service: Service, job_id: str, known: Job | None) -> _Seen:
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
