"""The watch over a job's process: waits until the job has to end before it is done, and says why."""

import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil

from launcher.state.job import Job, Outcome, Status
from launcher.worker.memory import GB, MemoryBound, bound_memory, host_memory, resident_bytes
from pipelines.spec import Config
from predictors.pressure import PRESSURE

# How often time and memory are looked at. Looking costs some milliseconds.
_LOOK_EVERY_S = 0.5
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# From this share of the bound on, the job takes in nothing new until it is below the other: each rise halves its calls,
# so one that hovers about a single line would soon be down to single rows.
_PRESSURE_FROM = 0.9
_PRESSURE_UNTIL = 0.8
# No signal has this number: somebody called `end`.
_CALLED = 255


@dataclass(frozen=True)
class End:
    """The state that the job has to go to, why, and, for a failed one, how that is called."""

    to: Status
    why: str
    outcome: Outcome | None = None


class Watch:
    """Watches signals, the deadline and the memory of this process and its children.

    Args:
        config: the bounds.
        current: the job, for its deadline.
        now: the time as whoever set the deadline has it.
    """

    def __init__(
        self, config: Config, current: Callable[[], Job], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._config = config
        self._current = current
        self._now = now
        self._end: End | None = None
        self._heard, self._heard_from = socket.socketpair()
        for each in (self._heard, self._heard_from):
            each.setblocking(False)

    def listen(self) -> None:
        """Have SIGTERM and SIGINT heard: at once, even while the main thread is deep in a library.

        Call from the main thread.
        """
        signal.set_wakeup_fd(self._heard_from.fileno(), warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
            signal.signal(number, lambda *_: None)
            # Calls of libraries go on; nothing is asked of the main thread.
            signal.siginterrupt(number, False)

    def end(self, end: End) -> None:
        """Have `await_end` return `end`. From any thread; the first call counts."""
        if self._end is None:
            self._end = end
            os.write(self._heard_from.fileno(), bytes([_CALLED]))

    def await_end(self) -> End:
        """Wait until the job has to be stopped."""
        bound = bound_memory(self._config.max_memory_gb, host_memory())
        own = psutil.Process()
        while True:
            left_s = self._left_s()
            ready, _, _ = select.select([self._heard], [], [], max(0.0, min(_LOOK_EVERY_S, left_s)))
            if ready:
                number = self._heard.recv(1)[0]
                if number == _CALLED and self._end is not None:
                    return self._end
                if number in _STOP_SIGNALS:
                    return End("cancelled", f"cancelled by {signal.Signals(number).name}")
            if self._left_s() <= 0:
                minutes = self._config.timeout_minutes
                return End("failed", f"timed out after config.timeout_minutes {minutes:g}", "timed_out")
            over = _over(resident_bytes(own), bound)
            if over is not None:
                return over

    def _left_s(self) -> float:
        """Seconds to the deadline. The wait for the next look at it is bounded, so a step of the clock does no harm."""
        deadline = self._current().deadline_at
        return _LOOK_EVERY_S if deadline is None else (deadline - self._now()).total_seconds()


def _over(used_bytes: int, bound: MemoryBound) -> End | None:
    """Tell those who score when memory gets scarce; the end, when there is too much in use."""
    if used_bytes > bound.bytes:
        return End(
            "failed",
            f"out of memory: {used_bytes / GB:.2f} GB are in use, and {bound.reason}; "
            "lower config.parallelism or config.batch_size, or raise config.max_memory_gb",
            "out_of_memory",
        )
    if used_bytes > _PRESSURE_FROM * bound.bytes:
        PRESSURE.raise_level()
    elif used_bytes < _PRESSURE_UNTIL * bound.bytes:
        PRESSURE.clear()
    return None


__all__ = ["End", "Watch"]
