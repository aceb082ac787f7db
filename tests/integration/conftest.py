"""Services that tests of the API share; each test has tenants of its own. Databases that tests of tables share."""

import multiprocessing
import uuid
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext

import pytest

from tests.api import ASIDE, Api, serving
from tests.servers import Postgres
from tests.tables import execute


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A service that asks for keys."""
    with serving(tmp_path_factory.mktemp("api"), keyless=False, preload=ASIDE) as served:
        yield served


@pytest.fixture(scope="session")
def keyless_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A service without keys. No test may make one."""
    with serving(tmp_path_factory.mktemp("keyless"), keyless=True, preload=ASIDE) as served:
        yield served


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test knows."""
    return f"tenant-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def shared_database(postgres: Postgres) -> str:
    """A database in which each test has a schema of its own."""
    return postgres.database()


@pytest.fixture
def schema(shared_database: str) -> str:
    """URI of a database in which this test has a schema of its own, for tests that need no more."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    execute(shared_database, f"CREATE SCHEMA {name}")
    return f"{shared_database}?options=-csearch_path%3D{name}"


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Makes processes that have imported what sinks need, and can be killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transforms.sinks.table", "adbc_driver_postgresql.dbapi"])
    return context
