"""A job's log: its first and its last 16 MiB, and between them a line that says how much is left out.

What a job's process writes goes through a pipe to a small process that does nothing else, and that outlives it: so the
last words of a crash are kept, native libraries and programs that the job starts are bounded, too, and a job that
writes without end is not held up. The file is never longer than the bound. While more comes than is worth writing down,
the last of it waits in memory, and is written once a second.

An *offset* is a place in all that was ever written, so that one who follows the log is not misled when a piece of it
goes.
"""

import contextlib
import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 16 * 1024 * 1024
TAIL_BYTES = 16 * 1024 * 1024
# What is kept of the tail when it is cut: half of it can come before it is cut again.
_KEPT_BYTES = TAIL_BYTES // 2
# Room for lines that others add once the process is gone.
_SLACK_BYTES = 64 * 1024
# As much as one read may bring.
_READ_BYTES = 256 * 1024
# A pipe that holds this much lets a process write its last words at once.
_PIPE_BYTES = 1024 * 1024
# How often a tail is cut at most; what comes meanwhile waits in memory.
_CUT_EVERY_S = 1.0
# How long one who wants to write waits for one who writes: an earlier attempt's last words.
_PATIENCE_S = 1.0
_MARK = "\n[penstock: {:>22,} bytes of this log are left out here]\n"
_MARK_BYTES = len(_MARK.format(0))
_IS_MARK = re.compile(rb"\n\[penstock: +([0-9,]+) bytes of this log are left out here\]\n")


@dataclass(frozen=True)
class Layout:
    """Where what was written lies in the file.

    Args:
        size: of the file.
        dropped: bytes that are left out behind the head; 0: none, and there is no mark.
    """

    size: int
    dropped: int

    @classmethod
    def of(cls, fd: int) -> "Layout":
        """Of an open log."""
        size = os.fstat(fd).st_size
        found = _IS_MARK.fullmatch(os.pread(fd, _MARK_BYTES, HEAD_BYTES)) if size > HEAD_BYTES else None
        return cls(size, int(found[1].replace(b",", b"")) if found else 0)

    @property
    def tail_at(self) -> int:
        """The place in the file from which on it is the tail."""
        return HEAD_BYTES + (_MARK_BYTES if self.dropped else 0)

    def place(self, offset: int) -> int:
        """The place in the file of an offset; that of the mark for what is left out."""
        if not self.dropped or offset <= HEAD_BYTES:
            return min(offset, self.size)
        is_kept = offset >= HEAD_BYTES + self.dropped
        return min(offset - self.dropped + _MARK_BYTES, self.size) if is_kept else HEAD_BYTES

    def offset(self, place: int) -> int:
        """The offset of a place in the file."""
        return place if not self.dropped or place <= HEAD_BYTES else place - _MARK_BYTES + self.dropped

    def whole(self, start: int, stop: int) -> int:
        """Where to stop reading from `start`, so that the mark is read whole or not at all."""
        in_mark = self.dropped and HEAD_BYTES < stop < self.tail_at
        return stop if not in_mark else self.tail_at if start == HEAD_BYTES else HEAD_BYTES


