"""How many rows a job's input has, found out while somebody waits: without Beam, and within a time."""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from launcher.errors import AsideFailed, ForkFailed
from launcher.forks.aside import call_aside
from launcher.forks.forking import Forks
from pipelines.spec import ParquetInput, SqlInput, input_from_json
from predictors.bounds import Bounds
from transforms.connection import Connection
from transforms.errors import ConnectionRefused, InputError
from transforms.sources.files import each_once, named_files, open_file
from transforms.sources.partitions import Partitions

# Inputs of one tenant that are counted at once; each has a process, and holds a thread of whoever waits for it.
_AT_ONCE = 8
# Further ones wait so long for their turn. A count is given up after a second, and no more than forty are asked for at
# once, so that five seconds bring each its turn; nearly always a turn is free within 30 ms.
_TURN_S = 5.0
# A server that is cold is waited for: it needs a second, on a busy machine some.
_WARM_S = 10.0
# What a process needs besides its count: to be forked, and to answer.
_FORK_S = 0.5
# A count needs next to nothing; what a query sorts lies on the disk.
_MEMORY_BYTES = 256 * 1024 * 1024
# What is told of an input; all else that may become of its process says nothing about it.
_TOLD = {error.__name__: error for error in (ConnectionRefused, InputError)}


class Counting:
    """Counts the rows of inputs, from any thread.

    Args:
        forks: of which inputs are counted. Whatever a tenant's query, file or server does to a process, it does there.
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
        """The exact number of rows of an input, or None when counting takes longer than `timeout_s`.

        Files are counted by their footers; a query by its database, where nothing of it is left running. A server that
        is cold, and a turn among the tenant's other counts, are waited for besides; it is not known, either, where
        neither comes.

        Args:
            connection: of a query, where the input only names it; None: the one that the input holds.
            within: where files have to lie, wherever their names lead; None: anywhere.

        Raises:
            ConnectionRefused: the database cannot be reached.
            InputError: the input is missing or unreadable, or the database refuses the query.
        """
        if timeout_s <= 0:
            return None
        try:
            return self._count(tenant, given, timeout_s, connection, within)
        except (ForkFailed, TimeoutError):
            return None

    def can_be_listed(self, tenant: str, given: ParquetInput, timeout_s: float, within: Bounds | None = None) -> bool:
        """Whether all files of an input can be found and opened within `timeout_s`, or that cannot be told.

        Raises:
            InputError: the input is missing or unreadable.
        """
        try:
            return timeout_s > 0 and self._count(tenant, given, timeout_s, None, within) is not None
        except TimeoutError:
            return False
        except ForkFailed:
            return True

    def _count(
        self,
        tenant: str,
        given: ParquetInput | SqlInput,
        timeout_s: float,
        connection: Connection | None,
        within: Bounds | None,
    ) -> int | None:
        """As `rows`.

        Raises:
            ForkFailed: it was not counted.
            TimeoutError: it had to be ended.
        """
        arguments: dict[str, Any]
        if isinstance(given, SqlInput):
            named = connection or Connection(given.connection)
            function = "transforms.sources.counting:count_soon"
            arguments = {"connection": asdict(named), "query": given.query, "timeout_s": timeout_s}
        else:
            bounds = None if within is None else asdict(within)
            function = "launcher.estimate.counting:count_files_soon"
            arguments = {"given": asdict(given), "within": bounds, "timeout_s": timeout_s}
        with self._turn(tenant) as has_turn:
            if not has_turn or not (self._forks.is_warm or self._forks.wait_until_warm(_WARM_S)):
                raise ForkFailed("there was no turn, or no server")
            try:
                rows: int | None = call_aside(
                    self._forks,
                    function,
                    arguments,
                    timeout_s=timeout_s + _FORK_S,
                    working_dir=self._working_dir,
                    environment=self._environment,
                    memory_bytes=_MEMORY_BYTES,
                )
            except AsideFailed as error:
                if error.kind == "TimeoutError":
                    raise TimeoutError from error
                if error.kind not in _TOLD:
                    raise ForkFailed(str(error)) from error
                raise _TOLD[error.kind](error.reason) from error
        return rows

    @contextmanager
    def _turn(self, tenant: str) -> Iterator[bool]:
        """A turn for one of the tenant's inputs; whether there is one in time."""
        with self._lock:
            turns = self._turns[tenant]
        has_turn = turns.acquire(timeout=_TURN_S)
        try:
            yield has_turn
        finally:
            if has_turn:
                turns.release()


def count_files_soon(given: dict[str, Any], within: dict[str, Any] | None, timeout_s: float) -> int | None:
    """How many rows Parquet files have; None when that is not known in time. To be called in a process of its own:
    a file may take any memory, or end the process.

    Args:
        given: of a `ParquetInput`.
        within: of the `Bounds` that they have to lie in.

    Raises:
        InputError: a path names nothing, or a file is no readable Parquet.
    """
    bounds = None if within is None else Bounds(tuple(within["folders"]), tuple(within["closed"]))
    source = input_from_json(given)
    assert isinstance(source, ParquetInput)
    try:
        return _count_files(source, bounds, time.monotonic() + timeout_s)
    except TimeoutError:
        return None
    except InputError as error:
        if isinstance(error.__cause__, MemoryError):
            # The job has more.
            return None
        raise


def count_rows(given: ParquetInput | SqlInput) -> int:
    """How many rows an input has, counted in this process, however long that takes.

    Raises:
        ConnectionRefused, InputError: it cannot be counted.
    """
    if isinstance(given, SqlInput):
        from transforms.sources import counting  # a second, for the drivers and the parser

        return counting.count_rows(Connection(given.connection), given.query)
    return _count_files(given, None, math.inf)


def _count_files(given: ParquetInput, within: Bounds | None, deadline: float) -> int:
    """As `count_files_soon`.

    Raises:
        TimeoutError: there was more to look at.
    """
    files = each_once(named_files(given.path, deadline, within))
    Partitions.of(files, given.declared())
    rows = 0
    for file in files:
        rows += open_file(file, within).metadata.num_rows
        if time.monotonic() >= deadline:
            raise TimeoutError
    return rows
