"""Folders out of which nothing of a job is opened, judged by what was opened and not by its name.

A name that was looked at may lead elsewhere once it is opened: whoever can write in a folder puts a link there in
between. So it is opened first, the system is asked where that file or folder lies, and then it is used by its
descriptor, `/proc/self/fd/N`, which leads to nothing else (Linux).

Not promised: hard links are files like any others.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Folders that this process keeps open, by what tells one from another, and who may add one.
_held: dict[tuple[int, int], int] = {}
_holding = threading.Lock()


class LedElsewhere(OSError):
    """What was opened lies where nothing may be opened. The line names nothing of what is there."""


@dataclass(frozen=True)
class Bounds:
    """The folders that a job's files have to lie in.

    Args:
        folders: absolute; they need not exist.
        closed: folders that stay closed even where they lie in the others.
    """

    folders: tuple[str, ...]
    closed: tuple[str, ...] = ()

    def holds(self, real: str) -> bool:
        """Whether a path without links lies in the folders."""
        if any(lies_in(real, os.path.realpath(folder)) for folder in self.closed):
            return False
        return any(lies_in(real, os.path.realpath(folder)) for folder in self.folders)

    @contextmanager
    def opened(self, file: str | Path, *, follow: bool = True) -> Iterator[int]:
        """A file to read, open for the block; see `at`.

        Args:
            follow: whether `file` itself may be a link.

        Raises:
            LedElsewhere: it lies out of bounds, or is no plain file, or a link that is not to be followed.
            OSError: as the system says.
        """
        # A pipe without a writer would be waited for.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            fd = os.open(file, flags if follow else flags | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _led_elsewhere() from error
            raise
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _led_elsewhere()
            self.check(fd)
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def opened_folder(self, folder: str | Path) -> Iterator[Path]:
        """A folder by a path that leads nowhere else, for the block. Its own name may not be a link.

        Raises:
            LedElsewhere: it lies out of bounds, or is a link.
            OSError: as the system says.
        """
        fd = self._open_folder(folder)
        try:
            yield Path(at(fd))
        finally:
            os.close(fd)

    def held(self, folder: Path) -> Path:
        """A folder by a path that leads nowhere else as long as this process lives. Its own name may not be a link.

        It is looked at again each time that it is asked for. One descriptor stays open for each folder that ever was
        found: for processes of one job, and folders of which there are few.

        Raises:
            LedElsewhere: it lies out of bounds, or is a link.
            OSError: as the system says.
        """
        fd = self._open_folder(folder)
        status = os.fstat(fd)
        with _holding:
            kept = _held.setdefault((status.st_dev, status.st_ino), fd)
        if kept != fd:
            os.close(fd)
        return Path(at(kept))

    def made(self, folder: Path) -> Path:
        """A folder as `held` gives it, made if it is not there, and what is missing above it.

        Raises:
            LedElsewhere: it lies out of bounds, or is a link.
            OSError: as the system says.
        """
        try:
            return self.held(folder)
        except FileNotFoundError:
            if str(folder) in map(os.path.realpath, self.folders):
                folder.mkdir(parents=True, exist_ok=True)
                return self.held(folder)
            made = self.made(folder.parent) / folder.name
            made.mkdir(exist_ok=True)
            return self.held(made)

    def check(self, fd: int) -> None:
        """Look where an open file or folder lies.

        Raises:
            LedElsewhere: it lies out of bounds.
        """
        if not self.holds(os.readlink(at(fd))):
            raise _led_elsewhere()

    def _open_folder(self, folder: str | Path) -> int:
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except NotADirectoryError:
            # What Linux says of a link, too.
            if os.path.islink(folder):
                raise _led_elsewhere() from None
            raise
        try:
            self.check(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd


def at(fd: int) -> str:
    """A path of an open file or folder that leads to nothing else while it is open."""
    return f"/proc/self/fd/{fd}"


def lies_in(path: str, folder: str, *, below: bool = False) -> bool:
    """Whether `path` lies in `folder`, by how both are written.

    Args:
        below: whether it has to be another one.
    """
    return (path == folder and not below) or path.startswith(folder.rstrip(os.sep) + os.sep)


def _led_elsewhere() -> LedElsewhere:
    return LedElsewhere(errno.ELOOP, "it leads out of the folders that a request may name, or to no plain file")
