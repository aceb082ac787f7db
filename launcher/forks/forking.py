"""Processes of jobs, forked from a warm server: the launcher's side. It never imports Beam; the server does.

The server is a child of the launcher, and a crutch: when it dies a new one takes its place, when the launcher dies it
ends, and the processes that it forked go on in either case.
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from launcher.errors import ForkFailed
from launcher.forks.forkserver import MAX_FDS, Task, encode, receive

__all__ = ["LOOKS_PRELOAD", "PRELOAD", "Child", "ForkServer", "Forks", "Task"]

# All that an attempt imports. What is missing here each job imports anew; tests/integration/test_forked_jobs.py tells.
PRELOAD = (
    # Before anything else that imports Beam.
    "pipelines.lean_beam",
    "launcher.worker.attempt",
    "launcher.worker.jobprocess",
    # Imported where they are first used: to make a pipeline, to infer its types. They take 150 ms.
    "apache_beam.runners.portability.fn_api_runner",
    "apache_beam.typehints.intrinsic_one_ops",
    "apache_beam.typehints.opcodes",
    "predictors.onnx",
    "predictors.python",
    # Drivers and dialects of what a job reads and writes.
    "transforms.sinks.table",
    "transforms.sources.sql",
    "adbc_driver_postgresql.dbapi",
    "adbc_driver_sqlite.dbapi",
    "sqlglot.dialects.postgres",
    "sqlglot.dialects.sqlite",
    # What the launcher asks a database for, aside.
    "launcher.forks.aside",
    "launcher.rows.tablepages",
    # The job store's.
    "psycopg",
    "sqlite3",
)

# What looks at tenants' files, queries and models while somebody waits: no Beam, so that it is warm within a second.
LOOKS_PRELOAD = (
    "launcher.forks.aside",
    "launcher.estimate.counting",
    "launcher.estimate.probing",
    "launcher.rows.folderpages",
    "predictors.onnx",
    "predictors.python",
    "transforms.sources.counting",
    "adbc_driver_postgresql.dbapi",
    "adbc_driver_sqlite.dbapi",
    "sqlglot.dialects.postgres",
    "sqlglot.dialects.sqlite",
)

# Between a server that ended and the next: doubled each time, unless the last one lived for longer than the longest.
_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 30.0

_log = logging.getLogger("launcher")


@dataclass(frozen=True)
class Child:
    """A forked process, known by its pid and the second it started in.

    Args:
        pid: also of its session and its process group.
        started: as `psutil.Process.create_time` has it.
    """

    pid: int
    started: float


class Forks(Protocol):
    """What is needed of a `ForkServer`."""

    @property
    def is_warm(self) -> bool:
        """Whether it has imported all, so that a process is a matter of milliseconds."""
        ...

    def wait_until_warm(self, timeout_s: float) -> bool:
        """Wait until it has; returns whether it has."""
        ...

    def fork(self, task: Task, fds: tuple[int, ...] = (), timeout_s: float = 60.0) -> Child:
        """Start a process."""
        ...


class ForkServer:
    """A warm server, and how to have it fork.

    Threads may call it at the same time; the server does one fork after the other.

    Args:
        preload: the modules that it imports. A fork finds them imported.
        environment: all of the server's environment. Anybody who may look at the process can read it, and every
            fork's as it first was: no secrets.
        log: the file that the server's own output is appended to.
        on_exit: told (pid, returncode) of each fork that ends while its server lives, the return code as
            `subprocess` has it. Called from a thread of its own, one call after the other; it may come before `fork`
            has returned.
        on_lost: told when a server that was warm has died. The forks that it had made go on, and nobody will tell
            of their ends: look for them by pid and start time. Called from the same thread.
    """

    def __init__(
        self,
        *,
        preload: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        on_exit: Callable[[int, int], object],
        on_lost: Callable[[], object],
    ) -> None:
        self._preload = list(preload)
        self._environment = dict(environment)
        self._log_file = log
        self._on_exit = on_exit
        self._on_lost = on_lost
        # Guards all below; told when any of it changes.
        self._changed = threading.Condition()
        self._running: _Running | None = None
        self._warm: _Running | None = None
        self._failure: str | None = "nobody has started it"
        self._closed = False
        self._events: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._keep, "forks"), (self._tell, "forks-told"))
        ]

    def start(self) -> None:
        """Start the server. Returns at once; it takes seconds to warm up."""
        self._failure = None
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int | None:
        """The process of the server that is warm; None while there is none."""
        with self._changed:
            return None if self._warm is None else self._warm.pid

    @property
    def is_warm(self) -> bool:
        """Whether there is a server that can fork at once."""
        return self.pid is not None

    def wait_until_warm(self, timeout_s: float) -> bool:
        """Wait for a server that can fork. Returns whether there is one.

        Returns False at once when the server cannot start, which `fork` then says more of.
        """
        with self._changed:
            self._changed.wait_for(self._is_decided, timeout_s)
            return self._warm is not None

    def fork(self, task: Task, fds: Sequence[int] = (), timeout_s: float = 60.0) -> Child:
        """Have a process forked that does `task`. Waits for a server that is cold.

        Args:
            fds: open files that the process gets, not inheritable. The caller's own stay open.
            timeout_s: for all of it. A process that is forked too late is killed.

        Raises:
            ForkFailed: nothing runs, or, where the server died over it, something might: it cannot be known.
        """
        if len(fds) > MAX_FDS:
            raise ForkFailed(f"{len(fds)} open files are too many to pass to a fork; pass at most {MAX_FDS}")
        deadline = time.monotonic() + timeout_s
        while True:
            server = self._await_warm(deadline)
            try:
                return server.fork(task, fds, deadline)
            except _ServerGone:
                # It was not asked, so the next one may be.
                self._await_end(server, deadline)

    def close(self) -> None:
        """End the server. The processes that it forked go on, and nothing is told of them any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._running is not None:
                self._running.kill()
        for thread in self._threads:
            thread.join()

    def _is_decided(self) -> bool:
        return self._warm is not None or self._failure is not None or self._closed

    def _await_warm(self, deadline: float) -> "_Running":
        with self._changed:
            self._changed.wait_for(self._is_decided, max(0.0, deadline - time.monotonic()))
            if self._closed:
                raise ForkFailed("the fork server is closed")
            if self._warm is not None:
                return self._warm
            why = f"does not start: {self._failure}" if self._failure else "is not warm yet"
            raise ForkFailed(f"the fork server {why}; see {self._log_file}")

    def _await_end(self, server: "_Running", deadline: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._warm is not server, max(0.0, deadline - time.monotonic()))

    def _keep(self) -> None:
        """Have a server run, until closed."""
        pause_s = _PAUSE_S
        while not self._closed:
            began_at = time.monotonic()
            try:
                running = _Running(self._environment, self._log_file)
            except OSError as error:
                self._set_failure(f"{error.strerror}: {error.filename}")
            else:
                self._follow(running)
            if time.monotonic() - began_at > _LONGEST_PAUSE_S:
                pause_s = _PAUSE_S
            with self._changed:
                self._changed.wait_for(lambda: self._closed, pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._events.put(None)

    def _follow(self, running: "_Running") -> None:
        """Do as a server says, until it is no more."""
        with self._changed:
            self._running = running
            if self._closed:
                running.kill()
        running.say(preload=self._preload)
        was_warm = failed = False
        for message in running.messages():
            match message:
                case {"warm": _}:
                    was_warm = True
                    with self._changed:
                        self._warm, self._failure = running, None
                        self._changed.notify_all()
                case {"failed": why}:
                    failed = True
                    self._set_failure(why)
                case {"exited": pid, "code": code}:
                    self._events.put(functools.partial(self._on_exit, pid, code))
        with self._changed:
            self._warm = self._running = None
        end = running.end()
        if self._closed:
            return
        _log.warning("the fork server is gone (%s) and will be replaced; see %s", end, self._log_file)
        if was_warm:
            self._events.put(self._on_lost)
        elif not failed and not running.was_killed:
            self._set_failure(end)

    def _set_failure(self, why: str) -> None:
        with self._changed:
            self._failure = why
            self._changed.notify_all()

    def _tell(self) -> None:
        """Call the caller back, apart from the thread that reads: it may take its time."""
        while (event := self._events.get()) is not None:
            if self._closed:
                continue
            try:
                event()
            except Exception:
                # There is nobody else to tell, and the next event is another's.
                _log.exception("a listener to forks failed")


class _ServerGone(Exception):
    """A server died before it was asked."""


class _Running:
    """One process of the server, and what was asked of it and not yet answered."""

    def __init__(self, environment: Mapping[str, str], log_file: Path) -> None:
        self._end, theirs = socket.socketpair()
        try:
            with theirs, open(log_file, "ab") as log:
                self._process = subprocess.Popen(
                    # -P: a folder `launcher` where the launcher was started must not take the place of ours.
                    [sys.executable, "-P", "-m", "launcher.forks.forkserver", "--fd", str(theirs.fileno())],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs.fileno()],
                    # Ctrl-C in the launcher's terminal is not meant for it.
                    start_new_session=True,
                )
        except OSError:
            self._end.close()
            raise
        self._ids = itertools.count()
        self._sending = threading.Lock()
        # Guards the two below.
        self._lock = threading.Lock()
        self._asked: dict[int, Future[Child]] = {}
        self._gone = False

    def say(self, **message: Any) -> None:
        """Send what needs no answer. Nothing happens when the server is gone."""
        with contextlib.suppress(OSError):
            self._end.sendall(encode(message))

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the server says, but for the answers to forks, until it is no more."""
        while True:
            try:
                came = receive(self._end)
            except ConnectionResetError:
                return
            if came is None:
                return
            message, _ = came
            match message:
                case {"forked": asked, "pid": pid, "started": started}:
                    self._answer(asked, Child(pid, started))
                case {"refused": asked, "why": why}:
                    self._answer(asked, ForkFailed(f"the process cannot be forked: {why}"))
                case _:
                    yield message

    def fork(self, task: Task, fds: Sequence[int], deadline: float) -> Child:
        """As `ForkServer.fork`.

        Raises:
            _ServerGone: it died before it was asked.
        """
        answer: Future[Child] = Future()
        with self._lock:
            if self._gone:
                raise _ServerGone
            asked = next(self._ids)
            self._asked[asked] = answer
        message = encode({"id": asked, "fds": len(fds), "task": dataclasses.asdict(task)})
        try:
            self._send(message, fds, deadline)
            return answer.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            with self._lock:
                late = self._asked.pop(asked, None) is not None
            if late:
                raise ForkFailed("the fork server did not answer in time") from None
            return answer.result()
        except OSError as error:
            with self._lock:
                self._asked.pop(asked, None)
            if isinstance(error, BrokenPipeError | ConnectionResetError):
                raise _ServerGone from error
            raise ForkFailed(f"the fork server could not be asked: {error.strerror}") from error

    def kill(self) -> None:
        """End the server, not what it forked."""
        self._process.kill()

    def end(self) -> str:
        """Tidy up after a server that is no more, or does not speak any more. Returns how it ended."""
        self._process.kill()
        self._process.wait()
        end = (
            f"killed by {signal.Signals(-self._process.returncode).name}"
            if self.was_killed
            else f"exit code {self._process.returncode}"
        )
        with self._lock:
            self._gone = True
            unanswered, self._asked = self._asked, {}
        for answer in unanswered.values():
            answer.set_exception(
                ForkFailed(f"the fork server died over it ({end}); whether the process runs is not known")
            )
        with self._sending:
            self._end.close()
        return end

    @property
    def pid(self) -> int:
        """Of the server's process."""
        return self._process.pid

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it."""
        return self._process.returncode < 0

    def _send(self, message: bytes, fds: Sequence[int], deadline: float) -> None:
        """Send, whole; a server that does not read until the deadline is killed, as half a message cannot be mended.

        Raises:
            TimeoutError, OSError: it was not sent.
        """
        if not self._sending.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        try:
            if self._end.fileno() < 0:
                raise BrokenPipeError
            # Not `select`: a launcher with many connections has numbers above its 1024.
            writable = select.poll()
            writable.register(self._end, select.POLLOUT)
            rest = memoryview(message)
            while rest:
                if not writable.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    self._process.kill()
                    raise TimeoutError
                with contextlib.suppress(BlockingIOError):
                    if fds:
                        sent, fds = socket.send_fds(self._end, [rest], fds, socket.MSG_DONTWAIT), ()
                    else:
                        sent = self._end.send(rest, socket.MSG_DONTWAIT)
                    rest = rest[sent:]
        finally:
            self._sending.release()

    def _answer(self, asked: int, answer: Child | ForkFailed) -> None:
        with self._lock:
            waiting = self._asked.pop(asked, None)
        if waiting is None:
            if isinstance(answer, Child):
                _kill(answer)
        elif isinstance(answer, Child):
            waiting.set_result(answer)
        else:
            waiting.set_exception(answer)


def _kill(child: Child) -> None:
    """End a process that nobody waits for any more."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(child.pid)
        if process.create_time() == child.started:
            process.kill()
