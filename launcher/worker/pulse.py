"""The pulse of a job's process: tells the store once a second that the attempt lives and how far it is.

What comes back is what the process must know: that the job was told to stop, or that another attempt has taken over.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launcher.errors import Conflict, JobUnknown, StoreUnavailable
from launcher.state.job import Job, Live
from launcher.state.speed import Speed, sped
from launcher.state.store import JobStore
from launcher.worker.progress import counts_of, read_live, read_snapshot
from transforms.telemetry import Telemetry

# News at least once a second, however long the store takes to write it.
_EVERY_S = 0.8
# The first scored row is told at once; so often it is looked for.
_FIRST_EVERY_S = 0.03

_log = logging.getLogger("launcher")


class Pulse:
    """A thread that beats until the process ends.

    Args:
        store: which any thread may use.
        progress, preparing: where the workers and the snapshot tell how far they are.
        current: the job as the process sees it, once a move that is under way is over.
        on_cancel: called when the job was told to stop; each time that it is seen.
        on_fenced: called when another attempt has taken over, or the job is over: nothing may be touched any more.
        now: the time, as the store tells it.
    """

    def __init__(
        self,
        store: JobStore,
        progress: Path,
        preparing: Path,
        current: Callable[[], Job],
        lease_s: float,
        on_cancel: Callable[[], object],
        on_fenced: Callable[[], object],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._progress = progress
        self._preparing = preparing
        self._current = current
        self._lease_s = lease_s
        self._on_cancel = on_cancel
        self._on_fenced = on_fenced
        self._now = now
        self._speed: Speed | None = None
        self._never = threading.Event()
        self._silent_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def live(self) -> Live:
        """What has been counted, all workers together, to this moment."""
        attempt = self._current().attempt
        # What this process has not written yet; workers elsewhere write once a second.
        Telemetry(str(self._progress), attempt).counters().flush()
        return read_live(self._progress, attempt)

    def _run(self) -> None:
        told = False
        while True:
            # Asked before, so that the beat tells of it; counters that cannot be written are no reason to beat on.
            first = self._has_first()
            told = self._beat() or first or told
            due = time.monotonic() + _EVERY_S
            while (left_s := due - time.monotonic()) > 0 and (told or not self._has_first()):
                self._never.wait(left_s if told else min(left_s, _FIRST_EVERY_S))

    def _has_first(self) -> bool:
        """Whether this process has rows to tell of; asks no file."""
        job = self._current()
        if not job.has_run:
            return False
        values = Telemetry(str(self._progress), job.attempt).counters().values()
        return bool(values["scored"] or values["rejected"])

    def _beat(self) -> bool:
        """Tell; returns whether a row was among it."""
        job = self._current()
        if job.is_over or job.status == "submitted":
            return False
        live = self.live()
        changes: dict[str, Any] = {"live": live}
        if job.status == "preparing":
            snapshot = read_snapshot(self._preparing, job.attempt)
            changes["snapshot_rows"] = None if snapshot is None else snapshot.rows
        else:
            changes["shown"] = counts_of(job, live)
            changes |= self._sped(job, live)
        try:
            if self._store.beat(job.id, job.attempt, self._lease_s, **changes):
                self._on_cancel()
            self._silent_since = None
        except StoreUnavailable as error:
            if self._silent_since is None:
                self._silent_since = time.monotonic()
                _log.warning("%s cannot be told of: %s", job.id, error)
        except (Conflict, JobUnknown) as error:
            # Its own last move, made while this beat was on its way, looks the same.
            now = self._current()
            if not now.is_over and now.status != "submitted":
                _log.error("%s: %s; this attempt ends", job.id, error)
                self._on_fenced()
        return bool(live.counts.total)

    def _sped(self, job: Job, live: Live) -> dict[str, Any]:
        """How fast the job gets on, as a change to its record."""
        if job.running_at is None or job.status != "running":
            return {}
        known = self._speed or job.speed
        self._speed = sped(known, job.attempt, job.running_at, live.counts.total, self._now())
        return {"speed": self._speed}
