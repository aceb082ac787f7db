"""Admission: a request becomes a job, or is refused at once with all that is wrong; retries, too."""

import json
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.admission import Admission, Caller
from launcher.errors import JobUnknown, NotNow, RequestError, RoleLacking, StoreUnavailable
from launcher.forks.forking import LOOKS_PRELOAD, ForkServer
from launcher.reach.tenant import Reach
from launcher.request.service import Defaults, JobRequest, job_request
from launcher.settings import Settings
from launcher.state.job import Job, Seconds, Status
from launcher.state.keys import Role
from launcher.state.registry import Connections, Models
from pipelines.spec import ParquetInput, ParquetOutput, Rejects, SqlInput, TableOutput
from predictors.base import ModelSpec
from tests.unit.launcher_parts import Parts, parts, warm_forks
from transforms.counts import Counts

REGISTER_MODEL = "register it by `penstock models register` or POST /api/v1/models"
REGISTER_CONNECTION = "register it by `penstock connections set` or POST /api/v1/connections"
FILES = {"source": "parquet", "path": "in.parquet"}
QUERY = {"source": "sql", "query": "SELECT id FROM customers", "connection": "sales"}


@dataclass
class World:
    """A service that takes jobs in; `acme` has a model, a file of 10 rows and a database with 5."""

    parts: Parts
    work: Path
    forks: ForkServer
    settings: dict[str, Any] = field(default_factory=dict)
    keyless: bool = False

    @property
    def models(self) -> Models:
        return Models(self.parts.database)

    @property
    def connections(self) -> Connections:
        return Connections(self.parts.database)

    @property
    def admission(self) -> Admission:
        settings = Settings(**self.settings)
        reach = Reach(settings, self.connections, self.parts.home.path, self.work, lambda: self.keyless)
        return Admission(self.parts.home, self.parts.store, self.models, reach, settings, self.forks, self.forks)

    def submit(self, body: Mapping[str, Any], tenant: str = "acme", role: Role = "submitter", **options: Any) -> Job:
        return self.admission.submit(Caller(tenant, role), request(body), **options)

    def refused(self, body: Mapping[str, Any], tenant: str = "acme", role: Role = "submitter") -> list[str]:
        before = self.parts.store.jobs()
        with pytest.raises(RequestError) as told:
            self.submit(body, tenant, role)
        assert self.parts.store.jobs() == before
        return str(told.value).splitlines()


def request(body: Mapping[str, Any]) -> JobRequest:
    return job_request({"model_id": "churn", "input": FILES, **body}, Defaults(parallelism=2))


