"""Whatever goes wrong is told as a problem: what, where, and what to do."""

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from launcher import errors
from launcher.api.problems import KINDS, problem_of, slug_of
from launcher.errors import LauncherError
from predictors.errors import PredictorError, RowsRejected, SchemaMismatch
from tests.api import BATCH, JSON, SEED, Api, problem, wait_for
from transforms.errors import ConnectionRefused, InputError, PipelineError, RefusedRow, RowsRefused

MIB = 1024 * 1024


@pytest.fixture
def client(api: Api, tenant: str) -> httpx.Client:
    client = api.client(tenant)
    api.stock(client)
    return client


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1,", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": 1, "a": 2}', b"\xff", b"[" * 100_000, b"9" * 5000],
    ids=["empty", "open", "list", "nan", "infinite", "twice", "latin", "deep", "long"],
)
def test_a_body_that_is_no_json_is_malformed(client: httpx.Client, body: bytes) -> None:
    problem(client.post(BATCH, content=body, headers=JSON), 400, "malformed-json")


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"{}", b'{"model_id": 7}', b'{"x": 1}'])
def test_a_body_that_is_no_job_names_its_fields(client: httpx.Client, body: bytes) -> None:
    problem(client.post(BATCH, content=body, headers=JSON), 422, "invalid-request")


def test_every_mistake_is_told_at_once(client: httpx.Client) -> None:
    body = {**json.loads(SEED), "config": {"batch_size": 0, "paralelism": 2}, "model_id": "a b"}

    told = problem(client.post(BATCH, json=body), 422, "invalid-request")

    assert [each.field for each in told.errors] == ["model_id", "config.batch_size", "config.paralelism"]
    assert "did you mean config.parallelism?" in told.errors[2].message


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/yaml"])
def test_a_body_says_that_it_is_json(client: httpx.Client, media_type: str | None) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}

    problem(client.post(BATCH, content=SEED, headers=headers), 415, "unsupported-media-type")


def test_a_body_may_say_how_it_is_encoded(client: httpx.Client) -> None:
    said = {"Content-Type": "application/json; charset=utf-8"}

    assert client.post(BATCH, content=SEED, headers=said).status_code == 202
    problem(
        client.post(BATCH, content=SEED, headers={**JSON, "Content-Encoding": "gzip"}), 415, "unsupported-media-type"
    )


class TestBodies:
    def test_that_say_that_they_are_too_large_are_not_read(self, client: httpx.Client) -> None:
        problem(client.post(BATCH, content=b" " * (MIB + 1), headers=JSON), 413, "body-too-large")

    def test_that_turn_out_too_large_are_not_read_to_their_end(self, client: httpx.Client) -> None:
        def pieces() -> Iterator[bytes]:
            for _ in range(40):
                yield b" " * 65_536

        problem(client.post(BATCH, content=pieces(), headers=JSON), 413, "body-too-large")

    def test_that_nobody_reads_are_bounded_too(self, client: httpx.Client) -> None:
        answer = client.post(f"{BATCH}/batch-0123456789/cancel", content=b" " * (2 * MIB))

        problem(answer, 413, "body-too-large")

    def test_of_just_that_size_are_read(self, client: httpx.Client) -> None:
        answer = client.post(BATCH, content=SEED + b" " * (MIB - len(SEED)), headers=JSON)

        assert answer.status_code == 202


def test_what_is_not_there_is_not_found(client: httpx.Client) -> None:
    for path in ("/", "/nowhere", f"{BATCH}/", f"{BATCH}/x/y", "/api/v1/models/", "/api/v1/models/%2e%2e/versions"):
        problem(client.get(path), 404, "not-found")


def test_a_method_that_a_path_does_not_know_is_told_those_that_it_does(client: httpx.Client) -> None:
    answer = client.put(f"{BATCH}/batch-0123456789")

    problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == "DELETE, GET"
    assert client.put(BATCH).headers["Allow"] == "GET, POST"


def test_a_version_that_no_number_can_be_is_told(client: httpx.Client) -> None:
    for version in ("0", "x", "99999999999", "-1", "1.5"):
        problem(client.get(f"/api/v1/models/model-xyz789/versions/{version}"), 422, "invalid-request")


