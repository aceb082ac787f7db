"""The reaper: finds jobs whose process is gone, hangs, or has to go, and puts their state right.

Any number of launchers reap at once, also the jobs of launchers that died: each step is a compare-and-swap on the
attempt, taken while holding the job's lock, so one of them does it.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import psutil

from launcher.errors import Conflict, JobAlive, JobUnknown, LauncherError, StoreUnavailable
from launcher.forks.processes import describe_exit, is_running, kill_session, machine_of
from launcher.home import Home
from launcher.joblog import add_line
from launcher.logs import JsonFormatter, fields_of
from launcher.settings import Settings
from launcher.state.job import AT_WORK, Job, Outcome, Status, has_begun_to_publish, shown_counts, stopped_as
from launcher.state.store import JobStore
from launcher.worker.failures import wait_s
from launcher.worker.handover import JOB_ID_VARIABLE
from launcher.worker.progress import counts_of, kept_rows, read_live, seconds_of_dead
from predictors.crashes import CrashRecord

# A job that was told to stop, or whose time is over, has to be gone within 5 s. Its process hears of it within a
# second, stages what is scored, which may take two, and ends, unless a library keeps all its threads from running; one
# that publishes may do so a while on.
PATIENCE_S = 3.8
PUBLISH_PATIENCE_S = 4.2
# Who has moved its own job to its end is gone in less, unless something keeps its threads from running right then.
LEAVE_PATIENCE_S = 1.5
# Who has not looked for so long, as behind a store that was away or on a machine that slept, has heard of nobody, and
# gives the processes as long to be heard of.
_HEARD_WITHIN_S = 5.0
# How each process ended is of use until its job is put right, moments later.
_EXITS_KEPT = 1000

Verdict = Literal["leave", "kill", "settle"]

_log = logging.getLogger("launcher.loops.reaper")


def verdict(
    job: Job, *, alive: bool, leader_runs: bool, owner_lives: bool, now: datetime, listening: bool = True
) -> Verdict:
    """What is to be done about a job at work.

    Args:
        alive: a process holds its lock.
        leader_runs: its own process runs; children of it may hold the lock on.
        owner_lives: the launcher that started it runs.
        listening: the store has been looked at for long enough to have heard of it, if it could be heard of.
    """
    patience = timedelta(seconds=PUBLISH_PATIENCE_S if job.status == "completing" else PATIENCE_S)
    if alive:
        told = job.cancel_requested_at
        late = (told is not None and now > told + patience) or (
            job.deadline_at is not None and now > job.deadline_at + patience
        )
        silent = listening and job.lease_until is not None and now > job.lease_until
        orphaned = job.pid is not None and not leader_runs
        return "kill" if late or silent or orphaned else "leave"
    expired = job.lease_until is None or now > job.lease_until
    return "leave" if job.pid is None and owner_lives and not expired else "settle"


class Reaper:
    """Puts right the state of jobs whose process does not.

    Args:
        launcher_lives: whether a launcher of this id runs.
        is_starting: whether this very launcher is about to start a job's process.
        machine: what launchers of this machine are called before the last hyphen; None: all are of this one.
    """

    def __init__(
        self,
        home: Home,
        store: JobStore,
        settings: Settings,
        launcher_lives: Callable[[str], bool],
        is_starting: Callable[[Job], bool] = lambda job: False,
        machine: str | None = None,
    ) -> None:
        self._home = home
        self._store = store
        self._settings = settings
        self._launcher_lives = launcher_lives
        self._machine = machine
        self._is_starting = is_starting
        # By the store's clock, as all that it is compared with; asked for once for all jobs.
        self._now = datetime.min.replace(tzinfo=UTC)
        self._listening_since: datetime | None = None
        self._looked_at: datetime | None = None
        # By id and attempt: at work when last looked at, and, since when, no more.
        self._at_work: dict[tuple[str, int], Job] = {}
        self._leaving: dict[tuple[str, int], tuple[Job, datetime]] = {}
        # By id and attempt as long as it is at work: CPU time of processes that nothing was heard of, and those of them
        # that were killed for it.
        self._cpu_s: dict[tuple[str, int], float] = {}
        self._silent: set[tuple[str, int]] = set()
        self._exits: dict[int, int] = {}
        self._exits_lock = threading.Lock()

    def note_exit(self, pid: int, returncode: int) -> None:
        """Remember how a process ended, to tell of it. From any thread."""
        with self._exits_lock:
            self._exits[pid] = returncode
            while len(self._exits) > _EXITS_KEPT:
                del self._exits[next(iter(self._exits))]

    def tick(self) -> int:
        """Look at each job at work once. Returns how many were put right."""
        settled = 0
        self._now = self._store.clock()
        at_work = self._store.at_work()
        self._listen()
        self._see_off({(job.id, job.attempt): job for job in at_work})
        for job in at_work:
            if self._is_starting(job):
                continue
            try:
                settled += self._look(job)
            except (Conflict, JobAlive, JobUnknown):
                continue  # somebody else was faster
            except StoreUnavailable:
                raise
            except (LauncherError, OSError) as error:
                # A folder that cannot be opened is no reason to leave the other jobs alone.
                _log.warning("%s could not be put right: %s", job.id, error, extra=fields_of(job))
        for job in self._store.overdue():
            with contextlib.suppress(Conflict, JobUnknown):
                self._end_waiting(job)
                settled += 1
        self._looked_at = self._store.clock()
        return settled

    def _see_off(self, at_work: dict[tuple[str, int], Job]) -> None:
        """Kill processes whose attempts are over and that do not end."""
        now = self._now
        self._leaving |= {key: (job, now) for key, job in self._at_work.items() if key not in at_work}
        self._at_work = at_work
        self._cpu_s = {key: spent_s for key, spent_s in self._cpu_s.items() if key in at_work}
        self._silent &= at_work.keys()
        for key, (job, since) in list(self._leaving.items()):
            pid, started = self._left_by(job)
            if pid is None:
                del self._leaving[key]
            elif now > since + timedelta(seconds=LEAVE_PATIENCE_S):
                killed = kill_session(pid, started)
                _log.warning("%s: %d processes that did not end were killed", job.id, killed, extra=fields_of(job))

    def _left_by(self, job: Job) -> tuple[int | None, float]:
        """The process of an attempt that is over, if it runs here, and does not just tidy up what it has completed."""
        nobody = None, 0.0
        try:
            now = self._store.get(job.id)
        except JobUnknown:
            return nobody
        # A job that waits again has no process any more; one that was quick had none yet when it was looked at.
        known = job if job.pid is not None or now.attempt != job.attempt else now
        started = known.pid_started or 0.0
        if now.status == "completed" or known.pid is None or not self._is_here(known):
            return nobody
        return (known.pid, started) if is_running(known.pid, started) else nobody

    def _listen(self) -> None:
        now = self._now
        if self._looked_at is None or now - self._looked_at > timedelta(seconds=_HEARD_WITHIN_S):
            self._listening_since = now
        self._looked_at = now

    def _is_listening(self) -> bool:
        since = self._listening_since
        return since is not None and self._now > since + timedelta(seconds=_HEARD_WITHIN_S)

    def _look(self, job: Job) -> int:
        folder = self._home.job(job.id)
        alive = folder.is_alive()
        is_here = self._is_here(job)
        what = verdict(
            job,
            alive=alive,
            leader_runs=not is_here or (job.pid is not None and is_running(job.pid, job.pid_started or 0.0)),
            owner_lives=job.owner is not None and self._launcher_lives(job.owner),
            now=self._now,
            listening=not (alive and is_here and self._is_busy(job)) and self._is_listening(),
        )
        if what == "kill" and not is_here:
            # A launcher there does it; when that machine is gone, so is the lock.
            return 0
        if what == "leave" or (what == "kill" and job.pid is None):
            return 0
        if job.pid is not None and is_here:
            if self._store.get(job.id).attempt != job.attempt:
                # Put right by another meanwhile: the next attempt has the same lock, and the same id.
                return 0
            # Children of a process that was killed go on without it.
            mark = f"{JOB_ID_VARIABLE}={job.id}"
            killed = kill_session(job.pid, job.pid_started or 0.0, folder.lock_file, mark)
            if killed and what == "kill" and job.lease_until is not None and self._now > job.lease_until:
                self._silent.add((job.id, job.attempt))
            if killed:
                _log.warning("%s: %d processes that had to go were killed", job.id, killed, extra=fields_of(job))
            elif what == "kill":
                return 0
        folder.create()
        lock = folder.lock(job.id, job.pid)
        try:
            return self._settle(self._store.get(job.id), job.attempt)
        finally:
            lock.release()

    def _is_busy(self, job: Job) -> bool:
        """Whether a job's process computes, though nothing is heard of it: C code may keep all its threads waiting.

        True at the first look, too, as only two of them tell.
        """
        if job.pid is None or job.lease_until is None or self._now <= job.lease_until:
            return False
        try:
            process = psutil.Process(job.pid)
            times, is_stopped = process.cpu_times(), process.status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False
        key, spent_s = (job.id, job.attempt), times.user + times.system
        before = self._cpu_s.get(key)
        self._cpu_s[key] = spent_s
        return not is_stopped and (before is None or spent_s > before)

    def _is_here(self, job: Job) -> bool:
        """Whether the job's process was started on this machine: elsewhere its pid is somebody else's."""
        return self._machine is None or job.owner is None or machine_of(job.owner) == self._machine

    def _settle(self, job: Job, attempt: int) -> int:
        """Move a job whose process is gone; 0 when somebody else has. The caller holds its lock."""
        if job.status not in AT_WORK or job.attempt != attempt:
            return 0
        live = read_live(self._home.job(job.id).progress, job.attempt)
        visible = has_begun_to_publish(self._store.moves(job.id))
        kept = kept_rows(job, live)
        crashes = CrashRecord(self._home.job(job.id).path)
        if (job.id, job.attempt) in self._silent:
            # What hangs would hang again.
            crashes.forget_marks()
        # As long as each such death comes of a row that is then found.
        is_looked_into = bool(crashes.marks()) and not crashes.findings().unexplained
        to, why, outcome = self._end_of(job, is_looked_into)
        changes: dict[str, Any] = {"live": live}
        if to == "cancelled":
            crashes.forget_marks()
        if to == "submitted":
            # What is no fault of the job costs it no retry, nor does looking for the row that kills.
            is_free = job.pid is None or is_looked_into
            retries = job.retries + (0 if is_free else 1)
            waiting_s = 0.0 if is_free else wait_s(job.retries, self._settings.retry_wait_s)
            not_before = self._store.clock() + timedelta(seconds=waiting_s)
            text = why if is_free else f"{why}; retry {retries} of {job.spec.config.retry_count}"
            text += " while it called the model; the rows are looked into" if is_looked_into else ""
            self._store.move(
                job.id,
                AT_WORK,
                "submitted",
                f"{text} in {waiting_s:.1f} s",
                attempt=attempt,
                retries=retries,
                not_before=not_before,
                **changes,
            )
            _log.info("%s: %s", job.id, text, extra=fields_of(job))
            self._write(job, f"{text} in {waiting_s:.1f} s")
            return 1
        to, text = stopped_as(job, to, why, visible, kept)
        self._store.move(
            job.id,
            AT_WORK,
            to,
            text,
            attempt=attempt,
            error=text if to == "failed" else None,
            outcome=outcome if to == "failed" else None,
            counts=counts_of(job, live),
            seconds=seconds_of_dead(job, self._store.moves(job.id), self._home.job(job.id).progress, live),
            **changes,
        )
        _log.info("%s is %s: %s", job.id, to, text, extra=fields_of(job))
        self._write(job, text)
        return 1

    def _write(self, job: Job, text: str) -> None:
        """Say in the job's own log what its process could not."""
        record = logging.LogRecord(_log.name, logging.WARNING, __file__, 0, text, None, None)
        with contextlib.suppress(OSError):
            add_line(self._home.job(job.id).log, JsonFormatter(fields_of(job)).format(record))

    def _end_of(self, job: Job, is_looked_into: bool) -> tuple[Status, str, Outcome | None]:
        """Where a job goes whose process is gone, why, and how that is called."""
        if job.cancel_requested_at is not None:
            return "cancelled", "cancelled on request", "error"
        config = job.spec.config
        if job.deadline_at is not None and self._store.clock() >= job.deadline_at:
            return "failed", f"timed out after config.timeout_minutes {config.timeout_minutes:g}", "timed_out"
        if job.pid is None:
            return "submitted", "its launcher did not start it", None
        with self._exits_lock:
            code = self._exits.pop(job.pid, None)
        how = f"pid {job.pid}" + (f", {describe_exit(code)}" if code is not None else "")
        why = f"its process died ({how})"
        if (job.id, job.attempt) in self._silent:
            why = f"its process was silent for over {self._settings.lease_s:g} s (PENSTOCK_LEASE_S), and was killed"
        if is_looked_into or job.retries < config.retry_count:
            return "submitted", why, None
        tried = f" for the {_ordinal(job.retries + 1)} time" if job.retries else ""
        return "failed", why + tried, "error"

    def _end_waiting(self, job: Job) -> None:
        if job.cancel_requested_at is not None:
            # By the next run of its schedule: whoever asks by the API has it cancelled at once.
            self._store.request_cancel(job.id, "cancelled for the next run of its schedule")
            return
        why = f"timed out after config.timeout_minutes {job.spec.config.timeout_minutes:g}, waiting to be tried again"
        if has_begun_to_publish(self._store.moves(job.id)):
            _, text = stopped_as(job, "failed", why, True, 0)
        else:
            text = f"{why}; what is staged is kept, `penstock retry {job.id}` goes on"
        self._store.move(
            job.id,
            "submitted",
            "failed",
            text,
            attempt=job.attempt,
            error=text,
            outcome="timed_out",
            counts=shown_counts(job),
        )


def _ordinal(n: int) -> str:
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"
