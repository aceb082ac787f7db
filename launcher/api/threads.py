"""Threads, apart by how long they are busy: whoever asks where a job stands waits for nobody's estimate."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio
from starlette.types import Scope

from launcher.errors import ResultUnreadable

_T = TypeVar("_T")

# SQLite lets go of the interpreter at each row, and whoever wants it back waits for a turn: with four threads, lists of
# 50 jobs at 200 a second took up to half a second, with one 14 ms. A server is worth waiting for side by side.
_QUICK_HERE, _QUICK_ELSEWHERE = 1, 4
# However many streams of events there are.
_STREAMS = 4
# Each has a process of its own score a sample.
_SLOW = 2
# Each waits for the database where rows of a job are staged, up to a minute for one that is away.
_PURGES = 4
# Pages of results, which a tenant's database may take 10 s for, and which are held here until they are sent, 16 MiB and
# more as JSON. Of one tenant two are read at a time, so that others have their turn.
_PAGES, _PAGES_OF_ONE = 8, 2
# As long as a page may take.
_TURN_S = 10.0


class Threads:
    """How many threads there are of each kind. What is in none of these has FastAPI's own forty.

    Args:
        elsewhere: the store is a server's, and not a file.
    """

    def __init__(self, elsewhere: bool) -> None:
        self.quick = anyio.CapacityLimiter(_QUICK_ELSEWHERE if elsewhere else _QUICK_HERE)
        self.streams = anyio.CapacityLimiter(_STREAMS)
        self.slow = anyio.CapacityLimiter(_SLOW)
        self.purges = anyio.CapacityLimiter(_PURGES)
        self._pages = anyio.CapacityLimiter(_PAGES)
        self._turns: defaultdict[str, anyio.Semaphore] = defaultdict(lambda: anyio.Semaphore(_PAGES_OF_ONE))

    async def read_page(self, tenant: str, function: Callable[..., _T], *args: Any) -> _T:
        """Call a function that reads a page of a result, in its tenant's turn.

        Raises:
            ResultUnreadable: other pages of the tenant's take too long.
        """
        turn = self._turns[tenant]
        try:
            with anyio.fail_after(_TURN_S):
                await turn.acquire()
        except TimeoutError:
            raise ResultUnreadable(
                f"{_PAGES_OF_ONE} pages of results are being read already, which takes long; ask again in a moment"
            ) from None
        try:
            return await in_thread(self._pages, function, *args)
        finally:
            turn.release()


async def in_thread(limiter: anyio.CapacityLimiter, function: Callable[..., _T], *args: Any, **named: Any) -> _T:
    """Call a function in one of some threads."""
    return await anyio.to_thread.run_sync(partial(function, *args, **named), limiter=limiter)


async def quickly(scope: Scope, function: Callable[..., _T], *args: Any, **named: Any) -> _T:
    """Call a function that only asks the store for a moment.

    Args:
        scope: of the request.
    """
    return await in_thread(scope["app"].state.threads.quick, function, *args, **named)
