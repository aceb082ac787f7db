"""A job's own process: it makes one attempt, watches its own time and memory, and leaves the job in a state.

    python -m launcher.worker.jobprocess JOB_ID --lock-fd N

That is how `penstock run` starts it; a launcher forks it (`run_forked`), and hands over what must not be on a command
line. The main thread makes the attempt. A second thread (`watch.py`) waits for signals, for the deadline and for the
memory to run out, a third (`pulse.py`) tells the store how far the attempt is. When the attempt has to end, the job is
moved first and then the process ends at once, whatever the attempt is doing: the ledger makes any moment safe. Before
that, what is scored is staged, as far as it can be in some seconds, and publishing is given as long to end by itself.
"""

import argparse
import contextlib
import faulthandler
import functools
import importlib
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import psutil

import pipelines
import predictors
import transforms
from launcher import ATTEMPT
from launcher.errors import Conflict, LauncherError, StoreUnavailable
from launcher.estimate.duration import USUAL_FIXED_S, Probe, estimated_s
from launcher.forks.processes import adopt_orphans, kill_rest, wait_for_orphans
from launcher.home import Home, JobLock
from launcher.logs import TEXT_FORMAT, JsonFormatter, Masking, MaskingFormatter, masked, masked_lines
from launcher.state.job import (
    ACTIVE,
    Job,
    Live,
    Outcome,
    Seconds,
    Status,
    has_begun_to_publish,
    stopped_as,
)
from launcher.state.sql import SqlJobStore
from launcher.state.store import Past
from launcher.worker.failures import Unexpected, brief, is_passing, is_wrong_request, outcome_of, wait_s
from launcher.worker.gate import JobGate
from launcher.worker.handover import Handover
from launcher.worker.progress import SnapshotProgress, counts_of, kept_rows, seconds_of
from launcher.worker.pulse import Pulse
from launcher.worker.watch import End, Watch
from pipelines.spec import JobSpec
from predictors.bounds import Bounds
from predictors.crashes import CrashRecord
from predictors.errors import PredictorError
from predictors.notices import Notice
from transforms.errors import Cancelled, ConnectionRefused, InputError, PipelineError

# How long a publish that has begun may go on once the process has heard of a cancel, within a second; the job has to be
# gone within 5 s.
PUBLISH_PATIENCE_S = 3.0
# How long of it what is scored already may take to be staged.
KEEP_PATIENCE_S = 2.0
# How long the last words may take, of which there are a few lines.
_FLUSH_PATIENCE_S = 0.5
_STOPPABLE: tuple[Status, ...] = ("submitted", "preparing", "running")

_T = TypeVar("_T")

_log = logging.getLogger("launcher")


