"""A job's own process: it makes one attempt, watches its own time and memory, and leaves the job in a state.

    python -m launcher.jobprocess JOB_ID --lock-fd N

The main thread makes the attempt. A second thread waits for signals, for the deadline and for the memory to run out;
when one comes it moves the job first and then ends the process at once, whatever the attempt is doing: the ledger
makes any moment safe. Only publishing is given some seconds to end by itself.
"""

import argparse
import contextlib
import faulthandler
import importlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol, TypeVar

import psutil

import pipelines
import predictors
import transforms
from launcher import ATTEMPT
from launcher.errors import Conflict, LauncherError, StoreUnavailable
from launcher.gate import JobGate
from launcher.home import Home, JobLock
from launcher.memory import GB, bound_memory, host_memory, resident_bytes
from launcher.progress import Live, SnapshotProgress, counts_of, kept_rows, read_live
from launcher.state.job import ACTIVE, Job, Move, Seconds, Status, has_begun_to_publish, stopped_as
from launcher.state.sql import SqlJobStore
from launcher.state.store import JobStore
from pipelines.spec import SqlInput, TableOutput
from predictors.errors import PredictorError
from transforms.errors import PipelineError
from transforms.telemetry import Telemetry

# How long a publish that has begun may go on after a cancel; the job has to be gone within 5 s.
PUBLISH_PATIENCE_S = 4.0
# How often time and memory are looked at. Looking costs some milliseconds.
_LOOK_EVERY_S = 0.5
_STOPPABLE: tuple[Status, ...] = ("submitted", "preparing", "running")
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_T = TypeVar("_T")

_log = logging.getLogger("launcher")


class _Masking(Protocol):
    """What this module needs of a `transforms.connection.Connection`, which takes 2 s to import."""

    def mask(self, message: str) -> str: ...


