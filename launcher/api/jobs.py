"""Jobs: submit, look, list, cancel, retry, estimate."""

import re
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, BeforeValidator
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from launcher.admission import Caller
from launcher.api import documented, models
from launcher.api.answers import answer, dumped, written
from launcher.api.auth import Submitter, Viewer
from launcher.api.bodies import parsed
from launcher.api.estimating import estimate_object
from launcher.api.idempotency import OnceOnly, OnceOnlyJson
from launcher.api.lookup import own_job
from launcher.api.pages import Cursor, Limit, page, read_time_cursor, time_cursor
from launcher.api.scheduling import make_schedule, next_runs, schedule_id_of
from launcher.api.threads import in_thread, quickly
from launcher.api.view import JOBS_PATH, job_object, job_text, stamp, submission
from launcher.errors import NotNow, Problem, RequestError
from launcher.request.service import ScheduleRequest, job_request
from launcher.service import Service
from launcher.state.idempotency import Turn
from launcher.state.job import Status
from launcher.state.store import Filter, Position
from launcher.traceparent import current_traceparent

router = APIRouter(prefix=JOBS_PATH, tags=["jobs"])

# How long a timed sample may take, and a database that counts.
_ESTIMATE_BUSY_S = 75.0


def _time(text: Any) -> datetime:
    try:
        # A plus that was not written as %2B comes as a blank.
        at = datetime.fromisoformat(re.sub(r" ([0-9]{2}:[0-9]{2})$", r"+\1", str(text)))
        if at.tzinfo is None:
            raise ValueError
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"write a time with its zone, such as {_A_TIME}") from None


_Time = Annotated[datetime, BeforeValidator(_time)]
_A_TIME = "2025-03-15T10:00:00Z"
_Ratio = Annotated[
    float | None,
    Query(
        ge=0, le=1, allow_inf_nan=False, description="Bear this share of rejected rows from now on.", examples=[0.01]
    ),
]


def _distinct(statuses: list[Status]) -> list[Status]:
    return list(dict.fromkeys(statuses))


@router.post(
    "",
    status_code=202,
    summary="Submit a job, or a schedule of jobs",
    response_model=models.SubmittedJob | models.ScheduledJob,
    responses={
        202: documented.made(models.SubmittedJob | models.ScheduledJob, "It waits in the queue, or is scheduled."),
        **documented.posting_json(),
    },
    openapi_extra=documented.body("JobBody"),
)
def submit(request: Request, caller: Submitter, once: OnceOnlyJson) -> Response:
    """Score what `input` names with a model, and lay it down where `output` says.

    With `schedule`, again and again.
    """
    service: Service = request.app.state.service

    def act(turn: Turn) -> Response:
        asked = job_request(parsed(once.body), service.defaults)
        if asked.schedule is not None:
            schedule = make_schedule(
                service, caller, ScheduleRequest(asked.name, asked.schedule, asked), schedule_id_of(turn.job_id)
            )
            body = {
                "job_id": None,
                "status": "scheduled",
                "estimated_duration_minutes": None,
                "estimated_duration_seconds": None,
                "input_row_count": None,
                "schedule_id": schedule.id,
                "next_runs": [stamp(at) for at in next_runs(schedule)],
            }
            return answer(body, 202, {"Location": f"/api/v1/schedules/{schedule.id}"})
        job = service.admission.submit(
            caller,
            asked,
            job_id=turn.job_id,
            traceparent=current_traceparent(request.headers.get("traceparent")),
            reason="submitted",
        )
        service.wake()
        return answer(submission(job), 202, {"Location": f"{JOBS_PATH}/{job.id}"})

    return once(act)


@router.post(
    "/estimate",
    summary="What a job would take",
    response_model=models.EstimateAnswer,
    responses={
        200: documented.made(models.EstimateAnswer, "By a timed sample; nothing is written.", located=False),
        **documented.posting_json("unavailable"),
    },
    openapi_extra=documented.body("JobBody"),
)
async def estimate(request: Request, caller: Submitter, once: OnceOnlyJson) -> Response:
    """Load the model, score a sample of the rows, and tell what all of them would take. Nothing else is run."""
    service: Service = request.app.state.service

    def act(_: Turn) -> Response:
        asked = job_request(parsed(once.body), service.defaults)
        return answer(estimate_object(service.admission.estimate(caller, asked)))

    return await in_thread(request.app.state.threads.slow, once, act, _ESTIMATE_BUSY_S)


