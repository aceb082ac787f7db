"""Threads, apart by how long they are busy: whoever asks where a job stands waits for nobody's estimate."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio
from starlette.types import Scope

_T = TypeVar("_T")

# One look at the store takes a millisecond; more threads would only wait for each other.
_QUICK = 4
# However many streams of events there are.
_STREAMS = 4
# Each has a process of its own score a sample.
_SLOW = 2


class Threads:
    """How many threads there are of each kind. What is in none of these has FastAPI's own forty."""

    def __init__(self) -> None:
        self.quick = anyio.CapacityLimiter(_QUICK)
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