class JobLog:
    """The end of a log that is written. One process writes at a time.

    Args:
        path: of the log; made if it is not there.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self.fd = _opened(path)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._cut_at = float("-inf")

    def lock(self) -> None:
        """Show that it is written, until the process ends."""
        deadline = self._clock() + _PATIENCE_S
        while not _try_lock(self.fd, fcntl.LOCK_EX) and self._clock() < deadline:
            time.sleep(0.01)
        with contextlib.suppress(OSError):
            # One who wrote until now may have put another file in its place.
            if not os.path.samestat(os.fstat(self.fd), os.stat(self._path, follow_symlinks=False)):
                fd = _opened(self._path)
                os.close(self.fd)
                self.fd = fd
                _try_lock(fd, fcntl.LOCK_EX)

    def write(self, data: bytes) -> None:
        """Add to the log. What the disk has no room for is lost."""
        if not self._waiting and os.fstat(self.fd).st_size + len(data) <= HEAD_BYTES + TAIL_BYTES - _SLACK_BYTES:
            _write(self.fd, data)
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        while self._waiting_bytes - len(self._waiting[0]) >= _KEPT_BYTES:
            lost = self._waiting.popleft()
            self._waiting_bytes -= len(lost)
            self._dropped += len(lost)
        self.settle()

    def settle(self, now: bool = False) -> None:
        """Write what waits, if it is time."""
        if self._waiting and (now or self._clock() >= self._cut_at + _CUT_EVERY_S):
            self._cut_at = self._clock()
            with contextlib.suppress(OSError):
                self._cut()

    @property
    def waits(self) -> bool:
        """Whether something is not written yet."""
        return bool(self._waiting)

    def _cut(self) -> None:
        """Put a new file in the place of the log: the head, the mark, the end of the tail."""
        layout = Layout.of(self.fd)
        waiting = b"".join(self._waiting)[-_KEPT_BYTES:]
        on_disk = layout.size - layout.tail_at
        kept = 0 if self._dropped else min(on_disk, _KEPT_BYTES - len(waiting))
        dropped = layout.dropped + self._dropped + on_disk - kept + self._waiting_bytes - len(waiting)
        draft = self._path.with_name(f".{self._path.name}")
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        fd = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _try_lock(fd, fcntl.LOCK_EX)
            _write_all(fd, os.pread(self.fd, HEAD_BYTES, 0))
            _write_all(fd, _MARK.format(dropped).encode())
            _write_all(fd, os.pread(self.fd, kept, layout.size - kept))
            _write_all(fd, waiting)
            os.rename(draft, self._path)
        except OSError:
            os.close(fd)
            draft.unlink(missing_ok=True)
            raise
        os.close(self.fd)
        self.fd = fd
        self._waiting.clear()
        self._waiting_bytes = self._dropped = 0


def keep(source: int, log: JobLog) -> None:
    """Write what comes from a pipe into a log, until its other end is closed."""
    log.lock()
    while True:
        ready, _, _ = select.select([source], [], [], _CUT_EVERY_S if log.waits else None)
        data = os.read(source, _READ_BYTES) if ready else None
        if data == b"":
            break
        if data:
            log.write(data)
        else:
            log.settle()
    log.settle(now=True)


def open_pipe() -> tuple[int, int]:
    """A pipe to a log: the end to be read, and the one to be written. Not inheritable."""
    ends = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ends


def heed_no_signals() -> None:
    """What ends the job is not meant for its log."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def start_keeper(path: Path) -> tuple["subprocess.Popen[bytes]", int]:
    """Start a process that keeps a log. Returns it, and the end of its pipe that is written, for the caller to close.

    Raises:
        OSError: the log cannot be opened, or the process not started.
    """
    # Said here when it cannot be.
    os.close(JobLog(path).fd)
    read, write = open_pipe()
    try:
        keeper = subprocess.Popen(
            [sys.executable, "-P", "-m", "launcher.joblog", str(path)],
            stdin=read,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        os.close(write)
        raise
    finally:
        os.close(read)
    return keeper, write


def add_line(path: Path, line: str) -> None:
    """Add a line to the log of a job whose process is gone.

    Raises:
        OSError: it cannot be written.
    """
    log = JobLog(path)
    try:
        log.lock()
        log.write(line.encode(errors="replace") + b"\n")
        log.settle(now=True)
    finally:
        os.close(log.fd)


def is_written(path: Path) -> bool:
    """Whether a process writes a log."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not _try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _write(fd: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        _write_all(fd, data)


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def main() -> None:
    """Keep a log: what comes from standard input."""
    heed_no_signals()
    keep(0, JobLog(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