@router.get(
    "",
    summary="List jobs",
    response_model=models.JobPage,
    responses=documented.refusals("invalid-request"),
)
async def list_jobs(
    request: Request,
    caller: Viewer,
    status: Annotated[
        list[Status],
        AfterValidator(_distinct),
        Query(description="In this state; may be repeated.", max_length=50),
    ] = [],  # noqa: B006 (FastAPI copies it)
    model_id: Annotated[str | None, Query(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", examples=["churn"])] = None,
    schedule_id: Annotated[str | None, Query(pattern="^sched-[0-9a-f]{10}$", examples=["sched-0123456789"])] = None,
    since: Annotated[_Time | None, Query(description="Submitted at or after this time.", examples=[_A_TIME])] = None,
    until: Annotated[_Time | None, Query(description="Submitted before this time.", examples=[_A_TIME])] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The newest first. Jobs that are submitted meanwhile do not shift the pages."""
    service: Service = request.app.state.service
    after = read_time_cursor("j", cursor)
    wanted = Filter(caller.tenant, tuple(status), model_id, schedule_id, since, until)
    return await quickly(request.scope, _listed, service, wanted, limit, Position(*after) if after else None)


@router.get(
    "/{job_id}",
    summary="Where a job stands",
    response_model=models.JobAnswer,
    responses=documented.refusals("not-found", "invalid-request"),
)
async def show(request: Request, caller: Viewer, job_id: str) -> Response:
    """State, progress, when it will be done, and all else that is known of it."""
    return await quickly(request.scope, _shown, request.app.state.service, caller, job_id)


_CANCELLED: documented.Responses = {
    200: {"model": models.JobAnswer, "description": "It waited, and is cancelled."},
    202: {"model": models.JobAnswer, "description": "It was told to stop, and will have within 5 s."},
}


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    response_model=models.JobAnswer,
    responses={
        **{code: documented.made(**each, located=False) for code, each in _CANCELLED.items()},
        **documented.posting("not-found", "conflict"),
    },
)
def cancel(request: Request, caller: Submitter, job_id: str, once: OnceOnly) -> Response:
    """Within 5 s nothing of it runs, and nothing half done can be seen. What is staged is kept for a retry."""
    return once(lambda turn: _cancelled(request.app.state.service, caller, job_id, turn.since))


@router.delete(
    "/{job_id}",
    status_code=202,
    summary="Cancel a job, or remove it",
    response_model=models.JobAnswer,
    responses={
        **_CANCELLED,
        204: {"description": "With `purge`: nothing of it is left but what it published."},
        **documented.refusals("not-found", "conflict", "invalid-request", "unavailable"),
    },
)
async def delete(
    request: Request,
    caller: Submitter,
    job_id: str,
    purge: Annotated[
        bool,
        Query(
            description="Remove a job that is over: its record, its log, the result and the rejects that the service "
            "keeps, and what it staged at its destination. What it published elsewhere stays. May be repeated."
        ),
    ] = False,
) -> Response:
    """The same as `POST …/cancel`, and the job's record stays; with `purge`, a job that is over is gone."""
    service: Service = request.app.state.service
    if purge:
        return await in_thread(request.app.state.threads.purges, _purged, service, caller, job_id)
    return await run_in_threadpool(_cancelled, service, caller, job_id)


@router.post(
    "/{job_id}/retry",
    status_code=202,
    summary="Try a job again",
    response_model=models.JobAnswer,
    responses={
        202: documented.made(models.JobAnswer, "The job; with `only=rejected`, the new job."),
        **documented.posting("not-found", "conflict"),
    },
)
def retry(
    request: Request,
    caller: Submitter,
    job_id: str,
    once: OnceOnly,
    only: Annotated[
        Literal["rejected"] | None,
        Query(description="Make another job, of the rows that this one rejected; what passes is added to its result."),
    ] = None,
    max_reject_ratio: _Ratio = None,
) -> Response:
    """Make another attempt of a job that failed or was cancelled. Rows that are staged are not scored again."""
    service: Service = request.app.state.service

    def act(turn: Turn) -> Response:
        job = own_job(service, caller, job_id)
        if only is None:
            job = service.admission.retry(job, max_reject_ratio, since=turn.since)
        elif max_reject_ratio is None:
            job = service.admission.retry_rejected(job, since=turn.since)
        else:
            raise RequestError([Problem("max_reject_ratio", "does not go with only=rejected; leave one of them out")])
        service.wake()
        return answer(job_object(job, service.home.jobs), 202, {"Location": f"{JOBS_PATH}/{job.id}"})

    return once(act)


def _listed(service: Service, wanted: Filter, limit: int, after: Position | None) -> Response:
    found = service.store.page(wanted, limit + 1, after)
    as_text = partial(job_text, jobs=service.home.jobs)
    jobs, following = page(found, limit, as_text, lambda job: time_cursor("j", job.created_at, job.id))
    return written(b'{"jobs":[%s],"next_cursor":%s}' % (b",".join(jobs), dumped(following)))


def _shown(service: Service, caller: Caller, job_id: str) -> Response:
    return written(job_text(own_job(service, caller, job_id), service.home.jobs))


def _purged(service: Service, caller: Caller, job_id: str) -> Response:
    service.purge(own_job(service, caller, job_id))
    return Response(status_code=204)


def _cancelled(service: Service, caller: Caller, job_id: str, since: datetime | None = None) -> Response:
    job = own_job(service, caller, job_id)
    if not job.managed:
        raise NotNow(f"{job_id} was run by `penstock run`; stop it there")
    if since is not None and job.status == "cancelled" and job.times["cancelled"] >= since:
        # By this request, before whoever answered it died.
        return answer(job_object(job, service.home.jobs))
    if job.is_over:
        raise NotNow(f"{job_id} is {job.status} already; there is nothing to cancel")
    told = service.cancel(job)
    return answer(job_object(told, service.home.jobs), 200 if told.is_over else 202)
