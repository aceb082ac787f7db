"""The warm fork server: it imports what every job needs, once, and forks each job's process from there.

    python -P -m launcher.forks.forkserver --fd N

Importing Beam takes seconds, a fork milliseconds. The server imports and runs nothing else: no pipeline, no channel, no
pool, no Arrow computation. Threads do not survive a fork, and what they held stays locked in the child.

It talks to `forking.py` over the socket N: the modules to import come first, then one request for each fork. It
ends when the other end is closed, however that came about. Its children go on: each leads a session of its own.
What a child leaves behind when it ends, however that came about, is killed.
"""

import argparse
import contextlib
import ctypes
import errno
import faulthandler
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psutil

from launcher.forks.processes import adopt_orphans
from launcher.joblog import JobLog, heed_no_signals, keep, open_pipe

# The kernel passes no more open files in one message: SCM_MAX_FD, unix(7).
MAX_FDS = 253

# Length of the JSON that follows.
_HEADER = struct.Struct("!I")
# prctl(2); the kernel keeps 15 bytes of a name.
_PR_SET_NAME = 15
# ONNX Runtime 1.29 and later starts a thread when it is imported, which reports to its makers and keeps a database open
# for that. A child would write to a file number that is another file's by then.
_FORKABLE = {"ORT_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Task:
    """What a forked process is to do.

    Args:
        entry: "module:function", called as `function(arguments, fds)`; `fds` are its own numbers of the files passed.
        arguments: JSON values. They may hold secrets: they travel over a socket, and are in memory only.
        working_dir: absolute. Modules in it are found, behind all others.
        environment: all of `os.environ`. Modules that were imported before the fork have read the server's.
        output: the file that stdout and stderr are appended to; None is /dev/null.
        keeps_log: `output` is a job's log, which is bounded.
    """

    entry: str
    arguments: dict[str, Any]
    working_dir: str
    environment: dict[str, str]
    output: str | None
    keeps_log: bool = False


def encode(message: dict[str, Any]) -> bytes:
    """A message as it goes over the socket. Open files that go with it are to be attached to its first byte."""
    body = json.dumps(message).encode()
    return _HEADER.pack(len(body)) + body


def receive(end: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and the open files that came with it, not inheritable. None when the other end is closed.

    The kernel drops files for which this process has no room.
    """
    head, fds = b"", list[int]()
    while len(head) < _HEADER.size:
        # The first byte brings the files, and a read does not go past them.
        read, came, _, _ = socket.recv_fds(end, _HEADER.size - len(head), MAX_FDS)
        for fd in came:
            os.set_inheritable(fd, False)
        fds += came
        head += read
        if not read:
            return None
    body = bytearray(*_HEADER.unpack(head))
    rest = memoryview(body)
    while rest:
        count = end.recv_into(rest)
        if not count:
            return None
        rest = rest[count:]
    return json.loads(body), fds


class ForkServer:
    """Serves one client until that is gone. Nothing else runs in its process.

    Args:
        client: its end of the socket.
    """

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._children: set[int] = set()
        # Processes that keep the logs of children, and end after them.
        self._keepers: set[int] = set()
        self._left_open: frozenset[int] = frozenset()

    def serve(self) -> None:
        """Import, say so, and fork as asked. Returns when the client is gone, or when it makes no sense to go on."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            adopt_orphans()
            died = _listen_to_children()
            known = _open_files()
            asked = receive(self._client)
            if asked is None or not self._import(asked[0]["preload"]):
                return
            self._left_open = _open_files() - known
            self._tell_warm()
            while True:
                ready, _, _ = select.select([self._client, died], [], [])
                if died in ready:
                    self._reap(died)
                if self._client in ready and not self._answer():
                    return

    def _import(self, modules: Iterable[str]) -> bool:
        """Import all modules, or tell the client which one does not come. Returns whether all did."""
        for module in modules:
            try:
                importlib.import_module(module)
            except BaseException as error:
                _log(f"{module} cannot be imported\n{traceback.format_exc()}")
                self._tell(failed=f"{module} cannot be imported: {type(error).__name__}: {error}")
                return False
        if threading.active_count() != 1:
            names = ", ".join(thread.name for thread in threading.enumerate())
            self._tell(failed=f"importing started threads, which a fork would lose: {names}")
            return False
        return True

    def _tell_warm(self) -> None:
        # What is in use now stays so in every child: the collector need not look at it, and then it is not copied.
        gc.collect()
        gc.freeze()
        _release_free_memory()
        seconds = time.time() - psutil.Process().create_time()
        megabytes = psutil.Process().memory_info().rss / 1e6
        _log(f"warm after {seconds:.1f} s with {megabytes:.0f} MB; threads of libraries: {_native_threads()}")
        for fd in self._left_open:
            _log(f"an import left {os.readlink(f'/proc/self/fd/{fd}')} open; children have /dev/null in its place")
        self._tell(warm=os.getpid())

    def _answer(self) -> bool:
        """Read a request and do it. Returns False when the client is gone."""
        came = receive(self._client)
        if came is None:
            return False
        request, fds = came
        try:
            if len(fds) != request["fds"]:
                raise OSError(errno.EMFILE, f"{request['fds']} open files were sent and {len(fds)} came")
            pid = self._fork(Task(**request["task"]), fds)
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            self._tell(refused=request["id"], why=f"{error.strerror or error}{where}")
        else:
            self._children.add(pid)
            # Before it is reaped: until then the pid is its own.
            self._tell(forked=request["id"], pid=pid, started=psutil.Process(pid).create_time())
        finally:
            _close(fds)
        return True

    def _fork(self, task: Task, fds: list[int]) -> int:
        """Fork. Returns the child's pid, in the server; the child never returns.

        Raises:
            OSError: the output or the working folder cannot be opened, or the system has no room for a process.
        """
        assert threading.active_count() == 1
        opened: list[int] = []
        try:
            # Opened here, so that the client is told when it cannot be done.
            opened.append(os.open(task.working_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            opened.append(self._open_output(task))
            pid = os.fork()
            if not pid:
                self._be_child(task, fds, *opened)
            return pid
        finally:
            _close(opened)

    def _open_output(self, task: Task) -> int:
        if not task.keeps_log or task.output is None:
            append = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            return os.open(task.output or os.devnull, append, 0o666)
        log = JobLog(Path(task.output))
        try:
            read, write = open_pipe()
            try:
                pid = os.fork()
                if not pid:
                    self._be_keeper(log, read)
            except OSError:
                os.close(write)
                raise
            finally:
                os.close(read)
        finally:
            os.close(log.fd)
        self._keepers.add(pid)
        return write

    def _be_keeper(self, log: JobLog, source: int) -> NoReturn:
        try:
            os.setsid()
            _reset_signals()
            heed_no_signals()
            self._client.detach()
            _give_stdio(os.open(os.devnull, os.O_WRONLY))
            _close_all_but({0, 1, 2, source, log.fd}, frozenset())
            _name("penstock-log")
            keep(source, log)
        finally:
            os._exit(0)

    def _be_child(self, task: Task, fds: list[int], folder: int, output: int) -> NoReturn:
        code = 1
        try:
            os.setsid()
            # So that only those of a fork that has ended come to the server.
            adopt_orphans()
            _reset_signals()
            os.chdir(folder)
            self._client.detach()
            _give_stdio(output)
            _close_all_but({0, 1, 2, *fds}, self._left_open)
            _dress(task)
            code = _run(task, fds)
        except BaseException:
            traceback.print_exc()
        finally:
            try:
                # A full disk must not keep it alive.
                with contextlib.suppress(OSError, ValueError):
                    sys.stdout.flush()
                    sys.stderr.flush()
            finally:
                os._exit(code)

    def _reap(self, died: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while died.recv(4096):
                pass
        ended: dict[int, int] = {}
        with contextlib.suppress(ChildProcessError):
            while (child := os.waitpid(-1, os.WNOHANG))[0]:
                ended[child[0]] = os.waitstatus_to_exitcode(child[1])
        forks = {pid: code for pid, code in ended.items() if pid in self._children}
        self._children -= forks.keys()
        self._keepers -= ended.keys()
        if ended:
            self._kill_orphans()
        for pid, code in forks.items():
            self._tell(exited=pid, code=code)

    def _kill_orphans(self) -> None:
        """Kill what ended forks have left. What those leave in turn comes here with their ends."""
        for child in psutil.Process().children():
            if child.pid not in self._children | self._keepers:
                with contextlib.suppress(psutil.Error):
                    child.kill()

    def _tell(self, **message: Any) -> None:
        self._client.sendall(encode(message))


def _run(task: Task, fds: list[int]) -> int:
    """Call the entry. Returns the exit code; what it raises is written as Python would."""
    module, _, function = task.entry.partition(":")
    try:
        getattr(importlib.import_module(module), function)(task.arguments, fds)
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1
    return 0


def _dress(task: Task) -> None:
    """Make the process look as if it had been started for the task."""
    os.environ.clear()
    os.environ.update(task.environment)
    time.tzset()
    sys.argv = ["penstock", task.entry]
    # The user's own modules, behind ours: our packages are found first, whatever lies in the working folder.
    sys.path[:] = [*(folder for folder in sys.path if folder), task.working_dir]
    _name("penstock-job")
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    gc.enable()
    faulthandler.enable()


def _listen_to_children() -> socket.socket:
    """Have the end of a child arrive as a byte."""
    # The thread of the launcher that started us may have blocked the signal.
    _reset_signals()
    heard, heard_from = socket.socketpair()
    for end in (heard, heard_from):
        end.setblocking(False)
    signal.set_wakeup_fd(heard_from.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return heard


def _reset_signals() -> None:
    """Have every signal as a fresh Python has it."""
    signal.set_wakeup_fd(-1)
    kept: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGPIPE: signal.SIG_IGN,
        signal.SIGXFSZ: signal.SIG_IGN,
    }
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        wanted = kept.get(number, signal.SIG_DFL)
        if signal.getsignal(number) != wanted:
            signal.signal(number, wanted)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _give_stdio(output: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _close_all_but(kept: set[int], left_open: frozenset[int]) -> None:
    """Close what the server had open.

    Args:
        left_open: files that belong to some library, which may yet write to their numbers: these become /dev/null, lest
            they become numbers of files of the job.
    """
    for fd in _open_files() - kept:
        if fd in left_open:
            os.dup2(0, fd, inheritable=False)
        else:
            os.close(fd)


def _open_files() -> frozenset[int]:
    """Their numbers; the folder that was open to list them is not among them."""
    return frozenset(fd for fd in map(int, os.listdir("/proc/self/fd")) if _is_open(fd))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _name(name: str) -> None:
    """What `ps` and `top` show."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def _release_free_memory() -> None:
    """Give free memory back, where the C library can (glibc): a page that is not there is not shared nor copied."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _native_threads() -> str:
    """Names of the threads that libraries have started, whatever Python knows of them."""

    def names() -> Iterator[str]:
        for thread in Path("/proc/self/task").iterdir():
            if int(thread.name) != os.getpid():
                yield (thread / "comm").read_text().strip()

    return ", ".join(sorted(names())) or "none"


def _log(line: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} fork server {os.getpid()}: {line}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Serve until the client is gone."""
    parser = argparse.ArgumentParser(prog="python -P -m launcher.forks.forkserver")
    parser.add_argument("--fd", type=int, required=True)
    asked = parser.parse_args(arguments)
    faulthandler.enable()
    gc.disable()
    _name("penstock-forks")
    os.environ.update(_FORKABLE)
    os.set_inheritable(asked.fd, False)
    code = 1
    try:
        ForkServer(socket.socket(fileno=asked.fd)).serve()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # What the imports registered for the end is not for this process alone.
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
