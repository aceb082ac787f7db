"""Threads, apart by how long they are busy: whoever asks where a job stands waits for nobody's estimate."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio
from starlette.types import Scope

_T = TypeVar("_T")

# SQLite lets go of the interpreter at each row, and whoever wants it back waits for a turn: with four threads, lists of
# 50 jobs at 200 a second took up to half a second, with one 14 ms. A server is worth waiting for side by side.
_QUICK_HERE, _QUICK_ELSEWHERE = 1, 4
# However many streams of events there are.
_STREAMS = 4
# Each has a process of its own score a sample.
_SLOW = 2


class Threads:
    """How many threads there are of each kind. What is in none of these has FastAPI's own forty.

    Args:
        elsewhere: the store is a server's, and not a file.
    """

    def __init__(self, elsewhere: bool) -> None:
        self.quick = anyio.CapacityLimiter(_QUICK_ELSEWHERE if elsewhere else _QUICK_HERE)
        self.streams = anyio.CapacityLimiter(_STREAMS)
        self.slow = anyio.CapacityLimiter(_SLOW)


async def in_thread(limiter: anyio.CapacityLimiter, function: Callable[..., _T], *args: Any, **named: Any) -> _T:
    """Call a function in one of some threads."""
    return await anyio.to_thread.run_sync(partial(function, *args, **named), limiter=limiter)


async def quickly(scope: Scope, function: Callable[..., _T], *args: Any, **named: Any) -> _T:
    """Call a function that only asks the store for a moment.

    Args:
        scope: of the request.
    """
    return await in_thread(scope["app"].state.threads.quick, function, *args, **named)
