"""Schedules over HTTP."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from launcher.api.models import ScheduleAnswer, SchedulePage, SubmittedJob
from tests.api import BATCH, SEED, Api, checked, problem

SCHEDULES = "/api/v1/schedules"
JOB = json.loads(SEED)
DAILY = {"schedule": {"cron": "0 2 * * *", "timezone": "Europe/Berlin"}, "job": JOB, "name": "nightly"}


@pytest.fixture
def client(api: Api, tenant: str) -> httpx.Client:
    client = api.client(tenant)
    api.stock(client)
    return client


def made(client: httpx.Client, **changes: Any) -> ScheduleAnswer:
    return checked(client.post(SCHEDULES, json={**DAILY, **changes}), 201, ScheduleAnswer)


def test_a_schedule_says_when_it_runs(client: httpx.Client) -> None:
    answer = client.post(SCHEDULES, json=DAILY)

    told = checked(answer, 201, ScheduleAnswer)
    runs = [datetime.fromisoformat(at) for at in told.next_runs]
    assert len(runs) == 5
    assert runs == sorted(runs)
    assert runs[0] - datetime.now(UTC) < timedelta(days=1, hours=1)
    assert told.schedule.model_dump() == {
        "cron": "0 2 * * *",
        "timezone": "Europe/Berlin",
        "enabled": True,
        "missed": "run_once",
        "overlap": "queue",
    }
    assert told.job == JOB
    assert checked(client.get(answer.headers["Location"]), 200, ScheduleAnswer) == told


def test_schedules_are_listed_in_pages(client: httpx.Client) -> None:
    ids = [made(client).schedule_id for _ in range(3)]

    first = checked(client.get(f"{SCHEDULES}?limit=2"), 200, SchedulePage)
    second = checked(client.get(f"{SCHEDULES}?limit=2&cursor={first.next_cursor}"), 200, SchedulePage)

    assert [each.schedule_id for each in first.schedules + second.schedules] == ids[::-1]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"schedule": {"cron": "61 2 * * *"}}, "schedule.cron"),
        ({"schedule": {"cron": "0 2 * * *", "timezone": "Mars"}}, "schedule.timezone"),
        ({"job": {**JOB, "model_id": "unknown"}}, "job.model_id"),
        ({"job": {**JOB, "input": {**JOB["input"], "connection": "unknown"}}}, "job.input.connection"),
        ({"job": {**JOB, "input": {"source": "parquet", "path": "/etc/{{ scheduled_date }}"}}}, "job.input.path"),
        ({"job": {**JOB, "input": {"source": "parquet", "path": "{{ yesterday }}"}}}, "job.input.path"),
        ({"job": {**JOB, "schedule": {"cron": "* * * * *"}}}, "job.schedule"),
    ],
    ids=["cron", "timezone", "model", "connection", "path", "template", "schedule"],
)
def test_what_could_never_run_is_refused_at_once(client: httpx.Client, changes: dict[str, Any], field: str) -> None:
    told = problem(client.post(SCHEDULES, json={**DAILY, **changes}), 422, "invalid-request")

    assert field in [each.field for each in told.errors]
    assert client.get(SCHEDULES).json()["schedules"] == []


def test_a_schedule_is_changed_in_parts(api: Api, client: httpx.Client) -> None:
    before = made(client)
    path = f"{SCHEDULES}/{before.schedule_id}"

    cron = checked(client.patch(path, json={"cron": "30 4 * * *"}), 200, ScheduleAnswer)
    job = checked(client.patch(path, json={"job": {**JOB, "name": "other"}, "overlap": "skip"}), 200, ScheduleAnswer)
    nothing = checked(client.patch(path, json={}), 200, ScheduleAnswer)

    assert cron.next_runs != before.next_runs
    assert (cron.schedule.timezone, cron.job) == ("Europe/Berlin", JOB)
    assert (job.job["name"], job.schedule.overlap, job.next_runs) == ("other", "skip", cron.next_runs)
    assert nothing == job
    problem(client.patch(path, json={"cron": "x"}), 422, "invalid-request")
    problem(client.patch(path, json={"job": {**JOB, "model_id": "unknown"}}), 422, "invalid-request")
    assert api.service.schedules.get(before.schedule_id).next_at == datetime.fromisoformat(cron.next_runs[0])


def test_a_paused_schedule_does_not_run_until_it_is_resumed(api: Api, client: httpx.Client) -> None:
    schedule = made(client)
    path = f"{SCHEDULES}/{schedule.schedule_id}"

    paused = checked(client.post(f"{path}/pause"), 200, ScheduleAnswer)
    # A time passes meanwhile.
    api.service.schedules.update(schedule.schedule_id, next_at=datetime(2025, 1, 1, tzinfo=UTC))
    resumed = checked(client.post(f"{path}/resume"), 200, ScheduleAnswer)

    assert (paused.enabled, paused.schedule.enabled, paused.next_runs) == (False, False, [])
    assert (resumed.enabled, resumed.next_runs) == (True, schedule.next_runs)
    next_at = api.service.schedules.get(schedule.schedule_id).next_at
    assert next_at is not None
    assert next_at > datetime.now(UTC)


def test_a_schedule_is_run_now_beside_its_times(client: httpx.Client) -> None:
    schedule = made(client, schedule={"cron": "0 2 * * *", "enabled": False})
    path = f"{SCHEDULES}/{schedule.schedule_id}"

    answer = client.post(f"{path}/run")

    job_id = checked(answer, 202, SubmittedJob).job_id
    job = client.get(answer.headers["Location"]).json()
    assert (job["job_id"], job["schedule_id"]) == (job_id, schedule.schedule_id)
    assert job["scheduled_at"] is not None
    assert [each["job_id"] for each in client.get(f"{BATCH}?schedule_id={schedule.schedule_id}").json()["jobs"]] == [
        job_id
    ]


def test_a_schedule_is_deleted_and_its_jobs_stay(client: httpx.Client) -> None:
    schedule = made(client)
    path = f"{SCHEDULES}/{schedule.schedule_id}"
    job = client.post(f"{path}/run").headers["Location"]

    deleted = client.delete(path)

    assert (deleted.status_code, deleted.content) == (204, b"")
    problem(client.get(path), 404, "not-found")
    assert client.get(job).status_code == 200


def test_a_webhooks_secret_is_kept_and_never_shown(api: Api, client: httpx.Client) -> None:
    webhook = {"url": "https://93.184.216.34/hook", "secret": "correct horse battery staple"}
    schedule = made(client, job={**JOB, "webhook": webhook})
    path = f"{SCHEDULES}/{schedule.schedule_id}"

    def secret() -> str | None:
        return api.service.schedules.get(schedule.schedule_id).webhook_secret

    shown = client.get(path)
    first = secret()
    # As one changes what one has been shown.
    client.patch(path, json={"job": {**shown.json()["job"], "name": "x"}})
    second = secret()
    client.patch(path, json={"job": {**JOB, "webhook": {"url": "https://93.184.216.34/other"}}})

    assert "correct horse" not in shown.text
    assert first == second == webhook["secret"]
    assert secret() is None


def test_a_schedule_keeps_its_model_and_connection(client: httpx.Client) -> None:
    made(client)

    problem(client.delete("/api/v1/models/model-xyz789"), 409, "conflict")
    connection = {**JOB, "input": {**JOB["input"], "connection": "default"}}
    made(client, job=connection)
    problem(client.delete("/api/v1/connections/default"), 409, "conflict")
