"""Following a job to its end: by its events while they come, by asking again and again where they do not."""

import time
from collections.abc import Callable, Generator

from launcher.client.answers import TERMINAL, JobStatus, Told, read_job
from launcher.client.errors import PenstockError, ServerUnavailable, StillRunning
from launcher.client.events import read_events
from launcher.client.wire import Wire

# A server that starts anew, or a network that is away, is waited for as long as this.
PATIENCE_S = 300.0
# So often may the stream of events break without having told anything; from then on, the job is asked for.
_FRUITLESS_STREAMS = 2
# Pauses between questions.
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0
# Silence between events may take 15 s; with less time than this left, a deadline would be missed.
_STREAM_LEFT_S = 20.0


class Deadline:
    """When to stop waiting.

    Args:
        after_s: seconds from now; None is never.
    """

    def __init__(self, after_s: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self.after_s = after_s
        self._now = now
        self._began = now()

    @property
    def left_s(self) -> float:
        """Seconds that are left; never negative."""
        return float("inf") if self.after_s is None else max(0.0, self.after_s - (self._now() - self._began))

    def pause(self, most_s: float) -> None:
        """Wait, but not beyond the deadline."""
        time.sleep(min(most_s, self.left_s))


def follow(wire: Wire, path: str, deadline: Deadline) -> Generator[JobStatus, None, None]:
    """Where a job stands, at first and after each change; the last one is over.

    Outages of the server are borne for five minutes each.

    Args:
        path: of the job.

    Raises:
        StillRunning: the deadline came first.
        ServerUnavailable: an outage took too long.
        PenstockError: see the tree.
    """
    streams = _Streams(wire, path)
    silent_since: float | None = None
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            seen = _ask(wire, path, deadline)
            silent_since = None
        except ServerUnavailable:
            silent_since = silent_since or time.monotonic()
            if deadline.left_s <= 0 or time.monotonic() - silent_since > PATIENCE_S:
                raise
            deadline.pause(_LONGEST_PAUSE_S)
            continue
        yield seen
        if seen.is_over:
            return
        if streams.are_worth_it and deadline.left_s > _STREAM_LEFT_S:
            for seen in streams.read(deadline):
                yield seen
                if seen.is_over:
                    return
            # A stream that ends at once must not become a storm of requests.
            pause_s = _FIRST_PAUSE_S
        if deadline.left_s <= 0:
            raise StillRunning(seen.job_id, seen.status, deadline.after_s or 0.0)
        deadline.pause(pause_s)
        pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)


def _ask(wire: Wire, path: str, deadline: Deadline) -> JobStatus:
    # The loop around is what tries again; a deadline that is near is not stretched, save by the last look.
    timeout_s = min(wire.timeout_s, max(deadline.left_s, 1.0))
    return read_job(Told(wire.ask("GET", path, timeout_s=timeout_s, retries=0), f"GET {path}"))


class _Streams:
    """A job's events, from one connection after the other."""

    def __init__(self, wire: Wire, path: str) -> None:
        self._wire = wire
        self._path = path
        self._last_id: str | None = None
        self._fruitless = 0

    @property
    def are_worth_it(self) -> bool:
        """Whether the last ones told something."""
        return self._fruitless < _FRUITLESS_STREAMS

    def read(self, deadline: Deadline) -> Generator[JobStatus, None, None]:
        """What one connection tells, until it ends, breaks, tells of the job's end, or the deadline is near."""
        self._fruitless += 1
        try:
            for event in read_events(self._wire, f"{self._path}/events", self._last_id):
                if event is not None:
                    self._fruitless = 0
                    self._last_id = event.id or self._last_id
                    if event.kind == "progress":
                        yield read_job(Told(event.data, f"GET {self._path}/events"))
                    elif event.kind == "state" and event.data.get("status") in TERMINAL:
                        # It may have gone on since, by a retry; what is so now is asked for.
                        return
                if deadline.left_s < _STREAM_LEFT_S:
                    return
        except PenstockError:
            # Asking for the job is the way out; what is wrong with it, that will say.
            return