class JobProcess:
    """One attempt of one job.

    Args:
        home: where the job is kept.
        job_id: which.
        lock: held until the process ends.
        attempt_module: what makes the attempt; see `launcher.attempt`.
    """

    def __init__(self, home: Home, job_id: str, lock: JobLock, attempt_module: str = ATTEMPT) -> None:
        self._folder = home.job(job_id)
        self._home = home
        self._lock = lock
        self._attempt_module = attempt_module
        self._store: JobStore = SqlJobStore.at(home.store)
        self._job = self._store.get(job_id)
        self._may_be_visible = has_begun_to_publish(self._store.moves(job_id))

    def run(self) -> NoReturn:
        """Make the attempt and end the process. Call from the main thread."""
        signals = _listen_to_signals()
        threading.Thread(target=self._watch, args=(signals,), name="watch", daemon=True).start()
        try:
            self._attempt()
        except BaseException as error:
            self._fail_or_tell(error)
        finally:
            self._leave()

    def _attempt(self) -> None:
        own = psutil.Process()
        job = self._move(
            ["submitted"], "preparing", f"attempt {self._job.attempt}", pid=own.pid, pid_started=own.create_time()
        )
        attempt = importlib.import_module(self._attempt_module)
        self._mask_log()
        prepared = attempt.prepare(job, self._folder.path, SnapshotProgress(self._folder.preparing, job.attempt))
        job = self._move(
            ["preparing"],
            "running",
            f"{prepared.total_rows:,} rows, {prepared.already.total:,} of them staged before",
            total_rows=prepared.total_rows,
            output=prepared.output,
            rejects=prepared.rejects,
            already=prepared.already,
        )
        result = attempt.run(prepared, JobGate(self._home, job.id, job.attempt))
        if self._store.get(job.id).status == "running":
            self._move(["running"], "completing", "the result was published by an earlier attempt")
        seconds = replace(self._seconds(self._live()), **result.seconds)
        self._move(
            ["completing"], "completed", "published", outcome=result.outcome, counts=result.counts, seconds=seconds
        )
        attempt.drop_snapshot(self._folder.path)

    def _fail_or_tell(self, error: BaseException) -> None:
        try:
            self._fail(error)
        except BaseException as unrecorded:
            trace = self._masked_traceback(unrecorded)
            _log.error("%s failed, and that could not be recorded\n%s", self._job.id, trace)

    def _fail(self, error: BaseException) -> None:
        expected = isinstance(error, PipelineError | PredictorError | LauncherError)
        kind = type(error).__name__
        text = " ".join(str(error).split()) if expected else self._mask(f"{kind}: {error}" if str(error) else kind)
        if not expected:
            _log.error("%s", self._masked_traceback(error))
        try:
            self._move(ACTIVE, "failed", text, error=text, **self._so_far())
        except Conflict:
            # Stopped from the other thread, which ends the process; `error` is only what came of it.
            pass
        except LauncherError as unrecorded:
            _log.error("%s failed: %s; and that could not be recorded: %s", self._job.id, text, unrecorded)

    # --- the second thread --------------------------------------------------------------------------------------

    def _watch(self, signals: socket.socket) -> None:
        try:
            to, why = self._await_end(signals)
        except Exception as error:
            # A job that nobody watches any more could not be stopped.
            _log.error("the watch over %s broke\n%s", self._job.id, self._masked_traceback(error))
            to, why = "failed", f"{type(error).__name__}: {error}"
        self._stop(to, why)

    def _await_end(self, signals: socket.socket) -> tuple[Status, str]:
        """Wait until the job has to be stopped. Returns the state it goes to, and why."""
        config = self._job.spec.config
        deadline = time.monotonic() + config.timeout_minutes * 60
        bound = bound_memory(config.max_memory_gb, host_memory())
        own = psutil.Process()
        while True:
            ready, _, _ = select.select([signals], [], [], max(0.0, min(_LOOK_EVERY_S, deadline - time.monotonic())))
            if ready:
                number = signals.recv(1)[0]
                if number in _STOP_SIGNALS:
                    return "cancelled", f"cancelled by {signal.Signals(number).name}"
            if time.monotonic() >= deadline:
                return "failed", f"timed out after config.timeout_minutes {config.timeout_minutes:g}"
            used = resident_bytes(own)
            if used > bound.bytes:
                return "failed", (
                    f"out of memory: {used / GB:.2f} GB are in use, and {bound.reason}; "
                    "lower config.parallelism or config.batch_size, or raise config.max_memory_gb"
                )

    def _stop(self, to: Status, why: str) -> NoReturn:
        """Move the job, unless it ends by itself, and end the process."""
        patience_ends = time.monotonic() + PUBLISH_PATIENCE_S
        try:
            while not self._stopped(to, why, insist=time.monotonic() > patience_ends):
                time.sleep(0.02)
        except Exception as error:
            trace = self._masked_traceback(error)
            _log.error("%s: %s; and that could not be recorded\n%s", self._job.id, why, trace)
        finally:
            self._leave()

    def _stopped(self, to: Status, why: str, insist: bool) -> bool:
        """Try to move the job. False while it publishes and is not to be disturbed."""
        to, text = stopped_as(self._job, to, why, self._may_be_visible or insist, kept_rows(self._job, self._live()))
        expected = ACTIVE if insist else _STOPPABLE
        try:
            self._move(expected, to, text, error=text if to == "failed" else None, **self._so_far())
        except Conflict as conflict:
            return conflict.status != "completing"
        return True

    # --- both ---------------------------------------------------------------------------------------------------

    def _move(self, expected: Collection[Status], to: Status, reason: str, **changes: Any) -> Job:
        self._job = self._with_reserve(lambda: self._store.move(self._job.id, expected, to, reason, **changes))
        _log.info("%s is %s: %s", self._job.id, to, reason)
        return self._job

    def _with_reserve(self, ask: Callable[[], _T]) -> _T:
        """Ask the store, and ask it again should the job have filled the disk that its own state is on."""
        try:
            return ask()
        except StoreUnavailable:
            self._folder.give_up_reserve()
            return ask()

    def _live(self) -> Live:
        # What this process has not written yet; workers elsewhere write once a second.
        Telemetry(str(self._folder.progress), self._job.attempt).counters().flush()
        return read_live(self._folder.progress, self._job.attempt)

    def _so_far(self) -> dict[str, Any]:
        live = self._live()
        counts = counts_of(self._job, live) if self._job.has_run else None
        return {"counts": counts, "seconds": self._seconds(live)}

    def _seconds(self, live: Live) -> Seconds:
        moves = self._with_reserve(lambda: self._store.moves(self._job.id))
        return seconds_of([move for move in moves if move.attempt == self._job.attempt], datetime.now(UTC), live)

    def _mask_log(self) -> None:
        """Have no secret in the log, whoever writes there: Beam tells every cause of an error, the driver's included.

        Not before the attempt is imported: a formatter that imports what it needs would do so holding the log's lock.
        """
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_MaskingFormatter(self._connections()))

    def _connections(self) -> list[_Masking]:
        spec = self._job.spec
        uris = {part.connection for part in (spec.input, spec.output) if isinstance(part, SqlInput | TableOutput)}
        if not uris:
            return []
        from transforms.connection import Connection  # 2 s, and no attempt that got anywhere lacks it

        return [Connection(uri) for uri in sorted(uris)]

    def _mask(self, text: str) -> str:
        return masked(text, self._connections())

    def _masked_traceback(self, error: BaseException) -> str:
        return masked_lines("".join(traceback.format_exception(error)).rstrip(), self._connections())

    def _leave(self) -> NoReturn:
        """End the process and its children, without waiting for threads that score or write."""
        try:
            for child in psutil.Process().children(recursive=True):
                child.kill()
        except psutil.Error:
            pass
        with contextlib.suppress(OSError):  # the disk of the log may be full
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0 if self._job.status == "completed" else 1)


