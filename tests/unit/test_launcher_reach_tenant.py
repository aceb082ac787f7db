"""What a tenant may reach: folders, hosts and databases, by a setting, a registered name or the service's default."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import (
    AddressForbidden,
    ConnectionUnknown,
    HostUnknown,
    LauncherError,
    PathForbidden,
    UriForbidden,
)
from launcher.reach.egress import Lookups
from launcher.reach.tenant import Reach, shared_folders
from launcher.settings import Settings
from launcher.state.keys import Key
from launcher.state.registry import Connections
from pipelines.spec import JobSpec, ParquetInput, ParquetOutput, SqlInput, TableOutput
from predictors.base import ModelSpec
from tests.contract.job_store import T0
from tests.unit.launcher_parts import Parts, parts

MODEL = ModelSpec("churn.onnx", "onnx")
# Of the documentation's network, which leads nowhere and needs no resolver.
AWAY = "postgresql://sales:hush@192.0.2.7/sales"
HERE = "postgresql://sales:hush@127.0.0.1/sales"


@dataclass
class World:
    parts: Parts
    work: Path
    keyless: bool = False

    def reach(self, **settings: Any) -> Reach:
        connections = Connections(self.parts.database)
        return Reach(Settings(**settings), connections, self.parts.home.path, self.work, lambda: self.keyless)

    def register(self, name: str, uri: str, tenant: str = "acme") -> None:
        Connections(self.parts.database).put(tenant, name, uri)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # The user's own password file would be asked for.
    monkeypatch.setenv("HOME", str(tmp_path))
    work = tmp_path / "work"
    work.mkdir()
    with parts(tmp_path) as made:
        yield World(made, work)


# --- folders -----------------------------------------------------------------------------------------------------


def test_where_nothing_is_set_the_working_folder_is_open(world: World) -> None:
    confinement = world.reach().confinement("acme")

    assert confinement.confined("input.path", "in.parquet") == str(world.work / "in.parquet")
    with pytest.raises(PathForbidden):
        confinement.confined("input.path", str(world.work.parent / "other" / "in.parquet"))


def test_a_colon_in_the_name_of_the_working_folder_parts_nothing(world: World, tmp_path: Path) -> None:
    world.work = tmp_path / "work:2 {tenant}"

    assert world.reach().folders("acme") == (str(tmp_path / "work:2 {tenant}"),)


def test_each_tenant_has_folders_of_its_own(world: World, tmp_path: Path) -> None:
    reach = world.reach(allowed_paths=f"{tmp_path}/data/{{tenant}}:{tmp_path}/shared")

    assert reach.folders("acme") == (f"{tmp_path}/data/acme", f"{tmp_path}/shared")
    assert reach.confinement("acme").confined("input.path", f"{tmp_path}/shared/x") == f"{tmp_path}/shared/x"
    with pytest.raises(PathForbidden):
        reach.confinement("acme").confined("input.path", f"{tmp_path}/data/globex/x")
    with pytest.raises(LauncherError, match="cannot be used"):
        reach.confinement("../globex")


def test_the_home_stays_closed_wherever_it_lies(world: World, tmp_path: Path) -> None:
    (world.work / "link").symlink_to(world.parts.home.path)
    reach = world.reach(allowed_paths=str(tmp_path))

    for path in (f"{tmp_path}/home", f"{tmp_path}/home/penstock.db", "home/jobs/*", f"{world.work}/link/jobs"):
        with pytest.raises(PathForbidden, match="outside of the folders"):
            reach.confinement("acme").confined("input.path", path)


@pytest.mark.parametrize(
    ("paths", "tenants", "line"),
    [
        pytest.param(None, ["acme", "globex"], "2 tenants (acme, globex) share folders, and each may", id="not set"),
        pytest.param("/data", ["acme", "globex"], "PENSTOCK_ALLOWED_PATHS has no {tenant}", id="one for all"),
        pytest.param(None, [f"t{n}" for n in range(9)], "9 tenants (t0, t1, t2, t3, t4, …) share", id="many"),
        pytest.param("/data/{tenant}:/models", ["acme", "globex"], None, id="of their own"),
        pytest.param(None, ["acme", "acme"], None, id="alone"),
        pytest.param(None, ["acme", "-globex"], None, id="the other's key is revoked"),
        pytest.param(None, [], None, id="nobody"),
    ],
)
def test_tenants_that_share_their_folders_are_told_of(paths: str | None, tenants: list[str], line: str | None) -> None:
    keys = [
        Key(f"{n}", each.lstrip("-"), "viewer", None, T0, T0 if each.startswith("-") else None)
        for n, each in enumerate(tenants)
    ]

    told = shared_folders(Settings(allowed_paths=paths), keys)

    assert (told is None) == (line is None)
    assert line is None or line in (told or "")


# --- connections -------------------------------------------------------------------------------------------------


def test_a_tenants_database_is_reached_at_the_address_that_was_judged(world: World) -> None:
    world.register("sales", AWAY)

    assert world.reach().uri("acme", "sales") == f"{AWAY}?hostaddr=192.0.2.7"
    with pytest.raises(ConnectionUnknown):
        world.reach().uri("globex", "sales")


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        pytest.param(HERE, AddressForbidden, id="loopback"),
        pytest.param("postgresql://sales:hush@[::1]/sales", AddressForbidden, id="loopback by IPv6"),
        pytest.param("postgresql://sales:hush@169.254.169.254/sales", AddressForbidden, id="link-local"),
        pytest.param("postgresql://sales:hush@/sales?host=/run/postgresql", UriForbidden, id="socket"),
        pytest.param("postgresql://sales:${SECRET}@192.0.2.7/sales", UriForbidden, id="variable"),
        pytest.param("mysql://sales:hush@192.0.2.7/sales", UriForbidden, id="another scheme"),
        pytest.param("sqlite:////etc/hush.db", PathForbidden, id="file elsewhere"),
        pytest.param("sqlite:///../hush.db", PathForbidden, id="file above"),
        pytest.param("sqlite:///${HOME}/hush.db", PathForbidden, id="file by variable"),
    ],
)
def test_what_leads_elsewhere_is_refused_when_it_comes_and_when_it_is_used(
    world: World, uri: str, error: type[LauncherError]
) -> None:
    world.register("sales", uri)
    with pytest.raises(error) as when_it_comes:
        world.reach().check_connection("acme", uri)
    with pytest.raises(error):
        world.reach().uri("acme", "sales")

    assert "hush@" not in str(when_it_comes.value)


def test_what_the_operator_allows_is_reached(world: World) -> None:
    world.register("sales", HERE)
    reach = world.reach(allowed_hosts="127.0.0.1")

    assert reach.check_connection("acme", HERE) == HERE
    assert reach.uri("acme", "sales") == f"{HERE}?hostaddr=127.0.0.1"


def test_a_name_is_looked_up_once_for_a_job(world: World) -> None:
    world.register("sales", "postgresql://sales:hush@db/sales")
    asked: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["192.0.2.7"]

    reach = world.reach()
    # As the cached property would be, but for its resolver.
    reach.__dict__["egress"] = replace(reach.egress, look_up=resolver)

    assert reach.uri("acme", "sales") == "postgresql://sales:hush@db/sales?hostaddr=192.0.2.7"
    assert asked == ["db"]


def test_a_tenant_has_lookups_of_its_own(world: World) -> None:
    world.register("sales", "postgresql://sales:hush@slow/sales")
    world.register("sales", "postgresql://sales:hush@db/sales", "globex")
    go = threading.Event()

    def resolver(host: str, port: int) -> list[str]:
        if host == "slow":
            go.wait()
        return ["192.0.2.7"]

    reach = world.reach()
    reach.__dict__["egress"] = replace(reach.egress, look_up=resolver, patience_s=0.05, lookups=Lookups(9, 1))
    try:
        for _ in range(2):
            with pytest.raises(HostUnknown):
                reach.uri("acme", "sales")

        assert "192.0.2.7" in reach.uri("globex", "sales")
        # And so when it is registered.
        with pytest.raises(HostUnknown):
            reach.check_connection("acme", "postgresql://sales:hush@db/sales")
    finally:
        go.set()


def test_without_keys_everything_is_reached_that_whoever_started_the_service_can_reach(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALES_PASSWORD", "p@ss")
    world.keyless = True
    world.register("sales", "postgresql://sales:${SALES_PASSWORD}@127.0.0.1/sales", "default")

    assert world.reach().check_connection("default", HERE) == HERE
    assert world.reach().uri("default", "sales") == "postgresql://sales:p%40ss@127.0.0.1/sales"
    with pytest.raises(PathForbidden):
        world.reach().check_connection("default", "sqlite:////etc/hush.db")


def test_once_there_is_a_key_what_was_registered_before_is_judged(world: World) -> None:
    world.keyless = True
    reach = world.reach()
    world.register("sales", HERE, "default")
    assert reach.uri("default", "sales") == HERE
    world.keyless = False

    with pytest.raises(AddressForbidden):
        reach.uri("default", "sales")


def test_a_file_of_sqlite_is_known_by_its_real_path(world: World) -> None:
    (world.work / "real.db").touch()
    (world.work / "link.db").symlink_to("real.db")

    assert world.reach().check_connection("acme", "sqlite:///link.db") == f"sqlite:///{world.work}/real.db"


# --- the default -------------------------------------------------------------------------------------------------


def test_without_a_default_there_is_none(world: World) -> None:
    with pytest.raises(ConnectionUnknown):
        world.reach().uri("acme", "default")


def test_a_tenants_own_default_comes_first(world: World) -> None:
    world.register("default", AWAY)

    assert world.reach(default_connection="postgresql://other@db/other").uri("acme", "default").startswith(AWAY)


def test_the_default_is_the_operators_and_may_lead_anywhere(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALES_PASSWORD", "p@ss")
    reach = world.reach(default_connection="postgresql://sales:${SALES_PASSWORD}@127.0.0.1/sales")

    assert reach.uri("acme", "default") == "postgresql://sales:p%40ss@127.0.0.1/sales"


def test_a_default_that_is_a_variable_as_a_whole_is_filled_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALES", HERE)

    assert world.reach(default_connection="${SALES}").uri("acme", "default") == HERE


def test_a_default_with_a_variable_that_is_not_set_is_told_without_the_rest(world: World) -> None:
    reach = world.reach(default_connection="postgresql://sales:hush@${NO_SUCH_HOST}/sales")

    with pytest.raises(LauncherError, match="NO_SUCH_HOST is not set") as told:
        reach.uri("acme", "default")
    assert "hush" not in str(told.value)


def test_a_default_may_be_a_name_that_each_tenant_has_given(world: World) -> None:
    reach = world.reach(default_connection="sales")
    world.register("sales", AWAY)

    assert reach.uri("acme", "default") == f"{AWAY}?hostaddr=192.0.2.7"
    with pytest.raises(ConnectionUnknown, match="'sales'"):
        reach.uri("globex", "default")


def test_a_default_that_names_itself_is_none(world: World) -> None:
    with pytest.raises(ConnectionUnknown):
        world.reach(default_connection="default").uri("acme", "default")


def test_a_default_file_is_where_the_service_was_started_wherever_the_job_runs(world: World, tmp_path: Path) -> None:
    relative = world.reach(default_connection="sqlite:///churn.db")
    elsewhere = world.reach(default_connection=f"sqlite:///{tmp_path}/other/churn.db")

    assert relative.uri("acme", "default") == f"sqlite:///{world.work}/churn.db"
    assert elsewhere.uri("acme", "default") == f"sqlite:///{tmp_path}/other/churn.db"


# --- jobs --------------------------------------------------------------------------------------------------------


def test_a_job_gets_the_databases_that_it_names_each_once(world: World) -> None:
    world.register("sales", AWAY)
    world.register("results", f"sqlite:///{world.work}/results.db")
    job = world.parts.add(tenant="acme")

    def uris(given: SqlInput | ParquetInput, wanted: TableOutput | ParquetOutput) -> list[str]:
        spec = JobSpec(MODEL, given, wanted)
        assert list(world.reach().uris(replace(job, spec=spec))) == spec.connection_names()
        return spec.connection_names()

    assert uris(SqlInput("sales", "SELECT 1"), TableOutput("results", "t")) == ["sales", "results"]
    assert uris(SqlInput("sales", "SELECT 1"), TableOutput("sales", "t")) == ["sales"]
    assert uris(ParquetInput(("in",)), ParquetOutput("out")) == []
