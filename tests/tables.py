"""Tables that tests write and read, through the sinks and beside them."""

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from tests.contract.sinks import (
    manifest_of,
    split_of,
)
from transforms.batches import ScoredSpan, Span
from transforms.connection import Connection
from transforms.errors import PipelineError
from transforms.sinks.base import Sink
from transforms.sinks.mode import Mode
from transforms.sinks.postgres import PostgresSink

# What a server or a process is given to get somewhere, on a loaded machine.
DEADLINE_S = 60


def execute(uri: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements, each by itself, and return the rows of the last."""
    if uri.startswith("postgresql:"):
        # A driver that does not read all types of the server first, as ADBC's does each time that it connects.
        with psycopg.connect(uri, autocommit=True) as quick:
            found = [quick.execute(statement.encode()) for statement in statements][-1]
            return found.fetchall() if found.description else []
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


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"


def span_with(rows: pa.RecordBatch) -> ScoredSpan:
    """A whole split that holds `rows`."""
    split = split_of(1, rows.num_rows, rows.num_rows)
    return ScoredSpan(Span(split, 0, rows.num_rows, True), rows)


def write(sink: Sink, rows: pa.RecordBatch, job_id: str = "job_1") -> None:
    """Take `rows` all the way through `sink`."""
    scored = span_with(rows)
    sink.prepare(rows.schema)
    sink.stage([scored], None)
    sink.publish(manifest_of(sink, job_id, [scored.span.split]))
    sink.clean()


def refusal(act: Callable[[], object]) -> str:
    """The message with which `act` is refused; always one line."""
    with pytest.raises(PipelineError) as refused:
        act()

    message = str(refused.value)
    assert "\n" not in message
    return message


def postgres_sink(uri: str, table: str = "scores", mode: Mode = "overwrite", job_id: str = "job_1") -> PostgresSink:
    return PostgresSink(Connection(uri), table, mode, job_id)
