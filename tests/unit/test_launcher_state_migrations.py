"""The migrations make the tables that the launcher works with, in SQLite and in PostgreSQL."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from launcher.errors import StoreUnavailable
from launcher.state import migrate
from launcher.state.database import HEAD, Database
from launcher.state.sql import SqlJobStore
from launcher.state.tables import metadata
from tests.contract.databases import InPostgres, InSqlite, driver_url
from tests.contract.job_store import queued

ROOT = Path(__file__).parents[2]


class _Migrations:
    def test_a_new_store_has_the_tables_that_the_launcher_works_with(
        self, open_database: Callable[[], Database]
    ) -> None:
        with open_database().reading() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            differences = compare_metadata(context, metadata)
            indexes = {
                table.name: {each["name"] for each in sa.inspect(connection).get_indexes(table.name)}
                for table in metadata.tables.values()
            }

        assert differences == []
        # What is compared above leaves out indexes that SQLite cannot tell from others.
        assert indexes == {table.name: {each.name for each in table.indexes} for table in metadata.tables.values()}

    def test_a_store_from_before_the_first_release_is_refused(self, open_database: Callable[[], Database]) -> None:
        database = open_database()
        with database.transaction() as connection:
            connection.execute(sa.text("DROP TABLE alembic_version"))
            connection.execute(sa.text("CREATE TABLE penstock_store (version INTEGER)"))

        with pytest.raises(StoreUnavailable) as caught:
            open_database()
        assert str(caught.value) == (
            f"the job store {database.where} was made by Penstock before its first release; "
            "set PENSTOCK_HOME to another folder"
        )

    def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(
        self, open_database: Callable[[], Database]
    ) -> None:
        database = open_database()
        with database.transaction() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

        with pytest.raises(StoreUnavailable) as caught:
            open_database()
        assert str(caught.value) == (
            f"the job store {database.where} is of version 9999, this Penstock reads up to {HEAD}; "
            "use the Penstock that made it, or set PENSTOCK_HOME to another folder"
        )
        with database.reading() as connection:
            assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"

    def test_a_store_of_the_first_version_keeps_its_jobs(self, open_database: Callable[[], Database]) -> None:
        database = open_database()
        store = SqlJobStore(database)
        for n in (1, 2):
            store.add(queued(f"batch-{n}"), "POST")
            store.move(f"batch-{n}", "submitted", "failed", "no")
        store.expire("batch-1")
        with database.transaction() as connection:
            # As the first version had it.
            connection.execute(sa.text("DROP INDEX ix_jobs_untidied"))
            for column in ("tidied_at", "notices", "speed", "estimated_seconds"):
                connection.execute(sa.text(f"ALTER TABLE jobs DROP COLUMN {column}"))
            connection.execute(sa.text("ALTER TABLE jobs ADD COLUMN estimated_minutes INTEGER"))
            connection.execute(sa.text("UPDATE jobs SET estimated_minutes = 2 WHERE id = 'batch-2'"))
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))

        again = SqlJobStore(open_database())

        assert {job.id: job.estimated_seconds for job in again.jobs()} == {"batch-1": None, "batch-2": 120.0}
        # What had expired was tidied away then.
        assert again.untidied(9) == []
        again.expire("batch-2")
        assert [job.id for job in again.untidied(9)] == ["batch-2"]


class TestSqlite(InSqlite, _Migrations):
    pass


class TestPostgres(InPostgres, _Migrations):
    pass


def test_the_newest_migration_is_the_version_that_is_written_down() -> None:
    assert migrate.versions()[0] == HEAD
    assert len(migrate.versions()) == len(list((ROOT / "launcher/state/migrations/versions").glob("v*.py")))


# Says that it is ready, waits for a line, opens the store and works with it.
_OPEN = """
import sys
from launcher.state.database import Database
from launcher.state.keys import KeyStore
print("ready", flush=True)
sys.stdin.readline()
print(KeyStore(Database(sys.argv[1], "in PostgreSQL")).create("acme", "viewer", sys.argv[2])[0].name)
"""


def test_of_many_processes_that_open_a_new_store_in_postgres_all_can(database: str) -> None:
    url = driver_url(database)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN, url, f"process {n}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(8)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60) for process in processes]

    assert [answer.strip() for answer, _ in answers] == [f"process {n}" for n in range(8)], answers


def test_postgres_tells_the_time_to_all_launchers(database: str) -> None:
    store = Database(driver_url(database), "in PostgreSQL")
    with store.transaction() as connection:
        first = store.now(connection)
        (theirs,) = connection.execute(sa.text("SELECT clock_timestamp()")).one()
        second = store.now(connection)
    store.close()

    assert first <= theirs <= second
    # Also within one transaction it goes on.
    assert first < second
    assert first.utcoffset() == second.utcoffset()
    assert str(first.tzinfo) == "UTC"
