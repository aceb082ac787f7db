"""Tables as sinks: the connection says which database's."""

from pathlib import Path

from transforms.connection import Connection
from transforms.sinks.mode import Mode
from transforms.sinks.postgres import PostgresSink
from transforms.sinks.sqlite import SqliteTableSink


def table_sink(
    connection: Connection, table_name: str, mode: Mode, job_id: str, folder: Path, appends_to: str | None = None
) -> PostgresSink | SqliteTableSink:
    """The sink for one table.

    Args:
        connection: the database.
        table_name: see the sink.
        mode: whether a table that is there is refused, replaced or added to.
        job_id: the job that stages.
        folder: a folder of this job alone, for what is staged outside the database.
        appends_to: with `append`, the job whose result the table must hold.

    Raises:
        ConnectionRefused: the connection's scheme is not known, or a variable in it is not set.
    """
    if connection.dialect == "sqlite":
        return SqliteTableSink(connection, table_name, mode, job_id, folder, appends_to)
    return PostgresSink(connection, table_name, mode, job_id, appends_to)
