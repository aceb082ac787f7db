"""Who may do what: every route is tried with the key of another tenant, with each role, and without a key."""

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.routing import Route

from launcher.api.documented import OPEN_PATHS
from launcher.state.keys import Role
from tests.api import BATCH, SEED, Api, problem, wait_for

SCHEDULE = {"schedule": {"cron": "0 2 * * *"}, "job": json.loads(SEED)}


class Owner(NamedTuple):
    """A tenant, and what it has."""

    tenant: str
    client: httpx.Client
    job_id: str
    schedule_id: str


class Case(NamedTuple):
    """How a route is tried: its path with the owner's things in it, and a body.

    `names` says that the path names something of the owner's, which is not there for others.
    """

    path: str
    body: Any = None
    names: bool = True


LISTS = ("/api/v1/models", "/api/v1/connections", "/api/v1/schedules", BATCH, "/metrics", *OPEN_PATHS)
# For each route of the service. What is missing here fails a test.
CASES: dict[tuple[str, str], Case] = {
    **{("GET", path): Case(path, names=False) for path in LISTS},
    ("POST", BATCH): Case(BATCH, json.loads(SEED), names=False),
    ("POST", f"{BATCH}/estimate"): Case(f"{BATCH}/estimate", json.loads(SEED), names=False),
    **{
        (method, f"{BATCH}/{{job_id}}{rest}"): Case(f"{BATCH}/{{job_id}}{rest}")
        for method, rest in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/cancel"),
            ("POST", "/retry"),
            ("GET", "/events"),
            ("GET", "/logs"),
            ("GET", "/rejects"),
            ("GET", "/results"),
        )
    },
    ("POST", "/api/v1/models"): Case("/api/v1/models", {"model_id": "m", "uri": "churn.onnx"}, names=False),
    **{
        (method, f"/api/v1/models/{{model_id}}{rest}"): Case("/api/v1/models/model-xyz789" + rest.format(version=1))
        for method, rest in (
            ("GET", ""),
            ("DELETE", ""),
            ("GET", "/versions"),
            ("GET", "/versions/{version}"),
            ("DELETE", "/versions/{version}"),
        )
    },
    ("POST", "/api/v1/connections"): Case(
        "/api/v1/connections", {"name": "c", "uri": "sqlite:///customers.db"}, names=False
    ),
    ("GET", "/api/v1/connections/{name}"): Case("/api/v1/connections/default"),
    ("DELETE", "/api/v1/connections/{name}"): Case("/api/v1/connections/default"),
    ("POST", "/api/v1/schedules"): Case("/api/v1/schedules", SCHEDULE, names=False),
    **{
        (method, f"/api/v1/schedules/{{schedule_id}}{rest}"): Case(f"/api/v1/schedules/{{schedule_id}}{rest}", body)
        for method, rest, body in (
            ("GET", "", None),
            ("PATCH", "", {"enabled": True}),
            ("POST", "/pause", None),
            ("POST", "/resume", None),
            ("POST", "/run", None),
            ("DELETE", "", None),
        )
    },
}
NAMED = {route: case for route, case in CASES.items() if case.names}
WRITES = {route: case for route, case in CASES.items() if route[0] != "GET"}
GUARDED = {route: case for route, case in CASES.items() if route[1] not in OPEN_PATHS}


def ids(cases: dict[tuple[str, str], Case]) -> list[str]:
    return [f"{method} {path}" for method, path in cases]


def tried(client: httpx.Client, method: str, case: Case, owner: Owner) -> httpx.Response:
    path = case.path.format(job_id=owner.job_id, schedule_id=owner.schedule_id)
    return client.request(method, path, json=case.body) if case.body is not None else client.request(method, path)


@pytest.fixture(scope="module")
def owner(api: Api) -> Owner:
    client = api.client("owner", "admin")
    api.stock(client)
    schedule = client.post("/api/v1/schedules", json=SCHEDULE).json()
    return Owner("owner", client, api.submit(client), schedule["schedule_id"])


@pytest.fixture(scope="module")
def clients(api: Api) -> Iterator[dict[Role, httpx.Client]]:
    """Keys of the owner's own tenant."""
    roles: tuple[Role, ...] = ("viewer", "submitter", "admin")
    return {role: api.client("owner", role) for role in roles}


