"""Both databases that a store may be in. A contract class becomes a test by being mixed with one of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.state.database import Database
from tests.contract.job_store import Clock


class InSqlite:
    """Gives `open_database`, each call of which opens the same file again, and its `clock`."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def open_database(self, tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Database]]:
        yield from _closing(lambda: Database.at(tmp_path / "penstock.db", clock))


class InPostgres:
    """The same of a fresh database of a PostgreSQL server."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def open_database(self, database: str, clock: Clock) -> Iterator[Callable[[], Database]]:
        yield from _closing(lambda: Database(driver_url(database), "in PostgreSQL", clock))


def driver_url(uri: str) -> str:
    """A URI of PostgreSQL as SQLAlchemy wants it."""
    return uri.replace("postgresql://", "postgresql+psycopg://")


def _closing(open_one: Callable[[], Database]) -> Iterator[Callable[[], Database]]:
    opened: list[Database] = []

    def open_database() -> Database:
        opened.append(open_one())
        return opened[-1]

    yield open_database
    for each in opened:
        each.close()
