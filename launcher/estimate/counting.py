"""How many rows a job's input has, found out while somebody waits: without Beam, and within a time."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

from launcher.errors import AsideFailed, ForkFailed
from launcher.forks.aside import call_aside
from launcher.forks.forking import Forks
from pipelines.spec import ParquetInput, SqlInput
from predictors.bounds import Bounds
from transforms.connection import Connection
from transforms.errors import ConnectionRefused, InputError
from transforms.sources.files import named_files, open_file
from transforms.sources.partitions import Partitions

# Queries of one tenant that are counted at once; each has a process, and holds a thread of whoever waits for it.
_AT_ONCE = 4
# Further ones wait so long for their turn: a count takes 30 ms, unless its server says nothing.
_TURN_S = 0.1
# A count needs next to nothing; what a query sorts lies on the disk.
_MEMORY_BYTES = 256 * 1024 * 1024
# What is told of a query; all else that may become of its process says nothing about it.
_TOLD = {error.__name__: error for error in (ConnectionRefused, InputError)}


class Counting:
    """Counts the rows of inputs, from any thread.

    Args:
        forks: of which queries are counted. Whatever a tenant's query, file or server does to a process, it does there.
        working_dir: of those processes.
        environment: theirs.
    """

    def __init__(self, forks: Forks, working_dir: str, environment: Mapping[str, str]) -> None:
        self._forks = forks
        self._working_dir = working_dir
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._turns: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(_AT_ONCE))

    def rows(
        self,
        tenant: str,
        given: ParquetInput | SqlInput,
        timeout_s: float,
        connection: Connection | None = None,
        within: Bounds | None = None,
    ) -> int | None:
        """The exact number of rows of an input, or None when it is not known within `timeout_s`.

        Files are counted by their footers; a query by its database, where nothing of it is left running. It is not
        known, either, while the server that forks is cold, or other queries of the tenant take long. A file system that
        does not answer is not interrupted.

        Args:
            connection: of a query, where the input only names it; None: the one that the input holds.
            within: where files have to lie, wherever their names lead; None: anywhere.

        Raises:
            ConnectionRefused: the database cannot be reached.
            InputError: the input is missing or unreadable, or the database refuses the query.
        """
        deadline = time.monotonic() + timeout_s
        if isinstance(given, SqlInput):
            return self._count_query(tenant, connection or Connection(given.connection), given.query, deadline)
        return _count_in_files(given, within, deadline)

    def _count_query(self, tenant: str, connection: Connection, query: str, deadline: float) -> int | None:
        if not self._forks.is_warm:
            return None
        with self._turn(tenant, deadline) as has_turn:
            left_s = deadline - time.monotonic()
            if not has_turn or left_s <= 0:
                return None
            try:
                rows: int | None = call_aside(
                    self._forks,
                    "transforms.sources.counting:count_soon",
                    {"connection": asdict(connection), "query": query, "timeout_s": left_s},
                    timeout_s=left_s,
                    working_dir=self._working_dir,
                    environment=self._environment,
                    memory_bytes=_MEMORY_BYTES,
                )
            except ForkFailed:
                return None
            except AsideFailed as error:
                if error.kind not in _TOLD:
                    return None
                raise _TOLD[error.kind](error.reason) from error
        return rows

    @contextmanager
    def _turn(self, tenant: str, deadline: float) -> Iterator[bool]:
        """A turn for one of the tenant's queries; whether there is one in time."""
        with self._lock:
            turns = self._turns[tenant]
        has_turn = turns.acquire(timeout=max(0.0, min(_TURN_S, deadline - time.monotonic())))
        try:
            yield has_turn
        finally:
            if has_turn:
                turns.release()


def _count_in_files(given: ParquetInput, within: Bounds | None, deadline: float) -> int | None:
    try:
        files = sorted(set(named_files(given.path, deadline, within)))
    except TimeoutError:
        return None
    Partitions.of(files, given.declared())
    rows = 0
    for file in files:
        rows += open_file(file, within).metadata.num_rows
        if time.monotonic() >= deadline:
            return None
    return rows
