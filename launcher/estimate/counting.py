"""How many rows a job's input has, found out while somebody waits: without Beam, and within a time."""

import time

from pipelines.spec import ParquetInput, SqlInput
from transforms.connection import Connection
from transforms.sources.counting import count_rows_within
from transforms.sources.files import named_files, open_alike


def count_rows(given: ParquetInput | SqlInput, timeout_s: float, connection: Connection | None = None) -> int | None:
    """The exact number of rows of an input, or None when it is not known within `timeout_s`.

    Files are counted by their footers; a query by its database, where nothing of it is left running. A file system that
    does not answer is not interrupted.

    Args:
        connection: of a query, where the input only names it; None: the one that the input holds.

    Raises:
        ConnectionRefused: the database cannot be reached.
        InputError: the input is missing or unreadable, or the database refuses the query.
    """
    if isinstance(given, SqlInput):
        return count_rows_within(connection or Connection(given.connection), given.query, timeout_s)
    return _count_in_files(given, time.monotonic() + timeout_s)


def _count_in_files(given: ParquetInput, deadline: float) -> int | None:
    files: set[str] = set()
    for file in named_files(given.path):
        files.add(file)
        if time.monotonic() >= deadline:
            return None
    rows = 0
    for opened in open_alike(sorted(files)):
        rows += opened.metadata.num_rows
        if time.monotonic() >= deadline:
            return None
    return rows
