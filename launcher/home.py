"""Where Penstock keeps its jobs on disk, and the lock that tells whether a job lives.

PENSTOCK_HOME (~/.penstock)
├── penstock.db          the job store
├── id                   which home this is: launchers of one store share one
├── launchers/<id>       a launcher of the service; locked as long as it lives
└── jobs/<id>/           one job; deleted with it
    ├── lock             held, by `flock`, as long as the job's process lives
    ├── log              what the process and its workers said: the first and the last of it
    ├── calls/           the spans that a model is called for, by process
    ├── crashes.json     what is known of rows that kill the process
    ├── reserve          room kept free, so that a job that fills the disk can still say so
    ├── preparing.json   how far the current attempt is before its first row
    ├── progress/        live counters, one file per worker
    ├── plan.json        the splits, the model's hash
    ├── snapshot/        the rows of a SQL query
    └── rejects/         rejected rows, where the spec names no other place
"""

import contextlib
import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import HomeUnusable, JobAlive
from transforms.place import NOTICES_FILE, PLAN_FILE, PROGRESS_FOLDER

# Enough for a state change in the store's write-ahead log (three pages of 4 KB, its index of 32 KB) and a traceback.
RESERVE_BYTES = 256 * 1024
# With less than this left, a job could not say what became of it, nor the store.
MIN_FREE_BYTES = 16 * 1024 * 1024
# Who looks whether a job lives holds its lock for some microseconds; who wants it tries again for this long.
LOCK_PATIENCE_S = 0.5
# In a job's folder: what was noticed of its data, for whoever records how it ended.


class JobLock:
    """The right to be a job's process; it goes when the last process that holds it dies, however it dies.

    Not inherited by programs that the process starts, unless handed over with `pass_fds`.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def adopt(cls, fd: int) -> "JobLock":
        """Take over a lock that the parent process handed down as an open file."""
        os.set_inheritable(fd, False)
        return cls(fd)

    def release(self) -> None:
        """Let go. A process that the lock was handed to keeps it."""
        os.close(self.fd)


@dataclass(frozen=True)
class JobFolder:
    """The folder of one job."""

    path: Path

    @property
    def lock_file(self) -> Path:
        """What `lock` locks."""
        return self.path / "lock"

    @property
    def log(self) -> Path:
        """What the job's process and its workers said, all attempts."""
        return self.path / "log"

    @property
    def progress(self) -> Path:
        """Folder of live counters, one file per worker."""
        return self.path / PROGRESS_FOLDER

    @property
    def preparing(self) -> Path:
        """How far the attempt is while `preparing`."""
        return self.path / "preparing.json"

    @property
    def plan(self) -> Path:
        """The plan; there once the job is planned."""
        return self.path / PLAN_FILE

    @property
    def notices(self) -> Path:
        """What was noticed of the whole job; there once it was to be published."""
        return self.path / NOTICES_FILE

    @property
    def reserve(self) -> Path:
        """Room kept free."""
        return self.path / "reserve"

    def create(self) -> None:
        """Make the folder, closed to other users, and its reserve. One that exists is kept.

        Raises:
            HomeUnusable: it cannot be written, or the disk is full.
        """
        with _usable(self.path):
            self.path.mkdir(mode=0o700, exist_ok=True)
            self.progress.mkdir(exist_ok=True)
            if not self.reserve.exists():
                self.reserve.write_bytes(bytes(RESERVE_BYTES))

    def lock(self, job_id: str, pid: int | None = None) -> JobLock:
        """Take the job's lock.

        Args:
            job_id, pid: who to name when it is taken.

        Raises:
            JobAlive: a process holds it.
            HomeUnusable: the folder cannot be written.
        """
        with _usable(self.path):
            fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return JobLock(fd)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(fd)
                    raise JobAlive(job_id, pid) from None
                time.sleep(0.005)

    def is_alive(self) -> bool:
        """Whether a process holds the job's lock. False when there is no such folder."""
        return is_locked(self.lock_file)

    def give_up_reserve(self) -> None:
        """Free the room that was kept, for a last word on a full disk."""
        self.reserve.unlink(missing_ok=True)

    def delete(self) -> None:
        """Remove the folder and all in it. None is left when there is none.

        Raises:
            HomeUnusable: something in it cannot be removed.
        """
        with _usable(self.path):
            if self.path.exists():
                shutil.rmtree(self.path)


