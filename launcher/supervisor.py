"""Jobs get their own process, and their state is put right when that process is gone."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from launcher import ATTEMPT
from launcher.errors import (
    Conflict,
    ConnectionUnknown,
    HomeUnusable,
    JobAlive,
    JobExists,
    LauncherError,
    MoveForbidden,
    NotNow,
    Problem,
    RequestError,
    StoreUnavailable,
)
from launcher.forks.processes import describe_exit, kill_session
from launcher.home import Home, JobFolder, JobLock
from launcher.joblog import start_keeper
from launcher.purging import check_purge
from launcher.state.job import ACTIVE, TERMINAL, Job, Move, Status, has_begun_to_publish, new_id, stopped_as
from launcher.state.store import JobStore
from launcher.worker.progress import Live, Snapshot, counts_of, kept_rows, read_live, read_snapshot, seconds_of_dead
from pipelines.spec import JobSpec
from predictors.crashes import CrashRecord

# The log of a job whose process is gone is complete within milliseconds.
_LAST_WORDS_S = 2.0


def _unknown(tenant: str, name: str) -> str:
    raise ConnectionUnknown(name)


class StartedJob:
    """A job's process, as seen by the process that started it."""

    def __init__(
        self, job: Job, process: "subprocess.Popen[bytes]", log_keeper: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        self.job = job
        self._process = process
        self._log_keeper = log_keeper
        # Its own child: nobody else can have the pid before it is waited for.
        self._started = psutil.Process(process.pid).create_time()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end. Returns, within 50 ms of the end or of the time given, whether it did."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        if self._log_keeper is not None:
            # For the last words to be in the log; something that the job has left may hold it open.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._log_keeper.wait(_LAST_WORDS_S)
            self._log_keeper = None
        return True

    def cancel(self) -> None:
        """Ask it to stop; it takes up to 4 s when it publishes already."""
        self._process.terminate()

    def kill(self) -> None:
        """End it and all that it has started at once. The ledger makes any moment safe."""
        kill_session(self._process.pid, self._started)

    def end(self) -> str:
        """How it ended, for people."""
        return describe_exit(self._process.returncode)


class Supervisor:
    """Starts jobs, resumes, settles and deletes them.

    Any number of supervisors may share a home. A job's process outlives the supervisor that started it.

    Args:
        home: where jobs are kept.
        store: their states.
        attempt_module: what the job's process runs.
        uri_of: where a connection leads that a job of the service names, by tenant and name; raises ConnectionUnknown.
    """

    def __init__(
        self, home: Home, store: JobStore, attempt_module: str = ATTEMPT, uri_of: Callable[[str, str], str] = _unknown
    ) -> None:
        self._home = home
        self._store = store
        self._attempt_module = attempt_module
        self._uri_of = uri_of

    def submit(
        self, spec: JobSpec, working_dir: Path, reason: str = "penstock run", job_id: str | None = None
    ) -> StartedJob:
        """Record a job and start its process.

        Args:
            working_dir: where relative paths of the spec start from; absolute.
            job_id: a fresh one that the spec may hold already; one is made if left out.

        Raises:
            JobExists: the id is taken.
            HomeUnusable, StoreUnavailable: nothing was started.
        """
        while True:
            job = Job(job_id or new_id(), spec, str(working_dir), datetime.now(UTC))
            folder = self._home.job(job.id)
            try:
                folder.create()
                # Held from before the job is known, so that nobody finds it without a process.
                lock = folder.lock(job.id)
            except HomeUnusable:
                shutil.rmtree(folder.path, ignore_errors=True)
                raise
            try:
                self._store.add(job, reason)
                return self._start(job, lock)
            except JobExists:
                if job_id is not None:
                    raise
            except StoreUnavailable:
                shutil.rmtree(folder.path, ignore_errors=True)
                raise
            finally:
                lock.release()

    def resume(self, job_id: str, max_reject_ratio: float | None = None, reason: str = "penstock resume") -> StartedJob:
        """Start another attempt of a job that failed, was cancelled, or whose process died.

        Args:
            max_reject_ratio: takes the place of the spec's from now on.

        Raises:
            JobUnknown: there is none.
            JobAlive: its process runs.
            MoveForbidden: it is completed.
            NotNow: it is a job of the service.
            HomeUnusable, StoreUnavailable: nothing was started.
        """
        job = self._store.get(job_id)
        if job.managed:
            raise NotNow(f"{job_id} belongs to the service; `penstock retry {job_id}` goes on with it")
        folder = self._home.job(job_id)
        folder.create()
        lock = folder.lock(job_id, job.pid)
        try:
            job = self._settle(self._store.get(job_id))
            if not Path(job.working_dir).is_dir():
                raise HomeUnusable(f"{job_id} was run in {job.working_dir}, which is gone; run the job anew")
            spec = job.spec
            if max_reject_ratio is not None:
                spec = replace(spec, rejects=replace(spec.rejects, max_reject_ratio=max_reject_ratio))
            job = self._store.move(job_id, job.status, "submitted", reason, spec=spec)
            return self._start(job, lock)
        finally:
            lock.release()

    def go_on(self, started: StartedJob) -> StartedJob | None:
        """Start another attempt of a job whose process died while it called the model, to find the row that killed it.

        Returns None for one that ended otherwise, and for one that dies again and again without such a row.

        Raises:
            HomeUnusable, StoreUnavailable: nothing was started.
        """
        folder = self._home.job(started.job.id)
        crashes = CrashRecord(folder.path)
        unexplained, tries = crashes.findings().unexplained, started.job.spec.config.retry_count
        if not crashes.marks() or (unexplained and unexplained >= tries):
            return None
        job = self._store.get(started.job.id)
        if job.is_over:
            return None
        if folder.is_alive():
            # Something that the process started is still there; it would go on writing.
            started.kill()
        try:
            lock = folder.lock(job.id, job.pid)
        except JobAlive:
            return None
        try:
            reason = f"its process died ({started.end()}) while it called the model; the rows are looked into"
            return self._start(self._store.move(job.id, ACTIVE, "submitted", reason, retries=job.retries), lock)
        except (Conflict, MoveForbidden):
            return None
        finally:
            lock.release()

    def job(self, job_id: str) -> Job:
        """One job, its state put right.

        Raises:
            JobUnknown: there is none.
        """
        return self.settled(self._store.get(job_id))

    def peek(self, job_id: str) -> Job:
        """One job, as recorded.

        Raises:
            JobUnknown: there is none.
        """
        return self._store.get(job_id)

    def jobs(self, statuses: Collection[Status] | None = None) -> list[Job]:
        """All jobs, or those in one of `statuses`, their states put right, the newest first."""
        jobs = [self.settled(job) for job in self._store.jobs()]
        return jobs if statuses is None else [job for job in jobs if job.status in statuses]

    def moves(self, job_id: str) -> list[Move]:
        """The moves of a job, the first first."""
        return self._store.moves(job_id)

    def live(self, job: Job) -> Live:
        """What the workers of the job's last attempt have counted."""
        return read_live(self._home.job(job.id).progress, job.attempt)

    def snapshot(self, job: Job) -> Snapshot | None:
        """How far the copy of the query's rows is."""
        return read_snapshot(self._home.job(job.id).preparing, job.attempt)

    def folder(self, job_id: str) -> JobFolder:
        """Where a job is kept."""
        return self._home.job(job_id)

    def settled(self, job: Job, why: str | None = None, to: Status = "failed") -> Job:
        """The job as it is; moved to `to` when it should have a process and has none.

        Args:
            why: what is known of the end of its process.
        """
        folder = self._home.job(job.id)
        if job.managed:
            # Its launcher does that.
            return job
        if job.is_over or folder.is_alive():
            return job if job.is_over else self._store.get(job.id)
        folder.create()
        try:
            lock = folder.lock(job.id)
        except JobAlive:
            return self._store.get(job.id)
        try:
            return self._settle(self._store.get(job.id), why, to)
        finally:
            lock.release()

    def withdraw(self, job: Job) -> RequestError | None:
        """Forget a job that was never begun, as its request is wrong, and say what is; None for any other.

        Its process has removed already what it had made. For whoever submitted the job, and nobody resumed.

        Raises:
            HomeUnusable, StoreUnavailable: it could not be forgotten.
        """
        if job.status != "failed" or job.outcome != "request_wrong":
            return None
        folder = self._home.job(job.id)
        lock = folder.lock(job.id, job.pid)
        try:
            folder.delete()
            self._store.delete(job.id, TERMINAL)
        finally:
            lock.release()
        return RequestError([Problem("", job.error or "the request is wrong")])

    def delete(self, job_id: str) -> str | None:
        """Remove a job: what it staged, its snapshot, its folder, its record. A published result stays.

        Returns:
            Why something that it staged stays at its destination, in one line; None where nothing does.

        Raises:
            JobUnknown: there is none.
            JobAlive: its process runs.
            NotNow: it is a job of the service that is not over, or that another one adds to.
            PipelineError: the destination could not be reached to be tidied.
        """
        job = self._store.get(job_id)
        if job.managed and not job.is_over:
            raise NotNow(f"{job_id} belongs to the service and is {job.status}; `penstock cancel {job_id}` first")
        if job.managed:
            check_purge(self._store, job)
        folder = self._home.job(job_id)
        folder.create()
        lock = folder.lock(job_id, job.pid)
        try:
            # From then on the service makes no further attempt of it.
            job = self._store.expire(job_id) if job.managed else self._settle(self._store.get(job_id))
            stays = self._discard(job, folder)
            folder.delete()
            self._store.delete(job_id, TERMINAL)
            return stays
        finally:
            lock.release()

    def _discard(self, job: Job, folder: JobFolder) -> str | None:
        if job.started_at is None or (job.managed and job.status == "completed"):
            return None
        import importlib

        attempt, output, stays = importlib.import_module(self._attempt_module), job.spec.output, None
        discard = attempt.discard
        if job.managed:
            try:
                opened = output.with_connections(lambda name: self._uri_of(job.tenant, name))
                job = replace(job, spec=replace(job.spec, output=opened))
            except ConnectionUnknown as error:
                discard = attempt.discard_apart
                stays = f"what it staged for {output.destination} {output.target} stays where it is: {error}"
        # Relative paths of the spec start from there, and so do the modules of a Python model.
        with contextlib.chdir(job.working_dir) if Path(job.working_dir).is_dir() else contextlib.nullcontext():
            discard(job, folder.path)
        return stays

    def _settle(self, job: Job, why: str | None = None, to: Status = "failed") -> Job:
        """Move a job without a process out of its active state. The caller holds its lock."""
        if job.is_over:
            return job
        if to == "cancelled":
            CrashRecord(self._home.job(job.id).path).forget_marks()
        live = self.live(job)
        process = "its process" if job.pid is None else f"its process (pid {job.pid})"
        to, text = stopped_as(
            job,
            to,
            why or f"{process} died",
            has_begun_to_publish(self._store.moves(job.id)),
            kept_rows(job, live),
        )
        counts = counts_of(job, live) if job.has_run or job.shown.total else None
        seconds = seconds_of_dead(job, self._store.moves(job.id), self._home.job(job.id).progress, live)
        changes: dict[str, Any] = {"error": text if to == "failed" else None, "counts": counts, "seconds": seconds}
        try:
            return self._store.move(job.id, ACTIVE, to, text, **changes)
        except StoreUnavailable:
            self._home.job(job.id).give_up_reserve()
            return self._store.move(job.id, ACTIVE, to, text, **changes)

    def _start(self, job: Job, lock: JobLock) -> StartedJob:
        folder = self._home.job(job.id)
        # -P: a folder `launcher` or `queue.py` where the user works must not take the place of ours.
        command = [sys.executable, "-P", "-m", "launcher.worker.jobprocess", job.id, "--lock-fd", str(lock.fd)]
        command += ["--attempt", self._attempt_module]
        try:
            keeper, log = start_keeper(folder.log)
            try:
                process = subprocess.Popen(
                    command,
                    cwd=job.working_dir,
                    env={**os.environ, "PENSTOCK_HOME": str(self._home.path)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=[lock.fd],
                )
            finally:
                os.close(log)
        except OSError as error:
            text = f"its process could not be started: {error.strerror}: {error.filename}"
            with contextlib.suppress(LauncherError):
                self._store.move(job.id, "submitted", "failed", text, error=text)
            raise HomeUnusable(f"{job.id}: {text}") from error
        return StartedJob(job, process, keeper)
