"""The dispatcher: takes jobs from the queues and gives each a process."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from launcher import ATTEMPT
from launcher.errors import (
    Conflict,
    ForkFailed,
    HomeUnusable,
    HostUnknown,
    JobAlive,
    JobUnknown,
    LauncherError,
    StoreUnavailable,
)
from launcher.forks.forking import Child, Forks, Task
from launcher.forks.processes import machine_of
from launcher.home import Home
from launcher.logs import fields_of
from launcher.settings import Settings
from launcher.state.job import AT_WORK, Job, shown_counts
from launcher.state.store import JobStore
from launcher.worker.failures import is_passing, wait_s
from launcher.worker.handover import JOB_ID_VARIABLE, Handover

# A job's lock may be held for some milliseconds by whoever looks whether it lives.
_AGAIN_S = 0.5
# How long others wait for the hosts of a job's connections to be looked up: milliseconds, where the resolver is well.
_LOOKUP_S = 0.1
# How long the job itself waits at most. Lookups have bounds of their own, but a store or a file system may hang, too.
_LONGEST_LOOKUP_S = 30.0
# Within this the reaper has ended a job that waits and whose time is over; it comes by twice a second.
_ENDED_WITHIN_S = 2.0

_log = logging.getLogger("launcher.loops.dispatcher")


@dataclass(frozen=True)
class _LookedUp:
    """A job that is claimed, and is started once it is known how to reach what it names."""

    job: Job
    connections: Future[Mapping[str, str]]
    until: float


class Dispatcher:
    """Starts the jobs that wait, as far as limits allow.

    Args:
        owner: this launcher's id.
        connections_of: URIs of the connections that a job's spec names; raises LauncherError for one that it may not
            have (any more). May take seconds, for a resolver that does not answer; called in a thread.
        folders_of: the folders that a tenant's paths are confined to; None: not at all.
        machine, launcher_lives: what launchers of this machine are called before the last hyphen, and whether one runs.
        wake: has `tick` called soon; called once a job can be started whose connections took longer than `lookup_s`.
        lookup_s: how long others wait for those.
    """

    def __init__(
        self,
        home: Home,
        store: JobStore,
        forks: Forks,
        settings: Settings,
        owner: str,
        connections_of: Callable[[Job], Mapping[str, str]],
        folders_of: Callable[[str], tuple[str, ...] | None],
        attempt_module: str = ATTEMPT,
        machine: str | None = None,
        launcher_lives: Callable[[str], bool] = lambda owner: True,
        wake: Callable[[], object] = lambda: None,
        lookup_s: float = _LOOKUP_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home = home
        self._store = store
        self._forks = forks
        self._settings = settings
        self._owner = owner
        self._connections_of = connections_of
        self._folders_of = folders_of
        self._attempt_module = attempt_module
        self._machine = machine
        self._launcher_lives = launcher_lives
        self._wake = wake
        self._lookup_s = lookup_s
        self._clock = clock
        # Only `tick` and `leave` touch it.
        self._looked_up: dict[str, _LookedUp] = {}
        self._closed = False
        self._is_claiming = False
        self._starting: set[str] = set()
        self._lock = threading.Lock()

    def is_starting(self, job: Job) -> bool:
        """Whether this launcher has claimed a job and not started it yet. From any thread; waits for nothing."""
        with self._lock:
            # It may have been claimed by the claim under way, which has not returned.
            is_claimed = self._is_claiming and job.pid is None and job.owner == self._owner
            return is_claimed or job.id in self._starting

    def close(self) -> None:
        """Start nothing more. What cannot be started because of that goes back into its queue. From any thread."""
        self._closed = True

    def leave(self) -> None:
        """Put back into their queues what was claimed and not started; once `tick` is not called any more."""
        self._give_all_back("its launcher was stopped, again")

    def tick(self) -> int:
        """Claim and start jobs. Returns how many were claimed."""
        if self._closed:
            return 0
        if not self._forks.is_warm:
            # In the queue they can be cancelled, and taken by another launcher.
            self._give_all_back("no process can be made of it yet, again")
            return 0
        for looked_up in list(self._looked_up.values()):
            self._go_on(looked_up)
        room = self._settings.max_jobs - sum(map(self._counts_here, self._store.at_work()))
        claimed_jobs = 0
        while room > 0 and not self._closed:
            # One at a time: a job waits in the queue, where another launcher can take it, rather than here.
            claimed = self._claim()
            if claimed is None:
                break
            looked_up = _LookedUp(claimed, self._look_up(claimed), self._clock() + _LONGEST_LOOKUP_S)
            self._looked_up[claimed.id] = looked_up
            wait([looked_up.connections], self._lookup_s)
            if looked_up.connections.done():
                self._start(looked_up)
            else:
                looked_up.connections.add_done_callback(lambda _: self._wake())
            claimed_jobs += 1
            room -= 1
        return claimed_jobs

    def _look_up(self, job: Job) -> Future[Mapping[str, str]]:
        """Its connections, some time, by a thread of its own: nobody else waits for its resolver."""
        found: Future[Mapping[str, str]] = Future()

        def look() -> None:
            try:
                found.set_result(self._connections_of(job))
            except BaseException as error:
                found.set_exception(error)

        try:
            threading.Thread(target=look, name="look up connections", daemon=True).start()
        except RuntimeError as error:
            found.set_exception(ForkFailed(f"no thread can be started: {error}"))
        return found

    def _go_on(self, looked_up: _LookedUp) -> None:
        """Start a job whose connections are known; what was told to stop meanwhile, or waits too long, is put back."""
        job = looked_up.job
        try:
            # There is no process yet that would renew its lease.
            is_to_stop = self._store.beat(job.id, job.attempt, self._settings.lease_s)
        except (Conflict, JobUnknown) as lost:
            _log.info("%s: %s", job.id, lost, extra=fields_of(job))
            self._forget(job)
            return
        if is_to_stop or (job.deadline_at is not None and self._store.clock() >= job.deadline_at):
            # One that is to stop ends there; one whose time is over is ended by the reaper, before it is claimed again.
            self._give_back(job, "it was to stop, again", _ENDED_WITHIN_S)
        elif looked_up.connections.done():
            self._start(looked_up)
        elif self._clock() >= looked_up.until:
            self._wait_for(job, f"its connections were not looked up within {_LONGEST_LOOKUP_S:.0f} s")
            self._forget(job)

    def _give_all_back(self, why: str) -> None:
        for looked_up in list(self._looked_up.values()):
            self._give_back(looked_up.job, why)

    def _give_back(self, job: Job, why: str, waiting_s: float = 0.0) -> None:
        """Put back a job that was looked up; where the store is away it stays, for the next tick."""
        self._put_back(job, why, waiting_s, job.retries)
        self._forget(job)

    def _forget(self, job: Job) -> None:
        self._looked_up.pop(job.id, None)
        with self._lock:
            self._starting.discard(job.id)

    def _counts_here(self, job: Job) -> bool:
        """Whether a job takes one of this launcher's places: its own, and those of one that died on this machine."""
        if job.owner is None or job.owner == self._owner:
            return job.owner is not None
        is_here = machine_of(job.owner) == self._machine
        return is_here and not self._launcher_lives(job.owner)

    def _claim(self) -> Job | None:
        with self._lock:
            self._is_claiming = True
        jobs: list[Job] = []
        try:
            jobs = self._store.claim(self._owner, 1, self._settings.max_concurrent_jobs, self._settings.lease_s)
        finally:
            with self._lock:
                self._starting |= {job.id for job in jobs}
                self._is_claiming = False
        return jobs[0] if jobs else None

    def _start(self, looked_up: _LookedUp) -> None:
        # From here on it is not for `leave` to put it back.
        self._looked_up.pop(looked_up.job.id, None)
        try:
            self._try_to_start(looked_up.job, looked_up.connections)
        finally:
            self._forget(looked_up.job)

    def _try_to_start(self, job: Job, connections: Future[Mapping[str, str]]) -> None:
        try:
            child = self._fork(job, connections.result())
        except JobAlive:
            # Its last process is still going.
            self._put_back(job, "its last process is still there, again", _AGAIN_S, job.retries)
        except (ForkFailed, HomeUnusable, OSError) as error:
            if self._closed:
                self._put_back(job, "its launcher was stopped, again", 0.0, job.retries)
            else:
                self._try_again(job, str(error))
        except LauncherError as error:
            if isinstance(error, StoreUnavailable) or (isinstance(error, HostUnknown) and error.for_now):
                self._wait_for(job, str(error))
            elif is_passing(error):
                self._try_again(job, str(error))
            else:
                self._fail(job, str(error))
        else:
            _log.info("%s is started, pid %d", job.id, child.pid, extra=fields_of(job))
            # Before it says so itself: should it die first, it has to be known that it was there.
            with contextlib.suppress(Conflict, JobUnknown):
                started = {"pid": child.pid, "pid_started": child.started}
                self._store.beat(job.id, job.attempt, self._settings.lease_s, **started)

    def _fork(self, job: Job, connections: Mapping[str, str]) -> Child:
        folder = self._home.job(job.id)
        folder.create()
        lock = folder.lock(job.id, job.pid)
        try:
            if not Path(job.working_dir).is_dir():
                raise LauncherError(f"the folder {job.working_dir} is gone; submit the job anew")
            handover = Handover(
                home=str(self._home.path),
                job_id=job.id,
                attempt=job.attempt,
                store_url=self._settings.store_url,
                connections=dict(connections),
                allowed_paths=self._folders_of(job.tenant),
                lease_s=self._settings.lease_s,
                first_wait_s=self._settings.retry_wait_s,
                max_input_rows=self._settings.max_input_rows,
                attempt_module=self._attempt_module,
            )
            task = Task(
                entry="launcher.worker.jobprocess:run_forked",
                arguments={**handover.to_json(), "tenant": job.tenant},
                working_dir=job.working_dir,
                environment={**self._settings.job_environment, JOB_ID_VARIABLE: job.id},
                output=str(folder.log),
                keeps_log=True,
            )
            return self._forks.fork(task, (lock.fd,))
        finally:
            lock.release()

    def _try_again(self, job: Job, why: str) -> None:
        tries = job.spec.config.retry_count
        if job.retries >= tries:
            self._fail(job, why)
            return
        waiting_s = wait_s(job.retries, self._settings.retry_wait_s)
        self._put_back(job, f"{why}; retry {job.retries + 1} of {tries}", waiting_s, job.retries + 1)

    def _wait_for(self, job: Job, why: str) -> None:
        """Put back a job for something that is no fault of its own; its own time is the bound."""
        self._put_back(job, f"{why}; again", wait_s(job.attempt - 1, self._settings.retry_wait_s), job.retries)

    def _put_back(self, job: Job, why: str, waiting_s: float, retries: int) -> None:
        not_before = self._store.clock() + timedelta(seconds=waiting_s)
        reason = f"{why} in {waiting_s:.1f} s"
        self._move(job, "submitted", reason, retries=retries, not_before=not_before)

    def _fail(self, job: Job, why: str) -> None:
        text = " ".join(why.split())
        self._move(job, "failed", text, error=text, outcome="error", counts=shown_counts(job))

    def _move(self, job: Job, to: str, reason: str, **changes: object) -> None:
        try:
            self._store.move(job.id, AT_WORK, to, reason, attempt=job.attempt, **changes)  # type: ignore[arg-type]
            _log.info("%s is %s: %s", job.id, to, reason, extra=fields_of(job))
        except (Conflict, JobUnknown) as lost:
            _log.info("%s: %s", job.id, lost, extra=fields_of(job))
