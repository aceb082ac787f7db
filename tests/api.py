"""The API over a real store, served by a real server in a thread of this process."""

import functools
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import ASGIApp

from launcher.api.app import make_app
from launcher.api.models import ProblemDetails
from launcher.api.protocol import Bounds, bounded
from launcher.forks.forking import LOOKS_PRELOAD, ForkServer
from launcher.home import Home
from launcher.service import Service
from launcher.settings import Settings
from launcher.state.job import Job, Live, Status
from launcher.state.keys import Role

_Model = TypeVar("_Model", bound=BaseModel)

# The body that the documentation of the service begins with, byte for byte.
SEED = b"""{"model_id": "model-xyz789",
 "input": {"source": "sql", "query": "SELECT customer_id, tenure, monthly_charges, total_charges FROM customers"},
 "output": {"destination": "table", "table_name": "predictions.churn_scores", "mode": "overwrite"},
 "config": {"batch_size": 1000, "parallelism": 4, "timeout_minutes": 60}}"""
BATCH = "/api/v1/inference/batch"
JSON = {"Content-Type": "application/json"}
ROWS = 1000
# What the launcher asks a database for, it asks in forks of a process that has imported this.
ASIDE = (
    "launcher.forks.aside",
    "launcher.rows.tablepages",
    "transforms.sources.counting",
    "adbc_driver_postgresql.dbapi",
    "adbc_driver_sqlite.dbapi",
    "sqlglot.dialects.postgres",
    "sqlglot.dialects.sqlite",
)
# Whoever waits for what should come at once gives up after this.
PATIENCE_S = 20


@dataclass
class Api:
    """A service that is served; its threads do not run, so that nothing moves but what a test moves."""

    service: Service
    app: FastAPI
    url: str
    work: Path
    _clients: list[httpx.Client] = field(default_factory=list)

    def client(self, tenant: str | None = None, role: Role = "submitter") -> httpx.Client:
        """A client with a key of its own; None: without one."""
        headers = {}
        if tenant is not None:
            _, token = self.service.keys.create(tenant, role)
            headers["Authorization"] = f"Bearer {token}"
        client = httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S)
        self._clients.append(client)
        return client

    def stock(self, client: httpx.Client) -> None:
        """Give a tenant the model and the connection that `SEED` names."""
        model = {"model_id": "model-xyz789", "uri": "churn.onnx"}
        assert client.post("/api/v1/models", json=model).status_code == 201
        put = client.post("/api/v1/connections", json={"name": "default", "uri": "sqlite:///customers.db"})
        assert put.status_code in (200, 201)

    def submit(self, client: httpx.Client, **changes: Any) -> str:
        """Submit `SEED` with some changes; returns the job's id."""
        body = {**json.loads(SEED), **changes}
        answer = client.post(BATCH, json={name: value for name, value in body.items() if value is not None})
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["job_id"]
        return job_id

    def move(self, job_id: str, *states: Status, **changes: Any) -> Job:
        """Move a job through some states, the last one with some changes."""
        store = self.service.store
        job = store.get(job_id)
        for n, state in enumerate(states):
            more = changes if n == len(states) - 1 else {}
            job = store.move(job_id, job.status, state, f"to {state}", **more)
        return job

    def run(self, job_id: str, scored: int, **changes: Any) -> Job:
        """Have a job run, and tell how far it is."""
        self.move(job_id, "preparing", "running")
        self.service.store.beat(job_id, 1, 60, live=Live(scored=scored, staged=scored), **changes)
        return self.service.store.get(job_id)

    def add_job(self, job: Job) -> Job:
        """Record a job as it is."""
        self.service.store.add(job, "added by a test")
        return job

    def close(self) -> None:
        for client in self._clients:
            client.close()


@functools.cache
def warm_looks() -> ForkServer:
    """What looks at inputs for all services of this process, and ends with it."""
    looks = ForkServer(
        preload=LOOKS_PRELOAD,
        environment={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1])},
        log=Path(os.devnull),
        on_exit=lambda pid, code: None,
        on_lost=lambda: None,
    )
    looks.start()
    assert looks.wait_until_warm(PATIENCE_S)
    return looks


@contextmanager
def serving(
    folder: Path, *, keyless: bool, store_url: str | None = None, preload: tuple[str, ...] = (), **environment: str
) -> Iterator[Api]:
    """Serve an API whose requests may name `folder`/work, in which there are a model and a database.

    Args:
        preload: what the fork server imports, which is warm then, as that is which counts; nothing: neither is
            started.
    """
    work = folder / "work"
    work.mkdir(parents=True)
    (work / "churn.onnx").write_bytes(b"no model at all; nobody loads it")
    with sqlite3.connect(work / "customers.db") as database:
        database.execute(
            "CREATE TABLE customers (customer_id INTEGER, tenure REAL, monthly_charges REAL, total_charges REAL)"
        )
        database.executemany("INSERT INTO customers VALUES (?, 1, 2, 3)", ((n,) for n in range(ROWS)))
    database.close()
    settings = Settings.from_environment({**environment, "PENSTOCK_STORE": store_url or ""})
    looks = warm_looks() if preload else None
    service = Service(settings, Home(folder / "home"), work, keyless=keyless, preload=preload, looks=looks)
    if preload:
        service.forks.start()
    if not keyless:
        # A store with a key in it is not keyless, whoever else makes one.
        service.keys.create("somebody", "viewer")
    app = make_app(service)
    with listening(app) as url:
        api = Api(service, app, url, work)
        try:
            assert not preload or service.forks.wait_until_warm(PATIENCE_S)
            yield api
        finally:
            app.state.closing.set()
            api.close()
            if preload:
                service.forks.close()
    service.store.close()


@contextmanager
def listening(app: ASGIApp, bounds: Bounds = Bounds(), **config: Any) -> Iterator[str]:
    """Have a server answer for `app`, in a thread; gives its address."""
    configured = uvicorn.Config(app, http=bounded(bounds), lifespan="off", log_config=None, access_log=False, **config)
    server = uvicorn.Server(configured)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come to that")
        time.sleep(0.01)


def checked(answer: httpx.Response, status_code: int, model: type[_Model]) -> _Model:
    """The answer, held against the model that documents it."""
    assert answer.status_code == status_code, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    return model.model_validate_json(answer.content)


def problem(answer: httpx.Response, status_code: int, slug: str) -> ProblemDetails:
    """The problem that an answer is."""
    assert answer.status_code == status_code, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = ProblemDetails.model_validate_json(answer.content)
    assert told.type == f"https://penstock.dev/problems/{slug}"
    assert told.status == status_code
    assert told.remedy
    assert (slug == "invalid-request") == bool(told.errors)
    return told
