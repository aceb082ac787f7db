"""Models and connections over HTTP."""

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from launcher.api.models import ConnectionAnswer, ConnectionPage, ModelAnswer, ModelPage, ModelVersions
from tests.api import BATCH, SEED, Api, checked, problem

MODELS, CONNECTIONS = "/api/v1/models", "/api/v1/connections"
PASSWORD = "correct-horse-battery"


@pytest.fixture
def client(api: Api, tenant: str) -> httpx.Client:
    return api.client(tenant, "admin")


class TestModels:
    def test_are_registered_in_versions(self, api: Api, client: httpx.Client) -> None:
        body = {"model_id": "churn", "uri": "churn.onnx", "features": ["tenure"], "description": "the first"}

        first = client.post(MODELS, json=body)
        again = checked(client.post(MODELS, json=body), 201, ModelAnswer)
        second = checked(client.post(MODELS, json={**body, "features": ["tenure", "age"]}), 201, ModelAnswer)

        told = checked(first, 201, ModelAnswer)
        assert (told.version, again.version, second.version) == (1, 1, 2)
        assert told.uri == str(api.work / "churn.onnx")
        assert first.headers["Location"] == f"{MODELS}/churn/versions/1"
        assert checked(client.get(f"{MODELS}/churn"), 200, ModelAnswer) == second
        assert checked(client.get(first.headers["Location"]), 200, ModelAnswer) == told
        versions = checked(client.get(f"{MODELS}/churn/versions"), 200, ModelVersions).versions
        assert versions == [second, told]

    def test_are_listed_in_pages(self, client: httpx.Client) -> None:
        for n in (3, 1, 2):
            client.post(MODELS, json={"model_id": f"m{n}", "uri": "churn.onnx"})

        first = checked(client.get(f"{MODELS}?limit=2"), 200, ModelPage)
        second = checked(client.get(f"{MODELS}?limit=2&cursor={first.next_cursor}"), 200, ModelPage)

        assert [model.model_id for model in first.models + second.models] == ["m1", "m2", "m3"]
        assert second.next_cursor is None

    def test_are_deleted_while_nobody_needs_them(self, api: Api, client: httpx.Client) -> None:
        api.stock(client)
        job_id = api.submit(client)

        told = problem(client.delete(f"{MODELS}/model-xyz789"), 409, "conflict")
        api.move(job_id, "cancelled")
        deleted = client.delete(f"{MODELS}/model-xyz789/versions/1")

        assert job_id in told.detail
        assert (deleted.status_code, deleted.content) == (204, b"")
        problem(client.get(f"{MODELS}/model-xyz789"), 404, "not-found")
        problem(client.delete(f"{MODELS}/model-xyz789"), 404, "not-found")

    def test_a_file_that_is_not_there_is_no_model(self, client: httpx.Client) -> None:
        told = client.post(MODELS, json={"model_id": "churn", "uri": "nofile.onnx"})

        (wrong,) = problem(told, 422, "invalid-request").errors
        assert (wrong.field, wrong.message) == (
            "uri",
            "'nofile.onnx' is no file that the service can read; put it there first, or name another",
        )
        problem(client.get(f"{MODELS}/churn"), 404, "not-found")

    @pytest.mark.parametrize("uri", ["/etc/passwd.onnx", "../churn.onnx", "~/churn.onnx", "link/churn.onnx"])
    def test_come_from_folders_that_a_request_may_name(
        self, api: Api, client: httpx.Client, tmp_path: Path, uri: str
    ) -> None:
        link = api.work / "link"
        if not link.is_symlink():
            link.symlink_to(tmp_path)

        told = problem(client.post(MODELS, json={"model_id": "m", "uri": uri}), 422, "invalid-request")

        assert told.errors[0].field == "uri"

    def test_are_not_those_of_the_service_itself(self, api: Api, client: httpx.Client) -> None:
        uri = str(api.service.home.path / "model.onnx")

        problem(client.post(MODELS, json={"model_id": "m", "uri": uri}), 422, "invalid-request")

    def test_of_python_are_imported_from_such_folders_too(self, api: Api, client: httpx.Client) -> None:
        body = {"model_id": "m", "uri": "model:Model", "import_path": "models"}

        made = checked(client.post(MODELS, json=body), 201, ModelAnswer)
        told = problem(client.post(MODELS, json={**body, "import_path": "/usr/lib"}), 422, "invalid-request")

        assert (made.flavor, made.import_path) == ("python", str(api.work / "models"))
        assert told.errors[0].field == "import_path"


