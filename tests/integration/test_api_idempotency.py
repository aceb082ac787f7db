"""A POST that comes again under its Idempotency-Key does nothing again."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from launcher.errors import StoreUnavailable
from launcher.state import tables
from launcher.state.idempotency import Idempotency
from tests.api import BATCH, JSON, SEED, Api, problem

SCHEDULE = {"schedule": {"cron": "0 2 * * *"}, "job": json.loads(SEED)}


@pytest.fixture
def client(api: Api, tenant: str) -> httpx.Client:
    client = api.client(tenant)
    api.stock(client)
    return client


def keyed(key: str) -> dict[str, str]:
    return {**JSON, "Idempotency-Key": key}


def jobs(client: httpx.Client) -> list[str]:
    return [job["job_id"] for job in client.get(BATCH).json()["jobs"]]


def test_a_submission_that_is_repeated_gives_the_same_job(client: httpx.Client) -> None:
    first, again = (client.post(BATCH, content=SEED, headers=keyed("monday")) for _ in range(2))
    other = client.post(BATCH, content=SEED, headers=keyed("tuesday"))

    assert (again.status_code, again.content) == (first.status_code, first.content) == (202, first.content)
    assert again.headers["Location"] == first.headers["Location"]
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")
    assert jobs(client) == [other.json()["job_id"], first.json()["job_id"]]


def test_the_same_key_with_another_request_is_refused(client: httpx.Client) -> None:
    client.post(BATCH, content=SEED, headers=keyed("k"))

    problem(client.post(BATCH, content=SEED + b" ", headers=keyed("k")), 409, "idempotency-key-reused")
    problem(client.post("/api/v1/models", content=SEED, headers=keyed("k")), 409, "idempotency-key-reused")
    assert len(jobs(client)) == 1


def test_a_key_is_its_tenants_own(api: Api, client: httpx.Client, tenant: str) -> None:
    other = api.client(f"{tenant}-too")
    api.stock(other)

    mine, theirs = (each.post(BATCH, content=SEED, headers=keyed("k")).json()["job_id"] for each in (client, other))

    assert mine != theirs


def test_two_that_come_at_once_give_one_job(client: httpx.Client) -> None:
    together = threading.Barrier(8)

    def post(_: int) -> httpx.Response:
        together.wait()
        return client.post(BATCH, content=SEED, headers=keyed("k"))

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(post, range(8)))

    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["job_id"] for answer in answers if answer.status_code == 202}) == 1
    for answer in answers:
        if answer.status_code == 409:
            problem(answer, 409, "idempotency-key-busy")
            assert answer.headers["Retry-After"] == "1"
    assert len(jobs(client)) == 1


def test_what_was_refused_may_be_corrected_under_the_same_key(client: httpx.Client) -> None:
    wrong = client.post(BATCH, content=b"{}", headers=keyed("k"))
    right = client.post(BATCH, content=SEED, headers=keyed("k"))

    problem(wrong, 422, "invalid-request")
    assert right.status_code == 202


@pytest.mark.parametrize("came_through", [False, True], ids=["before", "after"])
def test_what_failed_is_tried_again_and_done_once(
    api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch, came_through: bool
) -> None:
    submit = api.service.admission.submit

    def away(*asked: Any, **more: Any) -> Any:
        # Whoever loses the store does not know whether it was before or after the commit.
        if came_through:
            submit(*asked, **more)
        raise StoreUnavailable("the job store cannot be used; see that the database runs")

    with monkeypatch.context() as broken:
        broken.setattr(api.service.admission, "submit", away)
        failed = client.post(BATCH, content=SEED, headers=keyed("k"))
    problem(client.post(BATCH, content=SEED + b" ", headers=keyed("k")), 409, "idempotency-key-reused")
    again = client.post(BATCH, content=SEED, headers=keyed("k"))

    problem(failed, 503, "store-unavailable")
    assert again.status_code == 202
    assert "Idempotency-Replayed" not in again.headers
    assert jobs(client) == [again.json()["job_id"]]


class TestCutOff:
    """The service dies after it did what was asked and before it could answer; the request comes again."""

    @pytest.fixture
    def again(self, api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Callable[..., httpx.Response]:
        def send(path: str, content: bytes | None = None, between: Callable[[], None] = lambda: None) -> httpx.Response:
            with monkeypatch.context() as dying:

                def die(*_: Any) -> Any:
                    raise RuntimeError("the service died")

                # The key is neither finished nor abandoned.
                dying.setattr(Idempotency, "finish", die)
                cut_off = client.post(path, content=content, headers=keyed("k"))
                busy = client.post(path, content=content, headers=keyed("k"))
            with api.service.store.database.transaction() as connection:
                connection.execute(tables.idempotency.update().values(busy_until=tables.idempotency.c.created_at))
            between()
            assert cut_off.status_code == 500
            problem(busy, 409, "idempotency-key-busy")
            return client.post(path, content=content, headers=keyed("k"))

        return send

    def test_a_submission_gives_the_job_that_it_made(
        self, client: httpx.Client, again: Callable[..., httpx.Response]
    ) -> None:
        made = again(BATCH, SEED)

        assert made.status_code == 202
        assert jobs(client) == [made.json()["job_id"]]

    @pytest.mark.parametrize("by_now", ["submitted", "failed"])
    def test_a_retry_is_made_once(
        self, api: Api, client: httpx.Client, again: Callable[..., httpx.Response], by_now: str
    ) -> None:
        job_id = api.submit(client)
        api.move(job_id, "failed")

        told = again(f"{BATCH}/{job_id}/retry", between=lambda: by_now == "failed" and api.move(job_id, "failed"))

        assert (told.status_code, told.json()["status"]) == (202, by_now)
        assert api.service.store.get(job_id).attempt == 2
        problem(client.post(f"{BATCH}/{job_id}/retry?only=rejected", headers=keyed("other")), 409, "conflict")

    def test_a_cancel_is_done(self, api: Api, client: httpx.Client, again: Callable[..., httpx.Response]) -> None:
        told = again(f"{BATCH}/{api.submit(client)}/cancel")

        assert (told.status_code, told.json()["status"]) == (200, "cancelled")

    def test_a_run_of_a_schedule_is_made_once(self, client: httpx.Client, again: Callable[..., httpx.Response]) -> None:
        schedule = f"/api/v1/schedules/{client.post('/api/v1/schedules', json=SCHEDULE).json()['schedule_id']}"
        told = again(f"{schedule}/run")

        assert told.status_code == 202
        assert jobs(client) == [told.json()["job_id"]]
        assert client.get(schedule).json()["last_job_id"] == told.json()["job_id"]


def test_what_was_done_before_the_request_is_no_answer_to_it(api: Api, client: httpx.Client) -> None:
    job_id = api.submit(client)
    api.move(job_id, "cancelled")

    problem(client.post(f"{BATCH}/{job_id}/cancel", headers=keyed("late")), 409, "conflict")
    assert client.post(f"{BATCH}/{job_id}/retry").status_code == 202
    problem(client.post(f"{BATCH}/{job_id}/retry", headers=keyed("k")), 409, "conflict")


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256], ids=["empty", "blank", "latin", "long"])
def test_a_key_is_visible_ascii(client: httpx.Client, key: str) -> None:
    headers = [(b"Content-Type", b"application/json"), (b"Idempotency-Key", key.encode("latin-1"))]

    problem(client.post(BATCH, content=SEED, headers=headers), 422, "invalid-request")


def test_every_post_takes_a_key(api: Api) -> None:
    described = api.app.openapi()["paths"]
    posts = [
        route.path for route in api.app.state.routes if isinstance(route, Route) and "POST" in (route.methods or ())
    ]

    assert posts
    for path in posts:
        operation = described[path]["post"]
        assert "Idempotency-Key" in [each["name"] for each in operation["parameters"]]
        assert "Idempotency-Replayed" in str(operation["responses"])


class TestOthers:
    """Each POST that changes something, sent twice."""

    @pytest.fixture
    def job_id(self, api: Api, client: httpx.Client) -> str:
        return api.submit(client)

    @pytest.fixture
    def schedule(self, client: httpx.Client) -> str:
        return f"/api/v1/schedules/{client.post('/api/v1/schedules', json=SCHEDULE).json()['schedule_id']}"

    @pytest.fixture
    def twice(self, client: httpx.Client) -> Callable[..., httpx.Response]:
        def send(path: str, body: Any = None) -> httpx.Response:
            content = None if body is None else json.dumps(body).encode()
            first, again = (client.post(path, content=content, headers=keyed("k")) for _ in range(2))
            assert first.status_code < 300, first.text
            assert (again.status_code, again.content) == (first.status_code, first.content)
            assert again.headers["Idempotency-Replayed"] == "true"
            return first

        return send

    def test_cancel(self, api: Api, twice: Callable[..., httpx.Response], job_id: str) -> None:
        twice(f"{BATCH}/{job_id}/cancel")

        assert len(api.service.store.moves(job_id)) == 2

    def test_retry(self, api: Api, twice: Callable[..., httpx.Response], job_id: str) -> None:
        api.move(job_id, "cancelled")

        twice(f"{BATCH}/{job_id}/retry")

        assert api.service.store.get(job_id).attempt == 2

    def test_schedule(self, client: httpx.Client, twice: Callable[..., httpx.Response]) -> None:
        made = twice("/api/v1/schedules", SCHEDULE).json()

        assert [each["schedule_id"] for each in client.get("/api/v1/schedules").json()["schedules"]] == [
            made["schedule_id"]
        ]

    def test_a_job_with_a_schedule(self, client: httpx.Client, twice: Callable[..., httpx.Response]) -> None:
        twice(BATCH, {**json.loads(SEED), "schedule": {"cron": "0 2 * * *"}})

        assert len(client.get("/api/v1/schedules").json()["schedules"]) == 1

    def test_run_now(self, client: httpx.Client, twice: Callable[..., httpx.Response], schedule: str) -> None:
        made = twice(f"{schedule}/run").json()

        assert jobs(client) == [made["job_id"]]

    def test_pause_and_resume(self, client: httpx.Client, twice: Callable[..., httpx.Response], schedule: str) -> None:
        twice(f"{schedule}/pause")

        assert client.post(f"{schedule}/resume").json()["enabled"]

    def test_connection(self, twice: Callable[..., httpx.Response]) -> None:
        twice("/api/v1/connections", {"name": "other", "uri": "sqlite:///customers.db"})

    def test_model(self, client: httpx.Client, twice: Callable[..., httpx.Response]) -> None:
        twice("/api/v1/models", {"model_id": "other", "uri": "churn.onnx"})