class JobProcess:
    """One attempt of one job.

    Args:
        handover: which, and all that it needs.
        lock: held until the process ends.
    """

    def __init__(self, handover: Handover, lock: JobLock) -> None:
        self._handover = handover
        self._home = Home(Path(handover.home))
        self._folder = self._home.job(handover.job_id)
        self._lock = lock
        self._open_store = functools.partial(SqlJobStore.named, handover.store_url, self._home.store)
        self._store = self._open_store()
        self._job = self._store.get(handover.job_id)
        self._moving = threading.Lock()
        self._may_be_visible = has_begun_to_publish(self._store.moves(handover.job_id))
        # How far the clock of the store is ahead, for deadlines and the like are told by it.
        self._ahead = self._store.clock() - datetime.now(UTC)
        # Nothing of the job is done before it is planned.
        self._was_planned = self._folder.plan.exists()
        self._watch = Watch(self._job.spec.config, lambda: self._job, self._now)
        self._pulse = Pulse(
            self._store,
            self._folder.progress,
            self._folder.preparing,
            self._current,
            handover.lease_s,
            on_cancel=lambda: self._watch.end(End("cancelled", "cancelled on request")),
            on_fenced=self._leave,
            now=self._now,
        )

    def run(self) -> NoReturn:
        """Make the attempt and end the process. Call from the main thread."""
        # Before anything is started: `_leave` must find it, wherever it went.
        adopt_orphans()
        self._watch.listen()
        threading.Thread(target=wait_for_orphans, name="orphans", daemon=True).start()
        threading.Thread(target=self._end_when_told, name="watch", daemon=True).start()
        try:
            self._attempt()
        except BaseException as error:
            self._fail_or_tell(error)
        finally:
            self._leave()

    def _attempt(self) -> None:
        own = psutil.Process()
        identity: dict[str, Any] = {"pid": own.pid, "pid_started": own.create_time()}
        if self._job.managed:
            # Claimed by a launcher, which may have slept since: a stale attempt must not begin.
            if self._job.status != "preparing" or self._job.attempt != self._handover.attempt:
                _log.warning("attempt %d of %s is no longer wanted", self._handover.attempt, self._job.id)
                return
            self._store.beat(self._job.id, self._handover.attempt, self._handover.lease_s, **identity)
            self._job = replace(self._job, **identity)
        else:
            self._move(["submitted"], "preparing", f"attempt {self._job.attempt}", **identity)
        self._pulse.start()
        importlib.import_module("pipelines.lean_beam")
        attempt = importlib.import_module(self._handover.attempt_module)
        self._mask_log()
        # The store's own record keeps the names of connections; only in here they are what they stand for.
        job = replace(self._job, spec=self._spec)
        within = self._check_confined()
        tell = SnapshotProgress(self._folder.preparing, job.attempt)

        def on_snapshot(rows: int, total: int | None) -> None:
            self._check_rows(rows)
            tell(rows, total)

        prepared = attempt.prepare(job, self._folder.path, on_snapshot, within)
        self._check_rows(prepared.total_rows)
        self._move(
            ["preparing"],
            "running",
            f"{prepared.total_rows:,} rows, {prepared.already.total:,} of them staged before",
            total_rows=prepared.total_rows,
            output=prepared.output,
            rejects=prepared.rejects,
            already=prepared.already,
            notices=prepared.notices,
            **self._estimated(prepared.total_rows, getattr(prepared, "row_s", None)),
        )
        result = attempt.run(prepared, JobGate(self._home, job.id, job.attempt, self._open_store))
        if self._store.get(job.id).status == "running":
            self._move(["running"], "completing", "the result was published by an earlier attempt")
        live = self._pulse.live()
        self._move(
            ["completing"],
            "completed",
            "published",
            outcome=result.outcome,
            counts=result.counts,
            **self._noticed(),
            live=live,
            seconds=replace(self._seconds(live), **result.seconds),
        )
        attempt.drop_snapshot(self._folder.path)

    def _estimated(self, rows: int, row_s: float | None) -> dict[str, Any]:
        """How long the job will take, as a change to its record, where it was not told when it was submitted.

        Args:
            row_s: what a row was seen to take, of all threads; None where that is not known.
        """
        job = self._job
        if job.estimated_seconds is not None or job.started_at is None:
            return {}
        past: list[Past] = []
        if job.model_id is not None:
            past = self._store.past(job.tenant, job.model_id, job.model_version)
        so_far_s = (self._now() - job.started_at).total_seconds()
        probe = None if row_s is None else Probe(row_s=row_s)
        seconds = estimated_s(rows, job.spec.config.batch_size, past, max(USUAL_FIXED_S, so_far_s), probe)
        return {"estimated_seconds": round(seconds, 3)}

    def _fail_or_tell(self, error: BaseException) -> None:
        try:
            self._fail(error)
        except BaseException as unrecorded:
            trace = self._masked_traceback(unrecorded)
            _log.error("%s failed, and that could not be recorded\n%s", self._job.id, trace)

    def _fail(self, error: BaseException) -> None:
        expected = isinstance(error, PipelineError | PredictorError | LauncherError)
        kind = type(error).__name__
        whole = " ".join(str(error).split()) if expected else self._mask(f"{kind}: {error}" if str(error) else kind)
        text = brief(whole)
        if text != whole:
            _log.error("%s failed: %s", self._job.id, whole)
        if not expected:
            _log.error("%s", self._masked_traceback(error))
        passing = is_passing(error) and not isinstance(error, Cancelled)
        try:
            if isinstance(error, Cancelled) and self._heeds_cancel():
                return
            if passing and self._try_again(text):
                return
            wrong = self._nothing_is_done and is_wrong_request(error, self._job.managed)
            if wrong and not isinstance(error, LauncherError | ConnectionRefused):
                self._leave_nothing()
            outcome = "request_wrong" if wrong else outcome_of(error)
            self._move(ACTIVE, "failed", text, error=text, outcome=outcome, **self._so_far())
        except Conflict:
            # Stopped from the other thread, which ends the process; `error` is only what came of it.
            pass
        except LauncherError as unrecorded:
            _log.error("%s failed: %s; and that could not be recorded: %s", self._job.id, text, unrecorded)

    @property
    def _nothing_is_done(self) -> bool:
        return not self._was_planned and self._current().status == "preparing"

    def _leave_nothing(self) -> None:
        """Remove what was made at the destination for a job that cannot be."""
        try:
            attempt = importlib.import_module(self._handover.attempt_module)
            attempt.discard(replace(self._job, spec=self._spec), self._folder.path)
            self._folder.plan.unlink(missing_ok=True)
        except Exception as error:
            _log.warning("%s: what it made could not be removed: %s", self._job.id, self._mask(str(error)))

    def _heeds_cancel(self) -> bool:
        """Stop as one that was told to and has not heard of it yet. Returns whether it was."""
        recorded = self._with_reserve(lambda: self._store.get(self._job.id))
        if recorded.cancel_requested_at is None:
            return False
        visible = self._may_be_visible or recorded.status == "completing"
        self._stop_as(End("cancelled", "cancelled on request"), visible, ACTIVE)
        return True

    def _try_again(self, why: str, counts: bool = True, **changes: Any) -> bool:
        """Have the launcher make another attempt, if there is one to make it and the job bears one more.

        Returns whether the job has been moved. One that was told to stop does so instead.

        Args:
            counts: whether it is one of the retries that the job may have.
        """
        job, tries = self._job, self._job.spec.config.retry_count
        if not job.managed or (counts and job.retries >= tries):
            return False
        if self._heeds_cancel():
            # The store would not let it wait, either, but knows less to say.
            return True
        now = self._now()
        # In any case: this process has to be gone by then, and its memory given back.
        waiting_s = wait_s(job.retries, self._handover.first_wait_s)
        if job.deadline_at is not None and now + timedelta(seconds=waiting_s) >= job.deadline_at:
            return False
        count = f"; retry {job.retries + 1} of {tries}" if counts else ""
        self._move(
            ["preparing", "running", "completing"],
            "submitted",
            f"{why}{count} in {waiting_s:.1f} s",
            not_before=now + timedelta(seconds=waiting_s),
            retries=job.retries + 1 if counts else job.retries,
            live=self._pulse.live(),
            **changes,
        )
        return True

    # --- the second thread --------------------------------------------------------------------------------------

    def _end_when_told(self) -> None:
        try:
            end = self._watch.await_end()
        except Exception as error:
            # A job that nobody watches any more could not be stopped.
            _log.error("the watch over %s broke\n%s", self._job.id, self._masked_traceback(error))
            end = End("failed", f"{type(error).__name__}: {error}", "error")
        self._stop(end)

    def _stop(self, end: End) -> NoReturn:
        """Move the job, unless it ends by itself, and end the process."""
        patience_ends = time.monotonic() + PUBLISH_PATIENCE_S
        try:
            # What has no room left gets none for this, either.
            if self._job.status == "running" and end.outcome != "out_of_memory":
                self._keep_scored()
            while not self._stopped(end, insist=time.monotonic() > patience_ends):
                time.sleep(0.02)
        except Exception as error:
            trace = self._masked_traceback(error)
            _log.error("%s: %s; and that could not be recorded\n%s", self._job.id, end.why, trace)
        finally:
            self._leave()

    def _keep_scored(self) -> None:
        """Stage what is scored and waits for its part to fill."""
        # Imported with Beam, by an attempt that scores; it takes 5 s, which there are not.
        pending = sys.modules.get("transforms.pending")
        try:
            if pending is not None:
                pending.PENDING.stage(KEEP_PATIENCE_S)
        except Exception as error:
            _log.warning("%s: what was scored could not be kept: %s", self._job.id, self._mask(str(error)))

    def _stopped(self, end: End, insist: bool) -> bool:
        """Try to move the job. False while it publishes and is not to be disturbed."""
        job = self._job
        visible = self._may_be_visible or insist
        expected = ACTIVE if insist else _STOPPABLE
        try:
            # One that ran out of memory is tried once more, with half as much in flight.
            again = end.outcome == "out_of_memory" and not job.memory_strikes and not visible
            strikes = job.memory_strikes + 1
            if again and self._try_again(f"{end.why}; once more", counts=False, memory_strikes=strikes):
                return True
            self._stop_as(end, visible, expected)
        except Conflict as conflict:
            return conflict.status != "completing"
        return True

    def _stop_as(self, end: End, visible: bool, expected: Collection[Status]) -> None:
        """Move the job to where `end` leads.

        Raises:
            Conflict: it is in no expected state.
        """
        job = self._job
        to, text = stopped_as(job, end.to, end.why, visible, kept_rows(job, self._pulse.live()))
        outcome: Outcome | None = (end.outcome or "error") if to == "failed" else None
        self._move(expected, to, text, error=text if to == "failed" else None, outcome=outcome, **self._so_far())

    # --- both ---------------------------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def _current(self) -> Job:
        with self._moving:
            return self._job

    def _move(self, expected: Collection[Status], to: Status, reason: str, **changes: Any) -> Job:
        with self._moving:
            self._job = self._moved(expected, to, reason, **changes)
        _log.info("%s is %s: %s", self._job.id, to, reason)
        return self._job

    def _moved(self, expected: Collection[Status], to: Status, reason: str, **changes: Any) -> Job:
        job_id, attempt = self._job.id, self._job.attempt
        move = functools.partial(self._store.move, job_id, expected, to, reason, attempt=attempt, **changes)
        try:
            return move()
        except StoreUnavailable:
            self._folder.give_up_reserve()
            try:
                return move()
            except Conflict:
                # Perhaps it was done the first time, and only the answer was lost.
                job = self._store.get(job_id)
                if (job.status, job.attempt) != (to, attempt):
                    raise
                return job

    def _with_reserve(self, ask: Callable[[], _T]) -> _T:
        """Ask the store, and ask it again should the job have filled the disk that its own state is on."""
        try:
            return ask()
        except StoreUnavailable:
            self._folder.give_up_reserve()
            return ask()

    def _so_far(self) -> dict[str, Any]:
        live = self._pulse.live()
        counts = counts_of(self._job, live) if self._job.has_run or self._job.shown.total else None
        return {"counts": counts, "live": live, "seconds": self._seconds(live), **self._noticed()}

    def _noticed(self) -> dict[str, Any]:
        """What was noticed of the whole job, as a change to its record; none before it was to be published."""
        try:
            values = json.loads(self._folder.notices.read_bytes())
        except OSError:
            return {}
        return {"notices": tuple(map(Notice.from_json, values))}

    def _seconds(self, live: Live) -> Seconds:
        moves = self._with_reserve(lambda: self._store.moves(self._job.id))
        return seconds_of([move for move in moves if move.attempt == self._job.attempt], self._now(), live)

    @property
    def _spec(self) -> JobSpec:
        return self._job.spec.with_uris(self._handover.connections)

    def _check_rows(self, rows: int) -> None:
        most = self._handover.max_input_rows
        if most is not None and rows > most:
            raise InputError(
                f"the input has {rows:,} rows or more, and at most {most:,} are taken (BATCH_MAX_INPUT_ROWS); "
                "score it in pieces"
            )

    def _check_confined(self) -> Bounds | None:
        """Look once more that no path leads out of the tenant's folders: a link may have come meanwhile.

        Another may come after that. So whatever is opened is then held against what is returned.
        """
        allowed = self._handover.allowed_paths
        if allowed is None:
            return None
        from launcher.reach.confine import Confinement  # only a service confines
        from launcher.reach.confined_spec import check_spec

        confinement = Confinement(tuple(Path(folder) for folder in allowed), closed=(self._home.path,))
        check_spec(self._spec, confinement, self._folder.path)
        return confinement.bounds

    def _mask_log(self) -> None:
        """Have no secret in the log, whoever writes there: Beam tells every cause of an error, the driver's included.

        Not before the attempt is imported: a formatter that imports what it needs would do so holding the log's lock.
        """
        for handler in logging.getLogger().handlers:
            if handler.formatter is not None and not isinstance(handler.formatter, MaskingFormatter):
                handler.setFormatter(MaskingFormatter(handler.formatter, self._connections()))

    def _connections(self) -> list[Masking]:
        uris = self._spec.connection_names()
        if not uris:
            return []
        from transforms.connection import Connection  # 2 s, and no attempt that got anywhere lacks it

        return [Connection(uri) for uri in sorted(uris)]

    def _mask(self, text: str) -> str:
        return masked(text, self._connections())

    def _masked_traceback(self, error: BaseException) -> str:
        return masked_lines("".join(traceback.format_exception(error)).rstrip(), self._connections())

    def _leave(self) -> NoReturn:
        """End the process and all that it has started, without waiting for threads that score or write."""
        try:
            # It does not die of what the model is doing.
            CrashRecord(self._folder.path).forget_own()
            kill_rest()
            # In a thread: what a model has put in the place of stdout, or has the log write to, may never return.
            flushing = threading.Thread(target=_flush, name="flush", daemon=True)
            flushing.start()
            flushing.join(_FLUSH_PATIENCE_S)
        finally:
            os._exit(0 if self._job.status == "completed" else 1)