def write_rows(path: Path, rows: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": list(range(rows))}), path)


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Counts inputs."""
    with warm_forks(tmp_path_factory.mktemp("forks"), *LOOKS_PRELOAD) as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, forks: ForkServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # However busy the machine is.
    monkeypatch.setattr("launcher.admission._COUNT_S", 60.0)
    work = tmp_path / "work"
    write_rows(work / "in.parquet", 10)
    with sqlite3.connect(work / "sales.db") as database:
        database.execute("CREATE TABLE customers (id INTEGER)")
        database.executemany("INSERT INTO customers VALUES (?)", [(n,) for n in range(5)])
    database.close()
    with parts(tmp_path) as made:
        world = World(made, work, forks)
        world.models.register("acme", "churn", ModelSpec("churn.onnx", "onnx"))
        world.connections.put("acme", "sales", f"sqlite:///{work}/sales.db")
        yield world


# --- a request becomes a job ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [socket.EAI_AGAIN, socket.EAI_NONAME], ids=["for a moment", "at all"])
def test_a_host_without_an_address_is_a_mistake_where_it_has_none_at_all(
    world: World, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def no_address(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(code, "Temporary failure in name resolution")

    world.connections.put("acme", "crm", "postgresql://me:pw@db.example.com/crm")
    body = {
        "input": {**QUERY, "connection": "crm"},
        "output": {"destination": "parquet", "path": "out"},
        "webhook": {"url": "https://hooks.example.com/"},
    }
    monkeypatch.setattr(socket, "getaddrinfo", no_address)

    if code == socket.EAI_NONAME:
        assert world.refused(body) == [
            "input.connection cannot be used: host 'db.example.com' has no address; check its spelling",
            "webhook.url cannot be used: host 'hooks.example.com' has no address; check its spelling",
        ]
    else:
        job = world.submit(body)
        assert (job.status, job.total_rows) == ("submitted", None)


def test_a_job_waits_in_its_queue_with_all_that_was_asked(world: World) -> None:
    job = world.submit(
        {
            "name": "nightly",
            "labels": {"team": "growth"},
            "config": {"batch_size": 50},
            "output": {"destination": "parquet", "path": "out/scores", "mode": "overwrite"},
            "rejects": {"path": "out/rejects"},
        },
        traceparent="00-1-2-01",
    )

    assert world.parts.store.get(job.id) == job
    assert (job.status, job.tenant, job.managed, job.attempt) == ("submitted", "acme", True, 1)
    assert (job.model_id, job.model_version, job.name, job.labels) == ("churn", 1, "nightly", {"team": "growth"})
    assert (job.total_rows, job.estimated_seconds, job.keeps_result) == (10, 1.5, False)
    assert (job.spec.config.batch_size, job.spec.config.parallelism) == (50, 2)
    assert job.spec.model == ModelSpec(str(world.work / "churn.onnx"), "onnx")
    assert job.spec.input == ParquetInput((str(world.work / "in.parquet"),))
    assert job.spec.output == ParquetOutput(str(world.work / "out" / "scores"), "overwrite")
    assert job.spec.rejects == Rejects(str(world.work / "out" / "rejects"))
    assert job.working_dir == str(world.parts.home.job(job.id).path)
    assert job.traceparent == "00-1-2-01"
    assert world.parts.reasons(job.id) == ["submitted"]


def test_paths_of_a_job_may_be_file_urls_and_are_confined_as_others(world: World) -> None:
    days = world.work / "in days" / "day=1"
    days.mkdir(parents=True)
    (world.work / "in.parquet").rename(days / "part-0")
    given = {"source": "parquet", "path": f"file://{world.work}/in%20days", "schema": {"day": "string"}}
    output = {"destination": "parquet", "path": f"file://localhost{world.work}/out"}

    job = world.submit({"input": given, "output": output})

    assert job.spec.input == ParquetInput((str(world.work / "in days"),), (("day", "string"),))
    assert (job.spec.output, job.total_rows) == (ParquetOutput(str(world.work / "out")), 10)
    assert "outside of the folders" in world.refused({"input": {**given, "path": "file:///etc"}})[0]
    assert "begins with ~" in world.refused({"input": {**given, "path": "~/in"}})[0]


def test_a_job_without_an_output_keeps_its_result_in_its_own_folder(world: World) -> None:
    job = world.submit({})

    assert job.keeps_result
    assert job.spec.output == ParquetOutput(str(world.parts.home.job(job.id).path / "results"))


def test_connections_stay_names(world: World) -> None:
    job = world.submit({"input": QUERY, "output": {"destination": "table", "table_name": "scores"}})

    assert job.spec.input == SqlInput("sales", "SELECT id FROM customers")
    # Where the input comes from.
    assert job.spec.output == TableOutput("sales", "scores")
    assert job.total_rows == 5


def test_the_default_connection_is_the_one_that_is_not_named(world: World) -> None:
    world.settings["default_connection"] = "sqlite:///sales.db"
    query = {"source": "sql", "query": "SELECT id FROM customers"}
    job = world.submit({"input": query, "output": {"destination": "table", "table_name": "scores"}})

    assert (job.spec.input, job.spec.output) == (
        SqlInput("default", "SELECT id FROM customers"),
        TableOutput("default", "scores"),
    )
    assert job.total_rows == 5


def test_the_version_that_is_named_is_taken(world: World) -> None:
    world.models.register("acme", "churn", ModelSpec("churn-2.onnx", "onnx"))

    assert world.submit({}).model_version == 2
    assert world.submit({"model_version": 1}).spec.model.uri == str(world.work / "churn.onnx")


def test_the_secret_of_a_webhook_is_kept_apart(world: World) -> None:
    world.settings["allowed_hosts"] = "127.0.0.1"
    job = world.submit({"webhook": {"url": "http://127.0.0.1:9/hook", "events": ["failed"], "secret": "hush-hush"}})

    assert job.webhook is not None
    assert (job.webhook.url, job.webhook.events) == ("http://127.0.0.1:9/hook", ("failed",))
    assert "hush-hush" not in repr(job)
    assert world.parts.store.webhook_secret(job.id) == "hush-hush"


def test_the_same_id_is_the_same_job_though_its_model_is_gone_by_now(world: World) -> None:
    first = world.submit({}, job_id="batch-0123456789")
    world.parts.store.move(first.id, "submitted", "cancelled", "no")
    world.models.delete("acme", "churn")
    again = world.submit({}, job_id="batch-0123456789")

    assert again == world.parts.store.get(first.id)
    assert len(world.parts.store.jobs()) == 1


def test_an_id_that_chance_gave_to_another_tenant_is_not_told_of(world: World) -> None:
    world.parts.add("batch-0123456789", tenant="globex")

    with pytest.raises(NotNow, match="send the request again, under another key"):
        world.submit({}, job_id="batch-0123456789")


def test_an_id_that_is_taken_is_made_up_anew_with_all_that_hangs_on_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = world.submit({"name": "other"})
    ids = iter([taken.id, "batch-00000000aa"])
    monkeypatch.setattr("launcher.admission.new_id", lambda: next(ids))
    job = world.submit({"name": "mine"})
    folder = world.parts.home.job("batch-00000000aa").path

    assert (job.id, job.name, job.working_dir) == ("batch-00000000aa", "mine", str(folder))
    assert job.spec.output == ParquetOutput(str(folder / "results"))
    assert world.parts.store.get(taken.id).name == "other"


def test_a_job_that_is_only_made_is_not_recorded(world: World) -> None:
    job = world.admission.make(Caller("acme", "submitter"), request({}), job_id="batch-1", schedule_id="sched-1")

    assert (job.id, job.schedule_id, job.total_rows) == ("batch-1", "sched-1", 10)
    with pytest.raises(JobUnknown):
        world.parts.store.get("batch-1")


# --- code --------------------------------------------------------------------------------------------------------


def test_code_comes_from_an_admin_alone(world: World) -> None:
    body = {"model_id": None, "model": {"uri": "churn:Model"}}
    with pytest.raises(RoleLacking, match="python runs code: an admin key"):
        world.submit(body)
    job = world.submit(body, role="admin")

    assert (job.model_id, job.spec.model.flavor) == (None, "python")
    assert job.working_dir == str(world.parts.home.job(job.id).path)


def test_code_that_an_admin_has_registered_runs_for_all_in_the_folder_where_it_is(world: World) -> None:
    world.models.register("acme", "lifetime", ModelSpec("lifetime:Model", "python"), str(world.work / "code"))
    job = world.submit({"model_id": "lifetime"})

    assert (job.working_dir, job.spec.model.uri) == (str(world.work / "code"), "lifetime:Model")


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        pytest.param(
            {"model_id": "other"},
            [f"model_id 'other' is not registered; {REGISTER_MODEL}"],
            id="model",
        ),
        pytest.param(
            {"model_version": 7},
            [f"model_id 'churn' is not registered in version 7; {REGISTER_MODEL}"],
            id="version",
        ),
        pytest.param(
            {"input": {**QUERY, "connection": "other"}},
            [f"input.connection 'other' is not registered; {REGISTER_CONNECTION}"],
            id="connection",
        ),
        pytest.param(
            {"output": {"destination": "table", "table_name": "t", "connection": "other"}},
            [f"output.connection 'other' is not registered; {REGISTER_CONNECTION}"],
            id="output's connection",
        ),
        pytest.param(
            {"input": {"source": "sql", "query": "SELECT 1"}},
            [
                "input.connection is not named, and the service has no default one (PENSTOCK_DEFAULT_CONNECTION); "
                "register one by `penstock connections set` or POST /api/v1/connections, and name it"
            ],
            id="no default",
        ),
        pytest.param(
            {"input": {"source": "parquet", "path": "../secret.parquet"}},
            [
                "input.path '../secret.parquet' is outside of the folders that a request may name; "
                "write a path below them, relative ones start there"
            ],
            id="path",
        ),
        pytest.param(
            {"input": {"source": "parquet", "path": "no.parquet"}},
            ["input.path {work}/no.parquet: there is no such file or folder"],
            id="no file",
        ),
        pytest.param(
            {"webhook": {"url": "http://127.0.0.1/hook"}},
            [
                "webhook.url cannot be used: host '127.0.0.1' leads to this machine; "
                "name another host, or have it allowed by PENSTOCK_ALLOWED_HOSTS"
            ],
            id="webhook",
        ),
        pytest.param(
            {"webhook": {"url": "http://192.0.2.7/hook", "secret": "whsec_!!!!!!!!"}},
            [
                "webhook.secret cannot be used: the webhook's secret begins with whsec_ and does not go on in base64; "
                "write it as it was given to you"
            ],
            id="webhook's secret",
        ),
    ],
)
def test_what_is_not_there_or_may_not_be_reached_is_named(world: World, body: dict[str, Any], lines: list[str]) -> None:
    assert world.refused(body) == [line.replace("{work}", str(world.work)) for line in lines]


def test_all_mistakes_are_told_together(world: World) -> None:
    lines = world.refused(
        {
            "input": {**QUERY, "connection": "one"},
            "output": {"destination": "table", "table_name": "t", "connection": "two"},
            "rejects": {"path": "/etc/rejects"},
            "webhook": {"url": "http://127.0.0.1/hook"},
        }
    )

    assert [line.split()[0] for line in lines] == [
        "rejects.path",
        "input.connection",
        "output.connection",
        "webhook.url",
    ]


def test_a_path_that_is_long_is_not_repeated_whole(world: World) -> None:
    (line,) = world.refused({"input": {"source": "parquet", "path": "/" + "x" * 2000}})

    assert len(line) < 300


def test_another_tenant_has_neither_model_nor_connection(world: World) -> None:
    assert world.refused({}, tenant="globex") == [f"model_id 'churn' is not registered; {REGISTER_MODEL}"]
    world.models.register("globex", "churn", ModelSpec("churn.onnx", "onnx"))

    assert world.refused({"input": QUERY}, tenant="globex") == [
        f"input.connection 'sales' is not registered; {REGISTER_CONNECTION}"
    ]


def test_a_default_that_the_tenant_has_not_registered_is_named(world: World) -> None:
    world.settings["default_connection"] = "warehouse"

    assert world.refused({"input": {"source": "sql", "query": "SELECT 1"}}) == [
        "input.connection is not named, and the service's default one, 'warehouse' (PENSTOCK_DEFAULT_CONNECTION), "
        f"is not registered; {REGISTER_CONNECTION}, or name another"
    ]


def test_a_connection_that_may_not_be_reached_any_more_is_told_without_its_secret(world: World) -> None:
    world.connections.put("acme", "inside", "postgresql://sales:hush@127.0.0.1/sales")
    (line,) = world.refused({"input": {**QUERY, "connection": "inside"}})

    assert line.startswith("input.connection cannot be used: host '127.0.0.1' leads to this machine")
    assert "hush" not in line


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM nobody",
        "DELETE FROM customers",
        "SELECT 1; SELECT 2",
        pytest.param("SELECT " + "(" * 400 + "1" + ")" * 400, id="nested"),
    ],
)
def test_a_query_that_cannot_be_is_refused(world: World, query: str) -> None:
    (line,) = world.refused({"input": {**QUERY, "query": query}})

    assert line.startswith("input.query")


def test_a_link_among_the_files_is_neither_counted_nor_told(world: World, tmp_path: Path) -> None:
    write_rows(world.work / "many" / "a.parquet", 1)
    write_rows(tmp_path / "globex" / "secret.parquet", 7)
    (world.work / "many" / "b.parquet").symlink_to(tmp_path / "globex" / "secret.parquet")
    body = {"input": {"source": "parquet", "path": "many"}}
    refused = world.refused(body)
    with pytest.raises(RequestError) as estimate:
        world.admission.estimate(Caller("acme", "submitter"), request(body))

    assert refused == str(estimate.value).splitlines()
    assert refused == [
        "input.path leads to a file outside of the folders that a request may name; leave out what links elsewhere"
    ]


def test_a_store_that_is_away_is_no_mistake_of_the_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: Any) -> Any:
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(Connections, "get", away)

    with pytest.raises(StoreUnavailable):
        world.submit({"input": QUERY})


# --- rows and time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "rows"), [(FILES, 10), (QUERY, 5)], ids=["files", "query"])
def test_more_rows_than_are_taken_are_refused_at_once(world: World, given: dict[str, str], rows: int) -> None:
    world.settings["max_input_rows"] = rows
    assert world.submit({"input": given}).total_rows == rows
    world.settings["max_input_rows"] = rows - 1

    assert world.refused({"input": given}) == [
        f"input has {rows} rows, and at most {rows - 1} are taken (BATCH_MAX_INPUT_ROWS); score it in pieces"
    ]


def test_a_database_that_has_become_a_link_since_it_was_looked_at_is_not_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.work / "link.db").symlink_to(world.work / "sales.db")
    monkeypatch.setattr(Reach, "uri", lambda *_: f"sqlite:///{world.work}/link.db")

    assert world.submit({"input": QUERY}).total_rows is None


def test_a_database_that_is_away_is_not_waited_for(world: World) -> None:
    world.keyless = True
    world.connections.put("acme", "away", "postgresql://sales@127.0.0.1:1/sales")
    job = world.submit({"input": {**QUERY, "connection": "away"}})

    assert (job.status, job.total_rows) == ("submitted", None)


def test_a_query_that_takes_long_to_count_is_taken_uncounted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.admission._COUNT_S", 0.05)
    endless = "WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n) SELECT id FROM n"

    assert world.submit({"input": {**QUERY, "query": endless}}).total_rows is None


def test_a_pattern_of_very_many_stars_is_no_more_work_than_one(world: World) -> None:
    for n in range(12):
        for m in range(12):
            (world.work / "tree" / f"{n}" / f"{m}" / "leaf").mkdir(parents=True)
    path = "tree/" + "**/" * 300 + "none"

    assert world.refused({"input": {"source": "parquet", "path": path}}) == [
        f"input.path {world.work}/{path}: no file matches the pattern"
    ]


@pytest.mark.parametrize("path", ["in.parquet", "many/**/none"])
def test_files_that_take_long_to_find_are_taken_uncounted_and_not_estimated(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (world.work / "many").mkdir()
    body = {"input": {"source": "parquet", "path": path}}
    monkeypatch.setattr("launcher.admission._COUNT_S", 0.0)
    monkeypatch.setattr("launcher.admission._LOOK_S", 0.0)

    assert world.submit(body).total_rows is None
    with pytest.raises(RequestError, match=r"^input\.path names more folders and files than can be looked at in 0 s"):
        world.admission.estimate(Caller("acme", "submitter"), request(body))


def ran(world: World, job: Job, rows: int, run_s: float) -> None:
    """Have a job end well, as if it had had so many rows."""
    store = world.parts.store
    (claimed,) = store.claim("launcher-one", 1, 9, 30.0)
    assert claimed.id == job.id
    store.move(job.id, "preparing", "running", "test", total_rows=rows)
    store.move(job.id, "running", "completing", "test")
    store.move(
        job.id,
        "completing",
        "completed",
        "test",
        outcome="clean",
        counts=Counts(rows),
        seconds=Seconds(1, run_s, 1, score=run_s),
    )


def test_the_estimate_comes_from_earlier_jobs_of_the_model(world: World) -> None:
    first = world.submit({})
    ran(world, first, rows=100, run_s=998.0)
    second = world.submit({})
    # Ten rows at ten seconds each, and what starts cost.
    world.models.register("acme", "churn", ModelSpec("churn-2.onnx", "onnx"))
    other_version = world.submit({})
    without_id = world.submit({"model_id": None, "model": {"uri": "churn.onnx"}})

    assert first.estimated_seconds == pytest.approx(1.5)
    assert second.estimated_seconds == pytest.approx(101.2, abs=1)
    # What starts cost here; models that cannot be loaded cost nothing.
    assert other_version.estimated_seconds == without_id.estimated_seconds == pytest.approx(2, abs=1)


SLOW = """
import time
import pyarrow as pa
class Slow:
    features = ["id"]
    output_schema = pa.schema([("y", pa.int64())])
    def predict(self, rows):
        time.sleep(0.02 * rows.num_rows)
        return pa.record_batch({"y": rows["id"]})
class Endless(Slow):
    def load(self):
        time.sleep(600)
class Fast(Slow):
    def predict(self, rows):
        return pa.record_batch({"y": rows["id"]})
"""


@pytest.mark.parametrize(("name", "least_s", "most_s"), [("Slow", 50, 10_000), ("Fast", 0.5, 4), ("Endless", 4, 10)])
def test_the_first_job_of_a_model_is_estimated_by_trying_it(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, least_s: float, most_s: float
) -> None:
    (world.work / "slow.py").write_text(SLOW)
    write_rows(world.work / "many.parquet", 10_000)
    world.models.register("acme", "slow", ModelSpec(f"slow:{name}", "python"), working_dir=str(world.work))
    if name == "Endless":
        monkeypatch.setattr("launcher.estimate.estimating._PROBE_S", 0.5)
        least_s = 1.4
    body = {"model_id": "slow", "input": {"source": "parquet", "path": "many.parquet"}}
    first = world.submit(body)

    assert first.estimated_seconds is not None
    assert least_s < first.estimated_seconds < most_s


def test_a_model_is_tried_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.work / "slow.py").write_text(SLOW)
    write_rows(world.work / "many.parquet", 10_000)
    world.models.register("acme", "slow", ModelSpec("slow:Fast", "python"), working_dir=str(world.work))
    tried: list[str] = []

    def call(forks: Any, function: str, arguments: Any, **options: Any) -> Any:
        tried.append(function)
        return {"load_s": 0.0, "call_s": 0.0, "row_s": 0.01, "moving_s": 0.0, "threads": 2.0}

    monkeypatch.setattr("launcher.estimate.estimating.call_aside", call)
    admission, asked = world.admission, request({"model_id": "slow", "input": {**FILES, "path": "many.parquet"}})
    jobs = [admission.submit(Caller("acme", "submitter"), asked) for _ in range(3)]

    assert [job.estimated_seconds for job in jobs] == [51.5] * 3
    assert tried == ["launcher.estimate.probing:probe"]


# --- retries -----------------------------------------------------------------------------------------------------


def came_to(world: World, job: Job, *statuses: Status, **changes: Any) -> Job:
    for status in statuses[:-1]:
        job = world.parts.store.move(job.id, job.status, status, "test")
    return world.parts.store.move(job.id, job.status, statuses[-1], "test", **changes)


def test_a_failed_job_waits_for_another_attempt(world: World) -> None:
    failed = came_to(world, world.submit({}), "preparing", "failed", error="no", outcome="error")
    job = world.admission.retry(failed, max_reject_ratio=0.25)

    assert (job.status, job.attempt, job.error, job.retries) == ("submitted", 2, None, 0)
    assert job.spec == replace(failed.spec, rejects=Rejects(None, 0.25))
    assert world.parts.reasons(job.id)[-1] == "retried on request"


def test_what_cannot_be_retried_says_why(world: World) -> None:
    retry = world.admission.retry
    waiting = world.submit({})
    completed = came_to(world, world.submit({}), "preparing", "running", "completing", "completed", outcome="clean")
    failed = came_to(world, world.submit({}), "failed", error="no")
    expired = world.parts.store.update(failed.id, ["failed"], expired_at=world.parts.clock.now)

    for job, line in [
        (waiting, f"{waiting.id} is submitted; cancel it first, or wait for its end"),
        (completed, f"{completed.id} is completed; retry it with only=rejected, or submit it anew"),
        (expired, f"what was kept of {failed.id} has expired; submit it anew"),
        (
            replace(failed, managed=False),
            f"{failed.id} was run by `penstock run`; go on with it by `penstock resume {failed.id}`",
        ),
    ]:
        with pytest.raises(NotNow) as told:
            retry(job)
        assert str(told.value) == line


def with_rejects(world: World, body: Mapping[str, Any] | None = None) -> Job:
    """A job that has published three rejected rows."""
    job = world.submit(body or {}, role="admin")
    folder = world.parts.home.job(job.id)
    folder.create()
    rejects = Path(job.spec.rejects.path or folder.path / "rejects")
    rejects.mkdir(parents=True)
    rows = pa.table({"id": [1, 2, 3], "position": ["a", "b", "c"], "error_type": ["E"] * 3, "error": ["no"] * 3})
    pq.write_table(rows, rejects / "part-0.parquet")
    (rejects / "_manifest.json").write_text(
        json.dumps({"job_id": job.id, "counts": {}, "files": [{"name": "part-0.parquet"}]})
    )
    steps: tuple[Status, ...] = ("preparing", "running", "completing", "completed")
    return came_to(world, job, *steps, outcome="with_rejects", counts=Counts(7, 3, 0), rejects=str(rejects))


def test_the_rejected_rows_become_a_job_that_adds_to_the_result(world: World) -> None:
    job = with_rejects(world, {"name": "nightly", "labels": {"team": "growth"}})
    child = world.admission.retry_rejected(job)
    folder = world.parts.home.job(child.id).path

    assert (child.status, child.tenant, child.managed, child.retry_of) == ("submitted", "acme", True, job.id)
    assert (child.total_rows, child.name, child.labels, child.model_id) == (3, "nightly", {"team": "growth"}, "churn")
    assert child.spec.input == ParquetInput((str(folder / "input"),))
    assert pq.read_table(folder / "input" / "part-0.parquet").column("id").to_pylist() == [1, 2, 3]
    assert isinstance(job.spec.output, ParquetOutput)
    assert child.spec.output == ParquetOutput(job.spec.output.path, "append", ("id",), job.id)
    assert child.spec.rejects == Rejects(str(folder / "rejects"), 1.0)
    # It is not the one that keeps the result.
    assert not child.keeps_result
    assert sorted(path.name for path in folder.iterdir()) == ["input", "progress", "reserve"]


def test_rejected_rows_are_estimated_by_their_number(world: World) -> None:
    child = world.admission.retry_rejected(with_rejects(world))

    assert child.estimated_seconds is not None
    assert 0 < child.estimated_seconds < 10


def test_the_rejected_rows_are_kept_though_they_go_where_they_lay(world: World) -> None:
    job = with_rejects(world, {"rejects": {"path": "rejects"}})
    child = world.admission.retry_rejected(job)
    for file in (world.work / "rejects").iterdir():
        file.unlink()

    assert len(pq.read_table(world.parts.home.job(child.id).path / "input")) == 3
    assert child.spec.rejects == Rejects(str(world.work / "rejects"), 1.0)


def test_a_python_model_declares_its_columns_itself_when_rejected_rows_are_scored_again(world: World) -> None:
    job = with_rejects(world, {"model_id": None, "model": {"uri": "churn:Model"}})

    assert world.admission.retry_rejected(job).spec.model == job.spec.model


def test_rejected_rows_are_scored_again_by_one_job_at_a_time(world: World) -> None:
    job = with_rejects(world)
    first = world.admission.retry_rejected(job)
    with pytest.raises(NotNow) as told:
        world.admission.retry_rejected(job)
    failed = came_to(world, first, "failed", error="no")
    second = world.admission.retry_rejected(job)
    with pytest.raises(NotNow) as not_both:
        world.admission.retry(failed)

    assert str(told.value) == f"the rejected rows of {job.id} are scored again already, by {first.id}; look at that job"
    assert second.id != first.id
    assert (
        str(not_both.value)
        == f"the rejected rows of {job.id} are scored again already, by {second.id}; look at that job"
    )
    came_to(world, second, "cancelled")
    assert world.admission.retry(failed).status == "submitted"


def test_who_asks_again_for_what_was_done_since_they_asked_gets_the_same_job(world: World) -> None:
    job = with_rejects(world)
    asked = datetime.now(UTC)
    child = world.admission.retry_rejected(job, since=asked)

    assert world.admission.retry_rejected(job, since=asked) == child
    failed = came_to(world, child, "failed", error="no")
    assert world.admission.retry_rejected(job, since=asked) == failed
    # A minute later it is another request.
    assert world.admission.retry_rejected(job, since=asked + timedelta(minutes=1)).id != child.id


def test_who_asks_for_the_same_at_the_same_time_disturbs_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job = with_rejects(world)
    child = world.admission.retry_rejected(job)
    file = world.parts.home.job(child.id).path / "input" / "part-0.parquet"
    before = file.stat().st_ino
    # As if it had looked before the other had come so far.
    monkeypatch.setattr(Admission, "_retry_of", lambda self, job_id: child.id)
    with pytest.raises(NotNow, match="are scored again already, by"):
        world.admission.retry_rejected(job)

    assert file.stat().st_ino == before
    assert [path.name for path in file.parent.parent.iterdir() if path.name.startswith(".")] == []


def test_where_no_rejected_rows_are_the_line_says_why(world: World, tmp_path: Path) -> None:
    steps: tuple[Status, ...] = ("preparing", "running", "completing", "completed")
    clean = came_to(world, world.submit({}), *steps, outcome="clean", counts=Counts(10))
    failed = came_to(world, world.submit({}), "failed", error="no")
    gone = with_rejects(world)
    world.parts.home.job(gone.id).delete()
    emptied = with_rejects(world)
    (world.parts.home.job(emptied.id).path / "rejects" / "part-0.parquet").unlink()

    for job, line in [
        (clean, f"{clean.id} rejected no row; there is nothing to score again"),
        (
            failed,
            f"{failed.id} is failed: nothing of it is published; retry it first, with max_reject_ratio if it failed "
            "of its rejects",
        ),
        (gone, f"the rejects of {gone.id} are gone"),
        (emptied, f"the rejects of {emptied.id} are gone from {emptied.rejects}"),
    ]:
        with pytest.raises(NotNow) as told:
            world.admission.retry_rejected(job)
        assert str(told.value) == line
