"""How many rows a job's input has, found out while somebody waits: without Beam, and within a time."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from launcher.errors import AsideFailed, ForkFailed
from launcher.forks.aside import call_aside
from launcher.forks.forking import Forks
from pipelines.spec import input_from_json
from predictors.bounds import Bounds
from transforms.errors import ConnectionRefused, InputError
from transforms.sources.input import Input

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
        given: Input,
        timeout_s: float,
        within: Bounds | None = None,
    ) -> int | None:
        """The exact number of rows of an input, or None when counting takes longer than `timeout_s`.

        Files are counted by their footers; a query by its database, where nothing of it is left running. A server that
        is cold, and a turn among the tenant's other counts, are waited for besides; it is not known, either, where
        neither comes.

        Args:
            given: with the URIs of its connections.
            within: where files have to lie, wherever their names lead; None: anywhere.

        Raises:
            ConnectionRefused: the database cannot be reached.
            InputError: the input is missing or unreadable, or the database refuses the query.
        """
        if timeout_s <= 0:
            return None
        try:
            return self._count(tenant, given, timeout_s, within)
        except (ForkFailed, TimeoutError):
            return None

    def can_be_listed(self, tenant: str, given: Input, timeout_s: float, within: Bounds | None = None) -> bool:
        """Whether all files of an input can be found and opened within `timeout_s`, or that cannot be told.

        Raises:
            InputError: the input is missing or unreadable.
        """
        try:
            return timeout_s > 0 and self._count(tenant, given, timeout_s, within) is not None
        except TimeoutError:
            return False
        except ForkFailed:
            return True

    def _count(
        self,
        tenant: str,
        given: Input,
        timeout_s: float,
        within: Bounds | None,
    ) -> int | None:
        """As `rows`.

        Raises:
            ForkFailed: it was not counted.
            TimeoutError: it had to be ended.
        """
        bounds = None if within is None else asdict(within)
        arguments = {"given": given.to_json(), "within": bounds, "timeout_s": timeout_s}
        with self._turn(tenant) as has_turn:
            if not has_turn or not (self._forks.is_warm or self._forks.wait_until_warm(_WARM_S)):
                raise ForkFailed("there was no turn, or no server")
            try:
                rows: int | None = call_aside(
                    self._forks,
                    "launcher.estimate.counting:count_soon",
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


def count_soon(given: dict[str, Any], within: dict[str, Any] | None, timeout_s: float) -> int | None:
    """How many rows an input has; None when that is not known in time. To be called in a process of its own.

    Args:
        given: of an input, with the URIs of its connections, which are secrets.
        within: of the `Bounds` that its files have to lie in.

    Raises:
        ConnectionRefused, InputError: as `Counting.rows`.
    """
    bounds = None if within is None else Bounds(tuple(within["folders"]), tuple(within["closed"]))
    return input_from_json(given).count(bounds, timeout_s)