class TestConnections:
    def test_are_registered_and_replaced(self, client: httpx.Client) -> None:
        first = client.post(CONNECTIONS, json={"name": "w", "uri": "sqlite:///customers.db", "description": "one"})
        second = client.post(CONNECTIONS, json={"name": "w", "uri": "sqlite:///customers.db"})

        made, replaced = checked(first, 201, ConnectionAnswer), checked(second, 200, ConnectionAnswer)
        assert (made.description, replaced.description) == ("one", None)
        assert replaced.created_at == made.created_at
        assert first.headers["Location"] == f"{CONNECTIONS}/w"
        assert checked(client.get(f"{CONNECTIONS}/w"), 200, ConnectionAnswer) == replaced

    def test_are_listed_in_pages(self, client: httpx.Client) -> None:
        for n in (3, 1, 2):
            client.post(CONNECTIONS, json={"name": f"c{n}", "uri": "sqlite:///customers.db"})

        first = checked(client.get(f"{CONNECTIONS}?limit=2"), 200, ConnectionPage)
        second = checked(client.get(f"{CONNECTIONS}?limit=2&cursor={first.next_cursor}"), 200, ConnectionPage)

        assert [each.name for each in first.connections + second.connections] == ["c1", "c2", "c3"]

    def test_are_deleted_while_nobody_needs_them(self, api: Api, client: httpx.Client) -> None:
        api.stock(client)
        job_id = api.submit(client)

        problem(client.delete(f"{CONNECTIONS}/default"), 409, "conflict")
        api.move(job_id, "cancelled")

        assert client.delete(f"{CONNECTIONS}/default").status_code == 204
        problem(client.get(f"{CONNECTIONS}/default"), 404, "not-found")

    @pytest.mark.parametrize(
        "uri",
        [
            "sqlite:////etc/passwd",
            "sqlite:///../customers.db",
            f"postgresql://me:{PASSWORD}@169.254.169.254/db",
            f"postgresql://me:{PASSWORD}@127.0.0.1/db",
            f"postgresql://me:{PASSWORD}@localhost/db",
            f"mysql://me:{PASSWORD}@db.example.com/db",
            f"postgresql://me:{PASSWORD}${{HOME}}@db.example.com/db",
        ],
    )
    def test_lead_where_a_tenant_may_go(self, client: httpx.Client, uri: str) -> None:
        answer = client.post(CONNECTIONS, json={"name": "w", "uri": uri})

        assert problem(answer, 422, "invalid-request").errors[0].field == "uri"
        assert PASSWORD not in answer.text

    def test_show_no_secret_anywhere(
        self, keyless_api: Api, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        client = keyless_api.client()
        uri = f"postgresql://scorer:{PASSWORD}@127.0.0.1:1/warehouse?application_name=me"
        seen: list[str] = []

        def ask(method: str, path: str, **more: Any) -> httpx.Response:
            answer = client.request(method, path, **more)
            seen.append(f"{answer.headers} {answer.text}")
            return answer

        with caplog.at_level(logging.DEBUG):
            ask("POST", "/api/v1/models", json={"model_id": "model-xyz789", "uri": "churn.onnx"})
            ask("POST", CONNECTIONS, json={"name": "secret", "uri": uri}, headers={"Idempotency-Key": "k"})
            ask("POST", CONNECTIONS, json={"name": "secret", "uri": uri}, headers={"Idempotency-Key": "k"})
            ask("POST", CONNECTIONS, json={"name": "secret", "uri": uri + "#"})
            ask("POST", CONNECTIONS, json={"name": "secret!", "uri": uri})
            ask("POST", CONNECTIONS, json={"name": "secret", "uri": [uri]})
            ask("GET", CONNECTIONS)
            ask("GET", f"{CONNECTIONS}/secret")
            body = json.loads(SEED)
            body["input"]["connection"] = "secret"
            # Nobody listens there: how many rows there are is not known.
            submitted = ask("POST", BATCH, json=body)
            body["input"]["connection"] = uri
            ask("POST", BATCH, json=body)
            job = f"{BATCH}/{submitted.json()['job_id']}"
            ask("GET", job)
            ask("GET", BATCH)
            ask("DELETE", f"{CONNECTIONS}/secret")
            ask("POST", f"{job}/cancel")
            ask("GET", f"{job}/events")
            ask("GET", f"{job}/results")
            ask("GET", "/openapi.json")

        assert submitted.status_code == 202
        assert PASSWORD not in "\n".join(seen)
        assert PASSWORD not in caplog.text
        assert PASSWORD not in "".join(capfd.readouterr())