def test_a_store_that_does_not_answer_is_told(api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise errors.StoreUnavailable("the job store is locked by another process for over 30 s; try again")

    monkeypatch.setattr(api.service.store, "get", away)

    answer = client.get(f"{BATCH}/batch-0123456789")

    problem(answer, 503, "store-unavailable")
    assert answer.headers["Retry-After"] == "2"


def test_what_nobody_foresaw_is_logged_and_not_told(
    api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("the password is hunter2")

    monkeypatch.setattr(api.service.store, "get", broken)

    answer = client.get(f"{BATCH}/batch-0123456789", headers={"X-Request-ID": "request-0001"})

    problem(answer, 500, "internal")
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["X-Request-ID"] == "request-0001"
    (logged,) = [record for record in caplog.records if record.name == "launcher.api"]
    assert logged.exc_info is not None


def test_every_request_leaves_a_line(
    api: Api, client: httpx.Client, tenant: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "launcher.access"):
        job_id = api.submit(client)
        answer = client.get(f"{BATCH}/{job_id}?limit=no", headers={"X-Request-ID": "not an id"})
        client.get("/healthz")

    line = [record for record in caplog.records if record.name == "launcher.access"][-1]
    wanted = {"method": "GET", "path": f"{BATCH}/{job_id}", "status_code": 422, "tenant": tenant, "job_id": job_id}
    assert {name: getattr(line, name) for name in wanted} == wanted
    assert line.request_id == answer.headers["X-Request-ID"] != "not an id"  # type: ignore[attr-defined]
    assert line.duration_ms > 0  # type: ignore[attr-defined]


def test_whoever_leaves_within_their_body_is_no_failure_of_ours(
    api: Api, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    head = (
        f"POST {BATCH} HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['Authorization']}\r\n"
        "X-Request-ID: request-0002\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    with caplog.at_level(logging.INFO, "launcher"):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode())
        wait_for(lambda: any(getattr(each, "request_id", "") == "request-0002" for each in caplog.records))

    (line,) = [each for each in caplog.records if getattr(each, "request_id", "") == "request-0002"]
    assert line.getMessage() == f"POST {BATCH} cut off"
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


def arguments(error: type[Exception]) -> tuple[Any, ...]:
    made: dict[type[Exception], tuple[Any, ...]] = {
        errors.RequestError: ([errors.Problem("a", "is wrong; write b")],),
        errors.Conflict: ("batch-1", "running", ("submitted",)),
        errors.NotAcceptable: (("application/json",),),
        errors.WebhookFailed: ("no", True),
        RowsRejected: ([0], "no"),
        RowsRefused: ([RefusedRow(0, 0, "X", "no")],),
    }
    if error in made:
        return made[error]
    for n in range(1, 5):
        try:
            error(*["x"] * n)
            return ("x",) * n
        except TypeError:
            continue
    raise AssertionError(error)


def below(error: type[Exception]) -> list[type[Exception]]:
    return [error, *(each for child in error.__subclasses__() for each in below(child))]


ALL = [each for tree in (LauncherError, PipelineError, PredictorError) for each in below(tree)]


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_error_becomes_a_problem(error: type[Exception]) -> None:
    if error.__module__.startswith(("launcher.client", "tests")):
        pytest.skip("the service never raises it")
    answer = problem_of(error(*arguments(error)), "/path")

    told = json.loads(bytes(answer.body))
    assert told["instance"] == "/path"
    assert told["status"] == answer.status_code == KINDS[slug_of(error(*arguments(error)))].status
    assert set(told) - {"errors"} == {"type", "title", "status", "detail", "instance", "remedy"}


@pytest.mark.parametrize(
    ("error", "slug"),
    [
        (SchemaMismatch("the column x is missing"), "invalid-request"),
        (InputError("no such table"), "invalid-request"),
        (ConnectionRefused("nobody answers"), "unavailable"),
        (errors.AsideFailed("TimeoutError", "it took longer than 60 s"), "unavailable"),
        (errors.KeyBusy("k"), "idempotency-key-busy"),
        (errors.SettingWrong("X", "is wrong"), "internal"),
        (ValueError("secret"), "internal"),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_problems_are_of_the_right_kind(error: Exception, slug: str) -> None:
    assert slug_of(error) == slug


def test_the_remedy_is_what_the_line_ends_in() -> None:
    def remedy(line: str) -> str:
        answer: Response = problem_of(errors.NotNow(line), "/")
        told: str = json.loads(bytes(answer.body))["remedy"]
        return told

    assert remedy("batch-1 is running; cancel it first") == "Cancel it first."
    assert remedy("batch-1 is running") == KINDS["conflict"].remedy


def test_every_kind_of_problem_can_be_had(api: Api) -> None:
    # Those that no test here brings about over HTTP are listed, so that none is forgotten.
    documented = {
        example
        for operations in api.app.openapi()["paths"].values()
        for operation in operations.values()
        for response in operation["responses"].values()
        for example in response.get("content", {}).get("application/problem+json", {}).get("examples", {})
    }

    connection = {"malformed-request", "head-too-large"}  # see test_api_protocol.py
    assert set(KINDS) - documented == {"method-not-allowed"} | connection