def test_every_route_is_tried(api: Api) -> None:
    # FastAPI's own show what there is, and nothing of anybody's.
    own = {"/openapi.json", "/docs"}
    known = {
        (method, route.path)
        for route in api.app.state.routes
        if isinstance(route, Route) and route.path not in own
        for method in route.methods or ()
    }

    assert known == set(CASES)
    assert {(method.upper(), path) for path, each in api.app.openapi()["paths"].items() for method in each} == known


@pytest.mark.parametrize(("route", "case"), NAMED.items(), ids=ids(NAMED))
def test_what_is_another_tenants_is_not_there(
    api: Api, owner: Owner, tenant: str, route: tuple[str, str], case: Case
) -> None:
    stranger = api.client(tenant, "admin")
    mine = owner._replace(
        job_id="batch-0000000000" if "{job_id}" in case.path else owner.job_id,
        schedule_id="sched-0000000000",
    )

    theirs = problem(tried(stranger, route[0], case, owner), 404, "not-found")
    unknown = problem(tried(stranger, route[0], case, mine), 404, "not-found")

    if route == ("DELETE", f"{BATCH}/{{job_id}}"):
        purge = stranger.delete(f"{BATCH}/{owner.job_id}", params={"purge": True})
        assert problem(purge, 404, "not-found").detail == theirs.detail
    # The same words, but for the id that was asked for.
    for name in ("job_id", "schedule_id"):
        theirs.detail = theirs.detail.replace(getattr(owner, name), getattr(mine, name))
    assert theirs.detail == unknown.detail
    assert owner.client.get(f"{BATCH}/{owner.job_id}").json()["status"] == "submitted"


@pytest.mark.parametrize("path", [*LISTS[:4]])
def test_a_list_has_nothing_of_another_tenants(api: Api, owner: Owner, tenant: str, path: str) -> None:
    (name,) = set(owner.client.get(path).json()) - {"next_cursor"}

    assert owner.client.get(path).json()[name]
    assert api.client(tenant, "admin").get(path).json() == {name: [], "next_cursor": None}


def test_a_job_cannot_name_what_is_another_tenants(api: Api, owner: Owner, tenant: str) -> None:
    stranger = api.client(tenant)
    given = {"model": {"uri": "churn.onnx"}, "model_id": None}

    no_model = problem(
        stranger.post(BATCH, content=SEED, headers={"Content-Type": "application/json"}), 422, "invalid-request"
    )
    no_connection = problem(stranger.post(BATCH, json={**json.loads(SEED), **given}), 422, "invalid-request")

    assert no_model.errors[0].field == "model_id"
    assert {each.field for each in no_connection.errors} == {"input.connection", "output.connection"} or (
        no_connection.errors[0].field == "input.connection"
    )


