"""A folder of files that appears all at once: staged in a hidden sibling, published by one exchange of names."""

import ctypes
import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from transforms.counts import Counts
from transforms.errors import OutputError
from transforms.ledger import fsync_folder, write_durably
from transforms.sinks.base import Manifest

MANIFEST = "_manifest.json"
_AT_FDCWD = -100
# Where the old result waits while a file system without an exchange takes the new one.
_REPLACED = "replaced"
# What file systems answer that do not know the flags of `renameat2`: NFS, 9p and some of FUSE.
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
# From linux/fs.h; the C library has the call, Python's os module does not.
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


@dataclass(frozen=True)
class PublishedFolder:
    """The folder `target`, to be replaced as a whole by what one job stages.

    Everything of the job lies in `.<name>.penstock-<job>` beside it, so on the same file system: `parts` (durable
    files, some of which the ledger names), `ledger`, and `result`, the folder that takes the target's place.

    What was published is also recorded in the job's own folder, so that it is known after another job has taken the
    target, and after the staging is gone: the record is written before the exchange and holds the inode of `result`,
    which has left the staging folder if, and only if, the exchange was made.

    Args:
        target: where readers look; a link is followed.
        job_id: owner of the staging.
        purpose: what the folder is in messages: `output.path` or `rejects.path`.
        job_folder: the job's own, for the record.
    """

    target: Path
    job_id: str
    purpose: Literal["output.path", "rejects.path"]
    job_folder: Path

    @property
    def staging(self) -> Path:
        """The hidden sibling."""
        real = Path(os.path.realpath(self.target))
        return real.parent / f".{real.name}.penstock-{self.job_id}"

    @property
    def parts(self) -> Path:
        """Where parts are staged."""
        return self.staging / "parts"

    def prepare(self, *, may_exist: Callable[[Path], bool]) -> None:
        """Check the target and make the staging folder.

        Args:
            may_exist: whether an existing, non-empty target may be replaced.

        Raises:
            OutputError: not a folder, not writable, or there already.
        """
        with self.explained():
            self._restore()
            self.check_target(may_exist)
            self.parts.mkdir(parents=True, exist_ok=True)
            # A folder may exist and still refuse: only writing tells.
            probe = self.staging / f".probe-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
            fsync_folder(self.staging.parent)

    def check_target(self, may_exist: Callable[[Path], bool]) -> None:
        """Refuse a target that this job must not replace.

        Raises:
            OutputError: it is a file, or a folder that `may_exist` does not let go.
        """
        if self.target.is_dir():
            real = Path(os.path.realpath(self.target))
            if os.path.ismount(real) or real.stat().st_dev != real.parent.stat().st_dev:
                raise OutputError(
                    f"{self.purpose} {self.target}: a mount point cannot be replaced whole; name a folder inside it"
                )
            if not os.access(real, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            if any(self.target.iterdir()) and not may_exist(self.target):
                raise OutputError(self._exists())
        elif self.target.exists():
            raise OutputError(f"{self.purpose} {self.target}: this is a file; name a folder")

    def _exists(self) -> str:
        if self.purpose == "rejects.path":
            return f"{self.purpose} {self.target}: there are other files than an earlier job's rejects; name another"
        return f"{self.purpose} {self.target}: there is a result already; use output.mode: overwrite, or another folder"

    def write_part(self, suffix: str, write: Callable[[Path], object]) -> str:
        """Let `write` make a file under a unique name and make it last. Returns the name. A failed one is removed.

        Raises:
            OutputError: the folder is full or not writable.
        """
        name = f"{self.job_id}-{uuid.uuid4().hex[:12]}{suffix}"
        path = self.parts / name
        try:
            with self.explained():
                write(path)
                fd = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
                fsync_folder(self.parts)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return name

    def remove_part(self, name: str) -> None:
        """Remove a part that no note names."""
        (self.parts / name).unlink(missing_ok=True)

    def published(self) -> Counts | None:
        """What this job published here; None when it has not."""
        try:
            record = json.loads(self._record.read_bytes())
        except FileNotFoundError:
            return None
        try:
            status = (self.staging / "result").stat()
        except FileNotFoundError:
            return Counts(**record["counts"])
        waiting = [status.st_dev, status.st_ino] == record["result"]
        return None if waiting else Counts(**record["counts"])

    @property
    def _record(self) -> Path:
        return self.job_folder / f"published-{self.purpose.partition('.')[0]}.json"

    def publish(self, files: dict[str, str], manifest: Manifest, listing: list[dict[str, Any]], replace: bool) -> None:
        """Put a folder of the named parts in the target's place.

        Args:
            files: name in the result -> name of the part.
            manifest: written beside them.
            listing: what the manifest says of each file.
            replace: whether a target with files in it may go.

        Raises:
            OutputError: the target is there and may not be replaced, or the file system refuses.
        """
        if self.published() is not None:
            return
        result = self.staging / "result"
        with self.explained(), self._publishing():
            if self.published() is not None:
                return
            self._record.unlink(missing_ok=True)
            shutil.rmtree(result, ignore_errors=True)
            result.mkdir()
            for name, part in files.items():
                os.link(self.parts / part, result / name)
            text = {
                "job_id": manifest.job_id,
                "published_at": manifest.published_at,
                "counts": asdict(manifest.counts),
                "files": listing,
                **manifest.details,
            }
            with open(result / MANIFEST, "x") as file:
                json.dump(text, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            fsync_folder(result)
            status = result.stat()
            record = {"result": [status.st_dev, status.st_ino], "counts": asdict(manifest.counts)}
            write_durably(self._record, json.dumps(record).encode())
            target = Path(os.path.realpath(self.target))
            self._take_place(result, target, replace)
            fsync_folder(target.parent)
            fsync_folder(self.staging)

    @contextmanager
    def _publishing(self) -> Iterator[None]:
        """Let one publisher of this job in at a time; the lock dies with its process."""
        fd = os.open(self.staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _take_place(self, result: Path, target: Path, replace: bool) -> None:
        """Rename `result` to `target`; what was there, if anything, ends in the staging folder."""
        if not target.exists():
            try:
                _rename(result, target, _RENAME_NOREPLACE)
                return
            except FileExistsError:
                pass
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                # A plain rename would replace an empty folder that came into being just now: no harm in that.
                os.rename(result, target)
                return
        if not replace:
            # Only an empty folder gives way to a plain rename; anything else came into being meanwhile.
            try:
                os.rename(result, target)
                return
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise OutputError(self._exists()) from error
                raise
        try:
            _rename(result, target, _RENAME_EXCHANGE)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            # This file system cannot exchange: for an instant there is no target, and readers look again.
            os.rename(target, self.staging / _REPLACED)
            os.rename(result, target)

    def _restore(self) -> None:
        """Put back what a kill between two renames took away."""
        replaced, target = self.staging / _REPLACED, Path(os.path.realpath(self.target))
        if replaced.exists() and not target.exists():
            os.rename(replaced, target)

    def remove_staging(self) -> None:
        """Remove the hidden folder and what is in it, save an old result that has no other place."""
        with self.explained():
            self._restore()
            if self.staging.exists():
                shutil.rmtree(self.staging)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the file system says into a line that names the folder and the remedy."""
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self.purpose} {self.target}: {_reason(error)}") from error


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a published folder, or None where there is none that is ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and {"job_id", "counts"} <= manifest.keys() else None


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full; free some space and resume the job, its staged rows are kept"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"not writable ({error.strerror}); change its permissions or name another folder"
        case errno.ENOTDIR:
            return "a part of the path is a file; name a folder"
        case errno.EBUSY | errno.EXDEV:
            return f"the folder cannot be replaced as a whole ({error.strerror}): a mount point; name one inside it"
    return f"{error.strerror or error}"


def _rename(source: Path, target: Path, flags: int) -> None:
    """`renameat2` of Linux; elsewhere it says that it is not supported.

    Raises:
        OSError: as the call says.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(flags)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fspath(source), None, os.fspath(target))
