"""Following a job to its end, and ending it when the user does not want to wait."""

import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from launcher.screen import Display
from launcher.state.job import Job
from launcher.supervisor import StartedJob, Supervisor

# A cancelled job has to be gone within this.
CANCEL_S = 5.0
# How often signals and the end of the job are looked for, and how often the screen is drawn.
_TICK_S = 0.05
_DRAW_EVERY_S = 0.25
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Counts Ctrl-C, SIGTERM and SIGHUP for as long as the block lasts, instead of dying of them."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # What is ignored, as SIGHUP is under nohup, stays ignored.
        heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._heard) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


def follow(
    supervisor: Supervisor,
    started: StartedJob,
    display: Display,
    interrupts: Interrupts,
    now: Callable[[], float] = time.monotonic,
) -> Job:
    """Show a job until its process ends; returns it settled.

    The first interrupt cancels it; the second, or five seconds, kill it. A job whose process dies of a row goes on.
    """
    try:
        while True:
            cancelled = _follow_attempt(supervisor, started, display, interrupts, now)
            again = None if cancelled else supervisor.go_on(started)
            if again is None:
                break
            started = again
    finally:
        display.close()
    return _ended(supervisor, started, cancelled)


def _follow_attempt(
    supervisor: Supervisor, started: StartedJob, display: Display, interrupts: Interrupts, now: Callable[[], float]
) -> bool:
    """Show a job until its process ends; returns whether it was cancelled."""
    kill_at: float | None = None
    draw_at = now()
    while not started.wait(_TICK_S):
        if interrupts.count and kill_at is None:
            kill_at = now() + CANCEL_S
            started.cancel()
        if kill_at is not None and (interrupts.count > 1 or now() > kill_at):
            started.kill()
        if now() >= draw_at:
            draw_at = now() + _DRAW_EVERY_S
            job = supervisor.peek(started.job.id)
            display.show(job, supervisor.live(job), supervisor.snapshot(job))
    return kill_at is not None


def _ended(supervisor: Supervisor, started: StartedJob, cancelled: bool) -> Job:
    """The job after its process has ended, moved to where it belongs if the process could not do it."""
    job = supervisor.peek(started.job.id)
    if job.is_over:
        return job
    folder = supervisor.folder(job.id)
    if folder.is_alive():
        # Something that the process started is still there; it would go on writing.
        started.kill()
    if cancelled:
        return supervisor.settled(job, "cancelled", "cancelled")
    return supervisor.settled(job, f"its process died ({started.end()}; see {folder.log})")