@dataclass(frozen=True)
class Home:
    """PENSTOCK_HOME."""

    path: Path

    @classmethod
    def from_environment(cls) -> "Home":
        """The folder that PENSTOCK_HOME names, or ~/.penstock; absolute, not yet made.

        Raises:
            HomeUnusable: the variable is not set and there is no home folder.
        """
        named = os.environ.get("PENSTOCK_HOME")
        try:
            return cls((Path(named) if named else Path.home() / ".penstock").absolute())
        except RuntimeError as error:
            raise HomeUnusable("there is no home folder; set PENSTOCK_HOME to a folder for Penstock's jobs") from error

    @property
    def store(self) -> Path:
        """The file of the job store."""
        return self.path / "penstock.db"

    @property
    def jobs(self) -> Path:
        """The folder of all jobs' folders."""
        return self.path / "jobs"

    def job(self, job_id: str) -> JobFolder:
        """The folder of one job that the store knows; it need not exist."""
        return JobFolder(self.jobs / job_id)

    @property
    def launchers(self) -> Path:
        """The folder of the launchers' locks."""
        return self.path / "launchers"

    def identity(self) -> str:
        """What tells this home from all others; made when it is first asked for.

        Raises:
            HomeUnusable: the folder cannot be written.
        """
        file = self.path / "id"
        with _usable(self.path):
            if not file.exists():
                draft = self.path / f".id-{uuid.uuid4().hex}"
                draft.write_text(uuid.uuid4().hex)
                try:
                    # Of two that make one at once, one does.
                    with contextlib.suppress(FileExistsError):
                        os.link(draft, file)
                finally:
                    draft.unlink()
            return file.read_text().strip()

    def sign_on(self, launcher_id: str) -> JobLock:
        """Show that a launcher lives, until its process ends. The marks of those that died are removed.

        Raises:
            HomeUnusable: the folder cannot be written.
        """
        with _usable(self.launchers):
            self.launchers.mkdir(mode=0o700, exist_ok=True)
            for mark in self.launchers.iterdir():
                if not mark.name.startswith(".") and not self.launcher_lives(mark.name):
                    mark.unlink(missing_ok=True)
            # Locked under another name first, so that nobody finds it without its lock.
            draft = self.launchers / f".{launcher_id}"
            fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(draft, self.launchers / launcher_id)
        return JobLock(fd)

    def launcher_lives(self, launcher_id: str) -> bool:
        """Whether the process of a launcher that signed on runs."""
        return is_locked(self.launchers / launcher_id)

    def lacks(self) -> str | None:
        """Why no job should be begun here: no room, or nothing can be written; None when all is well."""
        try:
            room = os.statvfs(self.path)
            free = room.f_bavail * room.f_frsize
            if free < MIN_FREE_BYTES:
                return f"the disk of {self.path} is full: {free / 2**20:.1f} MiB are free"
            probe = self.path / f".probe-{os.getpid()}-{uuid.uuid4().hex}"
            try:
                probe.write_bytes(b"\0")
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            return f"{self.path} cannot be written: {error.strerror}"
        return None

    def create(self) -> None:
        """Make the folders, closed to other users. What exists is kept.

        Raises:
            HomeUnusable: they cannot be made or written.
        """
        with _usable(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.jobs.mkdir(mode=0o700, exist_ok=True)
        for folder in (self.path, self.jobs):
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise HomeUnusable(f"{folder} cannot be written; set PENSTOCK_HOME to a folder of your own")


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file. False when there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared: two who look do not see each other.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HomeUnusable(f"the disk of {path} is full; free some space or set PENSTOCK_HOME elsewhere") from error
        reason = error.strerror or str(error)
        raise HomeUnusable(f"{error.filename or path}: {reason}; set PENSTOCK_HOME to a folder of your own") from error