def _flush() -> None:
    for flush in (logging.shutdown, sys.stdout.flush, sys.stderr.flush):
        with contextlib.suppress(Exception):  # the disk of the log may be full
            flush()


def run_forked(arguments: dict[str, Any], fds: Sequence[int]) -> NoReturn:
    """Be the process of a managed job, in a child of the fork server.

    Args:
        arguments: a `Handover` as JSON, and `tenant` for the log.
        fds: the job's lock.
    """
    tenant = arguments.pop("tenant")
    handover = Handover.from_json(arguments)
    fields = {"job_id": handover.job_id, "tenant": tenant, "attempt": handover.attempt}
    _log_with(JsonFormatter(fields))
    JobProcess(handover, JobLock.adopt(fds[0])).run()


def _log_with(formatter: logging.Formatter) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    handler.addFilter(Unexpected())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    _log.setLevel(logging.INFO)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one attempt of a job that was submitted; its lock was handed down as an open file."""
    parser = argparse.ArgumentParser(prog="python -m launcher.worker.jobprocess")
    parser.add_argument("job_id")
    parser.add_argument("--lock-fd", type=int, required=True)
    parser.add_argument("--attempt", default=ATTEMPT)
    asked = parser.parse_args(arguments)
    faulthandler.enable()
    _log_with(logging.Formatter(TEXT_FORMAT))
    # The user's own modules, behind ours: our packages are found first, whatever lies in the working folder.
    _ = (pipelines, predictors, transforms)
    sys.path.append(os.getcwd())
    home = Home.from_environment()
    handover = Handover(str(home.path), asked.job_id, attempt=1, attempt_module=asked.attempt)
    JobProcess(handover, JobLock.adopt(asked.lock_fd)).run()


if __name__ == "__main__":
    main()