@pytest.mark.parametrize(("route", "case"), GUARDED.items(), ids=ids(GUARDED))
@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", "Bearer psk_01234567_" + "x" * 43, "Basic dTpw", "Bearer é"],
    ids=["none", "empty", "unknown", "basic", "latin"],
)
def test_without_a_key_that_opens_nothing_is_told(
    api: Api, owner: Owner, route: tuple[str, str], case: Case, authorization: str | None
) -> None:
    headers = {} if authorization is None else {b"Authorization": authorization.encode("latin-1")}
    path = case.path.format(job_id=owner.job_id, schedule_id=owner.schedule_id)

    answer = httpx.request(route[0], f"{api.url}{path}", headers=headers)  # type: ignore[arg-type]

    told = problem(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "revoked" not in told.detail


@pytest.mark.parametrize(("route", "case"), WRITES.items(), ids=ids(WRITES))
def test_a_viewer_changes_nothing(
    clients: dict[Role, httpx.Client], owner: Owner, route: tuple[str, str], case: Case
) -> None:
    problem(tried(clients["viewer"], route[0], case, owner), 403, "forbidden")


READS = {
    route: case
    for route, case in CASES.items()
    if route[0] == "GET" and not route[1].endswith(("/events", "/results", "/rejects", "/readyz"))
}


@pytest.mark.parametrize("role", ["viewer", "submitter", "admin"])
@pytest.mark.parametrize(("route", "case"), READS.items(), ids=ids(READS))
def test_every_role_looks_at_everything(
    clients: dict[Role, httpx.Client], owner: Owner, role: Role, route: tuple[str, str], case: Case
) -> None:
    assert tried(clients[role], route[0], case, owner).status_code == 200


def test_code_comes_with_an_admins_key_only(api: Api, tenant: str) -> None:
    python = {"model_id": "m", "uri": "model:Model", "flavor": "python"}
    submitter, admin = api.client(tenant), api.client(tenant, "admin")
    api.stock(admin)
    inline = {**json.loads(SEED), "model_id": None, "model": {"uri": "model:Model"}}
    schedule = admin.post("/api/v1/schedules", json={**SCHEDULE, "job": inline}).json()

    problem(submitter.post("/api/v1/models", json=python), 403, "forbidden")
    problem(submitter.post(BATCH, json=inline), 403, "forbidden")
    problem(submitter.post("/api/v1/schedules", json={**SCHEDULE, "job": inline}), 403, "forbidden")
    path = f"/api/v1/schedules/{schedule['schedule_id']}"
    problem(submitter.patch(path, json={"job": inline}), 403, "forbidden")
    assert admin.post("/api/v1/models", json=python).status_code == 201
    # A job is its writer's, whoever wrote the one before.
    assert submitter.patch(path, json={"job": json.loads(SEED)}).status_code == 200
    assert api.service.schedules.get(schedule["schedule_id"]).role == "submitter"


class TestKeys:
    def test_count_from_the_moment_that_they_are_made(self, api: Api, tenant: str) -> None:
        assert api.client(tenant).get(BATCH).status_code == 200

    def test_open_nothing_a_second_after_they_were_revoked(self, api: Api, tenant: str) -> None:
        key, token = api.service.keys.create(tenant, "viewer")
        with httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {token}"}) as client:
            opened = client.get(BATCH)
            api.service.keys.revoke(key.id)
            revoked_at = time.monotonic()
            wait_for(lambda: client.get(BATCH).status_code == 401)

        assert opened.status_code == 200
        assert time.monotonic() - revoked_at < 2

    def test_are_asked_for_as_soon_as_there_is_one_and_ever_after(self, tmp_path: Any) -> None:
        from tests.api import serving

        with serving(tmp_path, keyless=True) as served:
            client = served.client()
            before = client.get(BATCH)
            key, _ = served.service.keys.create("acme", "admin")
            wait_for(lambda: client.get(BATCH).status_code == 401)
            served.service.keys.revoke(key.id)
            after = client.get(BATCH)

            assert before.status_code == 200
            problem(after, 401, "unauthorized")
            # What only its owner might reach, nobody does any more.
            assert not served.service.reach.keyless()


class TestWithoutKeys:
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:80", "LOCALHOST:1"])
    def test_this_machine_is_answered(self, keyless_api: Api, host: str) -> None:
        assert keyless_api.client().get(BATCH, headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "10.0.0.1:8000"])
    def test_other_names_for_it_are_not(self, keyless_api: Api, host: str) -> None:
        told = problem(keyless_api.client().get(BATCH, headers={"Host": host}), 403, "forbidden")

        assert told.detail == (
            "without an API key the Host has to be localhost or 127.0.0.1; `penstock keys create` makes a key"
        )

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
    def test_a_page_of_another_site_is_not(self, keyless_api: Api, origin: str) -> None:
        told = keyless_api.client().post(f"{BATCH}/batch-0123456789/cancel", headers={"Origin": origin})

        problem(told, 403, "forbidden")

    def test_its_own_page_is(self, keyless_api: Api) -> None:
        client = keyless_api.client()

        assert client.get("/docs").status_code == 200
        assert client.get(BATCH, headers={"Origin": keyless_api.url}).status_code == 200

    def test_a_proxy_brings_nobody_else_in(self, keyless_api: Api) -> None:
        told = keyless_api.client().get(BATCH, headers={"X-Forwarded-For": "203.0.113.7"})

        problem(told, 403, "forbidden")
