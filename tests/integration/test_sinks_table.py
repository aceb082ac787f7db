"""Tables as sinks, on a real PostgreSQL and on SQLite files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest
from adbc_driver_manager import dbapi

from tests.contract.sinks import SinkContract
from transforms.connection import Connection
from transforms.sinks.columns import LEDGER_TABLE
from transforms.sinks.postgres import PostgresSink
from transforms.sinks.sqlite import SqliteTableSink
from transforms.sinks.table import table_sink

Mode = Literal["overwrite", "error_if_exists"]


def execute(uri: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements, each by itself, and return the rows of the last."""
    rows: list[tuple[Any, ...]] = []
    with Connection(uri).open(autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
    return rows


def read_table(uri: str, table: str) -> pa.Table:
    with Connection(uri).open(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table}")
        return cursor.fetch_arrow_table()


class TestPostgresSink(SinkContract):
    @pytest.fixture(autouse=True)
    def place(self, database: str, tmp_path: Path) -> None:
        self.uri = database
        self.folder = tmp_path
        execute(database, "CREATE SCHEMA predictions")

    def make_sink(self, mode: Mode = "overwrite", job_id: str = "job_1") -> PostgresSink:
        sink = table_sink(Connection(self.uri), "predictions.scores", mode, job_id, self.folder)
        assert isinstance(sink, PostgresSink)
        return sink

    def read_result(self) -> pa.Table | None:
        try:
            return read_table(self.uri, "predictions.scores")
        except dbapi.ProgrammingError as error:
            if "does not exist" in str(error):
                return None
            raise

    def seed_old_result(self, table: pa.Table) -> None:
        execute(self.uri, "CREATE TABLE predictions.scores (id bigint, score real, name text)")
        with Connection(self.uri).open(autocommit=True) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("scores", table, mode="append", db_schema_name="predictions")

    def leftovers(self) -> list[str]:
        tables = execute(self.uri, "SELECT relname::text FROM pg_class WHERE relnamespace = 'predictions'::regnamespace")
        kept = {"scores", LEDGER_TABLE, f"{LEDGER_TABLE}_pkey"}
        return sorted({name for (name,) in tables} - kept)


class TestSqliteTableSink(SinkContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.uri = f"sqlite:///{tmp_path}/results.db"
        self.folder = tmp_path

    def make_sink(self, mode: Mode = "overwrite", job_id: str = "job_1") -> SqliteTableSink:
        sink = table_sink(Connection(self.uri), "predictions.scores", mode, job_id, self.folder / job_id)
        assert isinstance(sink, SqliteTableSink)
        return sink

    def read_result(self) -> pa.Table | None:
        if not (self.folder / "results.db").exists():
            return None
        try:
            return read_table(self.uri, '"predictions.scores"')
        except dbapi.Error as error:
            if "no such table" in str(error):
                return None
            raise

    def seed_old_result(self, table: pa.Table) -> None:
        execute(self.uri, 'CREATE TABLE "predictions.scores" (id INTEGER, score REAL, name TEXT)')
        with Connection(self.uri).open(autocommit=True) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("predictions.scores", table, mode="append")

    def leftovers(self) -> list[str]:
        files = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        tables = {name for (name,) in execute(self.uri, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
        return sorted((files - {"results.db"}) | (tables - {"predictions.scores", LEDGER_TABLE}))
