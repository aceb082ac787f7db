"""Schedules: jobs that are made again and again."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from launcher.api import documented, models
from launcher.api.answers import answer
from launcher.api.auth import Submitter, Viewer
from launcher.api.bodies import JsonBytes, parsed
from launcher.api.idempotency import OnceOnly, OnceOnlyJson
from launcher.api.lookup import own_schedule
from launcher.api.pages import Cursor, Limit, page, read_time_cursor, time_cursor
from launcher.api.scheduling import change_schedule, make_schedule, schedule_id_of, schedule_object
from launcher.api.view import JOBS_PATH, submission
from launcher.request.service import ScheduleChange, schedule_change_request, schedule_request
from launcher.service import Service
from launcher.state.idempotency import Turn
from launcher.state.job import new_id
from launcher.state.schedules import SchedulePosition

_PATH = "/api/v1/schedules"

router = APIRouter(prefix=_PATH, tags=["schedules"])


@router.post(
    "",
    status_code=201,
    summary="Make a schedule",
    response_model=models.ScheduleAnswer,
    responses={
        201: documented.made(models.ScheduleAnswer, "It runs from now on, if it is enabled."),
        **documented.posting_json(),
    },
    openapi_extra=documented.body("ScheduleBody"),
)
def make(request: Request, caller: Submitter, once: OnceOnlyJson) -> Response:
    """Its job is looked at as its next run would be: what it names has to be there."""
    service: Service = request.app.state.service

    def act(turn: Turn) -> Response:
        asked = schedule_request(parsed(once.body), service.defaults)
        schedule = make_schedule(service, caller, asked, schedule_id_of(turn.job_id))
        return answer(schedule_object(schedule), 201, {"Location": f"{_PATH}/{schedule.id}"})

    return once(act)


@router.get(
    "",
    summary="List schedules",
    response_model=models.SchedulePage,
    responses=documented.refusals("invalid-request"),
)
def list_schedules(request: Request, caller: Viewer, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """The newest first."""
    service: Service = request.app.state.service
    after = read_time_cursor("t", cursor)
    found = service.schedules.page(caller.tenant, limit + 1, SchedulePosition(*after) if after else None)
    listed, following = page(found, limit, schedule_object, lambda each: time_cursor("t", each.created_at, each.id))
    return answer({"schedules": listed, "next_cursor": following})


@router.get(
    "/{schedule_id}",
    summary="A schedule",
    response_model=models.ScheduleAnswer,
    responses=documented.refusals("not-found", "invalid-request"),
)
def show(request: Request, caller: Viewer, schedule_id: str) -> Response:
    """When it runs, what, and how the last run went."""
    return answer(schedule_object(own_schedule(request.app.state.service, caller, schedule_id)))


@router.patch(
    "/{schedule_id}",
    summary="Change a schedule",
    response_model=models.ScheduleAnswer,
    responses=documented.refusals(
        "not-found", "malformed-json", "unsupported-media-type", "body-too-large", "invalid-request"
    ),
    openapi_extra=documented.body("ScheduleChangeBody"),
)
def change(request: Request, caller: Submitter, schedule_id: str, body: JsonBytes) -> Response:
    """What is left out stays as it is."""
    service: Service = request.app.state.service
    schedule = own_schedule(service, caller, schedule_id)
    asked = schedule_change_request(parsed(body), service.defaults)
    return answer(schedule_object(change_schedule(service, caller, schedule, asked)))


@router.post(
    "/{schedule_id}/pause",
    summary="Pause a schedule",
    response_model=models.ScheduleAnswer,
    responses={
        200: documented.made(models.ScheduleAnswer, "It does not run until it is resumed.", located=False),
        **documented.posting("not-found"),
    },
)
def pause(request: Request, caller: Submitter, schedule_id: str, once: OnceOnly) -> Response:
    """Jobs that it made go on."""
    return once(lambda _: _enabled(request, caller, schedule_id, False))


@router.post(
    "/{schedule_id}/resume",
    summary="Resume a schedule",
    response_model=models.ScheduleAnswer,
    responses={
        200: documented.made(models.ScheduleAnswer, "It runs again.", located=False),
        **documented.posting("not-found"),
    },
)
def resume(request: Request, caller: Submitter, schedule_id: str, once: OnceOnly) -> Response:
    """Runs that were due while it was paused are not made up for."""
    return once(lambda _: _enabled(request, caller, schedule_id, True))


@router.post(
    "/{schedule_id}/run",
    status_code=202,
    summary="Run a schedule's job now",
    response_model=models.SubmittedJob,
    responses={
        202: documented.made(models.SubmittedJob, "It waits in the queue."),
        **documented.posting("not-found"),
    },
)
def run(request: Request, caller: Submitter, schedule_id: str, once: OnceOnly) -> Response:
    """Beside its times, also of one that is paused."""
    service: Service = request.app.state.service

    def act(turn: Turn) -> Response:
        schedule = own_schedule(service, caller, schedule_id)
        job = service.timekeeper.run_now(schedule, turn.job_id or new_id())
        service.wake()
        return answer(submission(job), 202, {"Location": f"{JOBS_PATH}/{job.id}"})

    return once(act)


@router.delete(
    "/{schedule_id}",
    status_code=204,
    summary="Delete a schedule",
    response_class=Response,
    responses=documented.refusals("not-found", "invalid-request"),
)
def delete(request: Request, caller: Submitter, schedule_id: str) -> Response:
    """Jobs that it made stay."""
    service: Service = request.app.state.service
    schedule = own_schedule(service, caller, schedule_id)
    service.schedules.delete(schedule.id, caller.tenant)
    return Response(status_code=204)


def _enabled(request: Request, caller: Submitter, schedule_id: str, enabled: bool) -> Response:
    service: Service = request.app.state.service
    schedule = own_schedule(service, caller, schedule_id)
    return answer(schedule_object(change_schedule(service, caller, schedule, ScheduleChange(enabled=enabled))))
