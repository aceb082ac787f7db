"""Schedules are made and changed; what their jobs name is looked at then, and not first at night."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from launcher.admission import Caller
from launcher.api.view import stamp
from launcher.cron import Cron
from launcher.errors import LauncherError, Problem, RequestError, ScheduleUnknown
from launcher.request.service import JobRequest, ScheduleChange, ScheduleRequest, job_request
from launcher.service import Service
from launcher.state.job import new_id
from launcher.state.schedules import Schedule, new_schedule_id
from launcher.templates import check, render

# Runs that are told of.
_TOLD = 5


def schedule_id_of(job_id: str | None) -> str:
    """The id of a schedule that a request makes, given the id that its job would have."""
    return new_schedule_id() if job_id is None else job_id.replace("batch-", "sched-")


def make_schedule(service: Service, caller: Caller, asked: ScheduleRequest, schedule_id: str) -> Schedule:
    """Record a schedule. One of this id that the caller has already is the one that was asked for.

    Raises:
        RequestError: names every field that is wrong, also of its job.
        RoleLacking: its job brings code.
    """
    timing = asked.schedule
    schedule = Schedule(
        id=schedule_id,
        tenant=caller.tenant,
        cron=timing.cron,
        timezone=timing.timezone,
        job=asked.job.template(),
        role=caller.role,
        created_at=datetime.now(UTC),
        name=asked.name,
        enabled=timing.enabled,
        missed=timing.missed,
        overlap=timing.overlap,
        webhook_secret=_secret(asked.job),
        next_at=_next(timing.cron, timing.timezone),
    )
    _try_out(service, caller, schedule)
    try:
        return service.schedules.get(schedule_id, caller.tenant)
    except ScheduleUnknown:
        service.schedules.add(schedule)
        return schedule


def change_schedule(service: Service, caller: Caller, schedule: Schedule, change: ScheduleChange) -> Schedule:
    """Change what is asked for.

    Its times are reckoned from now on; those that passed while it was paused are gone. Whoever writes its job lends it
    their role, no more.

    Raises:
        RequestError: names every field that is wrong, also of its job.
        RoleLacking: its job brings code.
        ScheduleUnknown: it was deleted meanwhile.
    """
    names = ("cron", "timezone", "enabled", "missed", "overlap")
    changes: dict[str, Any] = {name: value for name in names if (value := getattr(change, name)) is not None}
    if change.job is not None:
        changes |= {
            "job": change.job.template(),
            "role": caller.role,
            "webhook_secret": _secret(change.job) or _kept_secret(schedule, change.job),
        }
    after = replace(schedule, **changes)
    if change.job is not None or "cron" in changes or "timezone" in changes:
        _try_out(service, caller, after)
    if {"cron", "timezone"} & changes.keys() or (after.enabled and not schedule.enabled):
        changes["next_at"] = _next(after.cron, after.timezone)
    return service.schedules.update(schedule.id, caller.tenant, **changes)


def next_runs(schedule: Schedule) -> list[datetime]:
    """The next times that it runs; none while it is paused."""
    if not schedule.enabled:
        return []
    return Cron(schedule.cron, schedule.timezone).next_times(datetime.now(UTC), _TOLD)


def schedule_object(schedule: Schedule) -> dict[str, Any]:
    """The schedule as the API tells it."""
    return {
        "schedule_id": schedule.id,
        "name": schedule.name,
        "schedule": {
            "cron": schedule.cron,
            "timezone": schedule.timezone,
            "enabled": schedule.enabled,
            "missed": schedule.missed,
            "overlap": schedule.overlap,
        },
        "job": dict(schedule.job),
        "enabled": schedule.enabled,
        "next_runs": [stamp(at) for at in next_runs(schedule)],
        "last_run_at": stamp(schedule.last_at),
        "last_job_id": schedule.last_job_id,
        "last_error": schedule.last_error,
        "created_at": stamp(schedule.created_at),
    }


def _try_out(service: Service, caller: Caller, schedule: Schedule) -> None:
    """See that its next run makes a job, as things stand now. Nothing is counted, and nothing made."""
    wrong = check(dict(schedule.job))
    if wrong:
        raise RequestError([Problem(f"job.{field}", problem) for field, problem in wrong])
    body = render(dict(schedule.job), _next(schedule.cron, schedule.timezone), schedule.timezone, new_id())
    try:
        service.admission.look_up(caller, job_request(body, service.defaults))
    except RequestError as error:
        raise RequestError(
            [Problem(f"job.{each.field}".rstrip("."), each.message) for each in error.problems]
        ) from None


def _next(cron: str, timezone: str) -> datetime:
    try:
        return Cron(cron, timezone).next_after(datetime.now(UTC))
    except (LauncherError, OverflowError) as error:
        raise RequestError([Problem("schedule.cron", str(error))]) from error


def _secret(job: JobRequest) -> str | None:
    return None if job.webhook is None else job.webhook.secret


def _kept_secret(schedule: Schedule, job: JobRequest) -> str | None:
    """Who gets a schedule, changes it, and sends it back, cannot know the secret; to the same receiver it stays."""
    before = schedule.job.get("webhook") or {}
    return schedule.webhook_secret if job.webhook is not None and before.get("url") == job.webhook.url else None
