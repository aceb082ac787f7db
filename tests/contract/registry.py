"""What registered models and named connections must do, wherever they are kept."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from launcher.errors import ConnectionInUse, ConnectionUnknown, ModelInUse, ModelUnknown
from launcher.state.database import Database
from launcher.state.registry import Connections, Model, Models, NamedConnection
from launcher.state.schedules import Schedule, Schedules
from launcher.state.sql import SqlJobStore
from pipelines.spec import SqlInput, TableOutput
from predictors.base import ModelSpec
from tests.contract.job_store import FILES, SPEC, T0, Clock, come_to, queued

CHURN = ModelSpec("churn.onnx", "onnx", ("tenure", "Größe"), "pass", {"variable": "score", "p": ("no", "yes")})
FRAUD = ModelSpec("models:Fraud", "python")


def schedule(schedule_id: str, job: dict[str, Any], tenant: str = "acme") -> Schedule:
    return Schedule(schedule_id, tenant, "0 2 * * *", "UTC", job, "submitter", T0)


class ModelsContract:
    """Mix with one of `tests.contract.databases`."""

    @pytest.fixture
    def models(self, open_database: Callable[[], Database]) -> Models:
        return Models(open_database())

    @pytest.fixture
    def jobs(self, open_database: Callable[[], Database]) -> SqlJobStore:
        return SqlJobStore(open_database())

    @pytest.fixture
    def schedules(self, open_database: Callable[[], Database]) -> Schedules:
        return Schedules(open_database())

    @pytest.mark.parametrize("spec", [CHURN, FRAUD], ids=["onnx", "python"])
    def test_what_was_registered_is_got_back_equal(self, models: Models, spec: ModelSpec) -> None:
        registered = models.register("acme", "churn", spec, "/models", "who leaves?")

        assert registered == Model("acme", "churn", 1, spec, "/models", "who leaves?", T0)
        assert models.get("acme", "churn") == models.get("acme", "churn", 1) == registered
        assert models.versions("acme", "churn") == [registered]

    def test_each_change_is_the_next_version(self, models: Models, clock: Clock) -> None:
        first = models.register("acme", "churn", CHURN)
        clock.advance(1)
        second = models.register("acme", "churn", replace(CHURN, nulls="fail"))
        third = models.register("acme", "churn", replace(CHURN, nulls="fail"), "/elsewhere")
        # What an older version was is a version again.
        fourth = models.register("acme", "churn", CHURN)

        assert [each.version for each in (first, second, third, fourth)] == [1, 2, 3, 4]
        assert second.created_at == T0 + timedelta(seconds=1)
        assert models.get("acme", "churn") == fourth
        assert models.get("acme", "churn", 2) == second
        assert models.versions("acme", "churn") == [fourth, third, second, first]

    def test_what_the_newest_version_is_already_is_no_further_one(self, models: Models, clock: Clock) -> None:
        first = models.register("acme", "churn", CHURN, "/models")
        clock.advance(1)

        assert models.register("acme", "churn", CHURN, "/models") == first
        described = models.register("acme", "churn", CHURN, "/models", "who leaves?")
        assert described == replace(first, description="who leaves?")
        assert models.register("acme", "churn", CHURN, "/models") == described
        assert models.versions("acme", "churn") == [described]

    def test_of_many_that_register_each_has_a_version_of_its_own(
        self, models: Models, open_database: Callable[[], Database]
    ) -> None:
        registries = [Models(open_database()) for _ in range(4)]
        start = threading.Barrier(8)

        def register(n: int) -> Model:
            start.wait()
            return registries[n % 4].register("acme", "churn", replace(CHURN, uri=f"churn-{n}.onnx"))

        with ThreadPoolExecutor(8) as threads:
            registered = list(threads.map(register, range(8)))

        assert sorted(each.version for each in registered) == list(range(1, 9))
        newest_first = sorted(registered, key=lambda each: each.version, reverse=True)
        assert models.versions("acme", "churn") == newest_first

    def test_of_many_that_register_the_same_all_get_one_version(
        self, models: Models, open_database: Callable[[], Database]
    ) -> None:
        registries = [Models(open_database()) for _ in range(4)]
        start = threading.Barrier(8)

        def register(n: int) -> Model:
            start.wait()
            return registries[n % 4].register("acme", "churn", CHURN)

        with ThreadPoolExecutor(8) as threads:
            registered = list(threads.map(register, range(8)))

        assert registered == [models.get("acme", "churn")] * 8
        assert registered[0].version == 1

    def test_a_tenant_has_models_of_its_own(self, models: Models) -> None:
        models.register("acme", "churn", CHURN)
        theirs = models.register("bolt", "churn", FRAUD)

        assert theirs.version == 1
        assert models.get("bolt", "churn").spec == FRAUD
        with pytest.raises(ModelUnknown):
            models.get("third", "churn")
        assert models.page("third", 9) == []
        models.delete("bolt", "churn")
        assert models.get("acme", "churn").spec == CHURN

    def test_an_unknown_model_or_version_is_named(self, models: Models) -> None:
        models.register("acme", "churn", CHURN)

        with pytest.raises(ModelUnknown, match="there is no model 'no'; `penstock models list` shows all"):
            models.get("acme", "no")
        with pytest.raises(ModelUnknown, match="there is no model 'churn' version 2; "):
            models.get("acme", "churn", 2)
        with pytest.raises(ModelUnknown, match="there is no model 'no'; "):
            models.versions("acme", "no")
        with pytest.raises(ModelUnknown, match="there is no model 'churn' version 2; "):
            models.delete("acme", "churn", 2)

    def test_pages_hold_the_newest_version_of_each(self, models: Models) -> None:
        for model_id in ("c", "a", "d", "b"):
            models.register("acme", model_id, CHURN)
        newest = models.register("acme", "b", FRAUD)
        first = models.page("acme", 3)
        second = models.page("acme", 3, first[-1].model_id)

        assert [each.model_id for each in first] == ["a", "b", "c"]
        assert first[1] == newest
        assert [each.model_id for each in second] == ["d"]
        assert models.page("acme", 3, "d") == []

    def test_a_deleted_version_is_gone_and_its_number_is_not_given_again(self, models: Models) -> None:
        first = models.register("acme", "churn", CHURN)
        models.register("acme", "churn", FRAUD)
        models.delete("acme", "churn", 2)

        assert models.get("acme", "churn") == first
        assert models.page("acme", 9) == [first]
        with pytest.raises(ModelUnknown):
            models.get("acme", "churn", 2)
        assert models.register("acme", "churn", FRAUD).version == 3
        models.delete("acme", "churn")
        with pytest.raises(ModelUnknown):
            models.get("acme", "churn")
        assert models.page("acme", 9) == []
        assert models.register("acme", "churn", FRAUD).version == 4

    def test_a_version_that_a_job_uses_stays_until_the_job_is_over(self, models: Models, jobs: SqlJobStore) -> None:
        models.register("acme", "churn", CHURN)
        models.register("acme", "churn", FRAUD)
        jobs.add(queued("batch-1", "acme", model_id="churn", model_version=1), "POST")
        # Nobody else's job is in the way.
        jobs.add(queued("batch-2", "bolt", model_id="churn", model_version=2), "POST")
        jobs.add(queued("batch-3", "acme", model_id="other", model_version=2), "POST")

        for status in ("submitted", "preparing", "running", "completing"):
            if status != "submitted":
                jobs.move("batch-1", jobs.get("batch-1").status, status, "on")  # type: ignore[arg-type]
            used = "model 'churn' version 1 is used by batch-1; wait until it is over, or delete that first"
            with pytest.raises(ModelInUse, match=used):
                models.delete("acme", "churn", 1)
            with pytest.raises(ModelInUse, match="model 'churn' is used by batch-1"):
                models.delete("acme", "churn")
        assert len(models.versions("acme", "churn")) == 2
        models.delete("acme", "churn", 2)
        jobs.move("batch-1", "completing", "completed", "published")
        models.delete("acme", "churn", 1)
        with pytest.raises(ModelUnknown):
            models.get("acme", "churn")

    def test_a_version_that_a_schedule_uses_stays(self, models: Models, schedules: Schedules) -> None:
        for nulls in ("reject", "pass", "fail"):
            models.register("acme", "churn", replace(CHURN, nulls=nulls))  # type: ignore[arg-type]
        schedules.add(schedule("sched-newest", {"model_id": "churn"}))
        schedules.add(schedule("sched-first", {"model_id": "churn", "model_version": 1}))
        schedules.add(schedule("sched-theirs", {"model_id": "churn", "model_version": 2}, "bolt"))

        with pytest.raises(ModelInUse, match="version 3 is used by sched-newest"):
            models.delete("acme", "churn", 3)
        with pytest.raises(ModelInUse, match="version 1 is used by sched-first"):
            models.delete("acme", "churn", 1)
        models.delete("acme", "churn", 2)
        schedules.delete("sched-newest")
        models.delete("acme", "churn", 3)
        with pytest.raises(ModelInUse, match="'churn' is used by sched-first"):
            models.delete("acme", "churn")


class ConnectionsContract:
    """Mix with one of `tests.contract.databases`."""

    @pytest.fixture
    def connections(self, open_database: Callable[[], Database]) -> Connections:
        return Connections(open_database())

    @pytest.fixture
    def jobs(self, open_database: Callable[[], Database]) -> SqlJobStore:
        return SqlJobStore(open_database())

    @pytest.fixture
    def schedules(self, open_database: Callable[[], Database]) -> Schedules:
        return Schedules(open_database())

    def test_what_was_put_is_got_back_and_never_shown(self, connections: Connections) -> None:
        put = connections.put("acme", "warehouse", "postgresql://me:hunter2@host/db", "the big one")

        assert put == NamedConnection("acme", "warehouse", "postgresql://me:hunter2@host/db", "the big one", T0, T0)
        assert connections.get("acme", "warehouse") == put
        assert "hunter2" not in repr(put)

    def test_a_name_that_is_put_again_stands_for_the_new_one(self, connections: Connections, clock: Clock) -> None:
        connections.put("acme", "warehouse", "postgresql://old", "old")
        clock.advance(1)
        put = connections.put("acme", "warehouse", "postgresql://new")

        assert put == NamedConnection("acme", "warehouse", "postgresql://new", None, T0, T0 + timedelta(seconds=1))
        assert connections.page("acme", 9) == [put]

    def test_a_tenant_has_connections_of_its_own(self, connections: Connections) -> None:
        connections.put("acme", "warehouse", "postgresql://acme")
        connections.put("bolt", "warehouse", "postgresql://bolt")
        connections.delete("acme", "warehouse")

        assert connections.get("bolt", "warehouse").uri == "postgresql://bolt"
        assert connections.page("acme", 9) == []

    def test_an_unknown_connection_is_named(self, connections: Connections) -> None:
        unknown = "there is no connection 'no'; `penstock connections list` shows all"

        with pytest.raises(ConnectionUnknown, match=unknown):
            connections.get("acme", "no")
        with pytest.raises(ConnectionUnknown, match=unknown):
            connections.delete("acme", "no")

    def test_pages_go_by_name(self, connections: Connections) -> None:
        for name in ("c", "a", "b"):
            connections.put("acme", name, "postgresql://x")
        first = connections.page("acme", 2)

        assert [each.name for each in first] == ["a", "b"]
        assert [each.name for each in connections.page("acme", 2, "b")] == ["c"]

    @pytest.mark.parametrize(
        "spec",
        [
            replace(FILES, input=SqlInput("warehouse", "SELECT 1")),
            replace(FILES, output=TableOutput("warehouse", "scores")),
        ],
        ids=["input", "output"],
    )
    def test_a_connection_that_a_job_names_stays_until_the_job_is_over(
        self, connections: Connections, jobs: SqlJobStore, spec: Any
    ) -> None:
        connections.put("acme", "warehouse", "postgresql://x")
        connections.put("acme", "ware", "postgresql://x")
        jobs.add(replace(queued("batch-1", "acme"), spec=spec), "POST")
        jobs.add(replace(queued("batch-2", "acme"), spec=SPEC), "POST")

        with pytest.raises(ConnectionInUse, match="connection 'warehouse' is used by batch-1; wait until it is over"):
            connections.delete("acme", "warehouse")
        connections.delete("acme", "ware")
        come_to(jobs, "batch-1", "failed")
        connections.delete("acme", "warehouse")
        assert connections.page("acme", 9) == []

    @pytest.mark.parametrize(
        "body",
        [
            {"model_id": "m", "input": {"source": "sql", "connection": "warehouse", "query": "SELECT 1"}},
            {"model_id": "m", "input": {}, "output": {"destination": "table", "connection": "warehouse"}},
        ],
        ids=["input", "output"],
    )
    def test_a_connection_that_a_schedule_names_stays(
        self, connections: Connections, schedules: Schedules, body: dict[str, Any]
    ) -> None:
        connections.put("acme", "warehouse", "postgresql://x")
        schedules.add(schedule("sched-theirs", body, "bolt"))
        schedules.add(schedule("sched-none", {"input": None, "output": "warehouse"}))
        schedules.add(schedule("sched-1", body))

        with pytest.raises(ConnectionInUse, match="connection 'warehouse' is used by sched-1"):
            connections.delete("acme", "warehouse")
        schedules.delete("sched-1")
        connections.delete("acme", "warehouse")