class _MaskingFormatter(logging.Formatter):
    """Lines of the log, tracebacks too, without the secrets of some connections."""

    def __init__(self, connections: Sequence[_Masking]) -> None:
        super().__init__(_LOG_FORMAT)
        self._connections = connections

    def format(self, record: logging.LogRecord) -> str:
        return masked_lines(super().format(record), self._connections)


def masked(text: str, connections: Sequence[_Masking]) -> str:
    """`text` on one line, without the secrets of `connections`."""
    text = " ".join(text.split())
    for connection in connections:
        text = connection.mask(text)
    return text


def masked_lines(text: str, connections: Sequence[_Masking]) -> str:
    """`text` without the secrets of `connections`; lines that hold none stay as they are."""

    def line(written: str) -> str:
        shown = masked(written, connections)
        return written if shown == " ".join(written.split()) else shown

    return "\n".join(map(line, text.splitlines()))


def seconds_of(moves: Sequence[Move], now: datetime, live: Live) -> Seconds:
    """Where the time of one attempt went.

    Args:
        moves: of that attempt, in order.
        now: the end of the state it is in.
        live: what its workers counted.
    """
    spent = {"preparing": 0.0, "running": 0.0, "completing": 0.0}
    for move, end in zip(moves, [*(move.at for move in moves[1:]), now], strict=True):
        if move.to in spent:
            spent[move.to] += max(0.0, (end - move.at).total_seconds())
    prepare, run, complete = spent.values()
    return Seconds(prepare, run, complete, live.read_s, live.score_s, live.write_s)


def _listen_to_signals() -> socket.socket:
    """Have SIGTERM and SIGINT arrive as bytes: seen at once, even while the main thread is deep in a library."""
    heard, heard_from = socket.socketpair()
    for end in (heard, heard_from):
        end.setblocking(False)
    signal.set_wakeup_fd(heard_from.detach(), warn_on_full_buffer=False)
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
        # Calls of libraries go on; nothing is asked of the main thread.
        signal.siginterrupt(number, False)
    return heard


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one attempt of a job that was submitted; its lock was handed down as an open file."""
    parser = argparse.ArgumentParser(prog="python -m launcher.jobprocess")
    parser.add_argument("job_id")
    parser.add_argument("--lock-fd", type=int, required=True)
    parser.add_argument("--attempt", default=ATTEMPT)
    asked = parser.parse_args(arguments)
    faulthandler.enable()
    logging.basicConfig(level=logging.WARNING, format=_LOG_FORMAT)
    _log.setLevel(logging.INFO)
    # The user's own modules, behind ours: our packages are found first, whatever lies in the working folder.
    _ = (pipelines, predictors, transforms)
    sys.path.append(os.getcwd())
    JobProcess(Home.from_environment(), asked.job_id, JobLock.adopt(asked.lock_fd), asked.attempt).run()


if __name__ == "__main__":
    main()
