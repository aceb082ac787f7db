"""A folder of files that appears all at once: staged in a hidden sibling, published by one exchange of names.

Rows are added in the same way: the folder that takes the other's place has the files of that, too, as further names of
the same files (hard links), so that nothing is copied and readers see the old result or the new one.
"""

import ctypes
import errno
import fcntl
import glob
import json
import logging
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from predictors.bounds import Bounds, LedElsewhere, at
from transforms.counts import Counts
from transforms.errors import OutputError
from transforms.ledger import fsync_folder, write_durably
from transforms.sinks.base import Manifest
from transforms.sinks.manifest import (
    MANIFEST,
    entries_for,
    publishers,
    read_beside,
    read_manifest,
    text_beside,
)
from transforms.sinks.mode import other_result
from transforms.sinks.replacing import files_to_replace, remove_files

# What the manifest is to say of a file, given its name in the result and the name of the part.
Entry = Callable[[str, str], dict[str, Any]]

_log = logging.getLogger(__name__)

_PART = re.compile(r"part-(\d+)-")
_AT_FDCWD = -100
# Where the old result waits while a file system without an exchange takes the new one.
_REPLACED = "replaced"
# How long a replaced folder stays whole that shares files with the new one. Who opened it before the exchange and lists
# it only while it is emptied would find some of its files, all of them also in the new folder, and miss the others.
_STAYS_WHOLE_S = 0.5
# What file systems answer that do not know the flags of `renameat2`: NFS, 9p and some of FUSE.
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
# From linux/fs.h; the C library has the call, Python's os module does not.
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
# Stands for a folder that is not there: nor will it ever be, so nothing follows a link that comes in its place.
_NOWHERE = Path("/proc/self/fd/-1")


@dataclass(frozen=True)
class PublishedFolder:
    """The folder `target`, to be replaced as a whole by what one job stages, or by that and what is there.

    Everything of the job lies in `.<name>.penstock-<job>` beside it, so on the same file system: `parts` (durable
    files, some of which the ledger names), `ledger`, and `result`, the folder that takes the target's place.

    What was published is also recorded in the job's own folder, so that it is known after another job has taken the
    target, and after the staging is gone: the record is written before the exchange and holds the inode of `result`,
    which has left the staging folder if, and only if, the exchange was made.

    Jobs publish into one target in turn: who has locked `.<name>.penstock.lock` beside it. The file is there only while
    one does, or was killed doing so.

    Within bounds no link is followed: the folder above the target and those that are staged in are opened, looked at,
    and used by their descriptors, so that no name that is exchanged leads a write, a link or a rename elsewhere. Who
    may write in the folder above can still spoil the result itself.

    Args:
        target: where readers look; a link is followed, unless there are bounds.
        job_id: owner of the staging.
        purpose: what the folder is in messages: `output.path` or `rejects.path`.
        job_folder: the job's own, for the record.
        within: where the target has to lie, with no link on the way; None: anywhere.
    """

    target: Path
    job_id: str
    purpose: Literal["output.path", "rejects.path"]
    job_folder: Path
    within: Bounds | None = None

    @property
    def _real(self) -> Path:
        if self.within is None:
            return Path(os.path.realpath(self.target))
        return self._held(self.target.parent) / self.target.name

    @property
    def _staging(self) -> Path:
        """The hidden sibling by its name, which it need not have yet."""
        real = self._real
        return real.parent / f".{real.name}.penstock-{self.job_id}"

    @property
    def staging(self) -> Path:
        """The hidden sibling."""
        return self._held(self._staging)

    @property
    def parts(self) -> Path:
        """Where parts are staged."""
        return self._held(self.staging / "parts")

    @property
    def ledger(self) -> Path:
        """Where notes are kept beside the parts."""
        return self._held(self.staging / "ledger")

    @property
    def _content(self) -> Path:
        """The target, to look into."""
        return self._held(self._real)

    def _held(self, folder: Path) -> Path:
        """`folder`; within bounds by a path that leads nowhere else.

        Raises:
            OutputError: it is a link, or lies out of bounds.
        """
        if self.within is None:
            return folder
        try:
            return self.within.held(folder)
        except (FileNotFoundError, NotADirectoryError):
            return _NOWHERE
        except LedElsewhere as error:
            raise OutputError(f"{self.purpose} {self.target}: {error.strerror}; name another folder") from error

    def check(self, may_exist: Callable[[Path], bool]) -> None:
        """Judge the target and what is above it without writing anything.

        Args:
            may_exist: whether an existing, non-empty target may be replaced.

        Raises:
            OutputError: not a folder, not writable, there already, or with other files in it than those of a result.
        """
        with self.explained():
            self._check_target(may_exist, replaced_whole=True)
            self._check_writable()

    def check_appendable(self, appends_to: str | None, check: Callable[[Sequence[Path]], None]) -> None:
        """Refuse a target that no files can be added to, without writing anything.

        Args:
            appends_to: the job whose result it must hold; None for whatever is there.
            check: given the files that are there; raises OutputError when others must not join them.

        Raises:
            OutputError: it is no folder of plain files, not that job's result, or `check` does not let it pass.
        """
        with self.explained():
            if not self._real.exists() and self._waiting() is not None:
                # Only who has the turn puts it back, and looks then.
                return
            self._check_target(lambda _: True, replaced_whole=False)
            self._check_holder(appends_to)
            self._check_writable()
            self._beside()
            check(self._kept())

    def prepare(self, check: Callable[[], None], *, in_turn: bool) -> None:
        """Check the target and make the staging folder.

        Args:
            check: as one of the above; raises OutputError when the target must stay as it is.
            in_turn: whether no other job may publish there while it is checked.

        Raises:
            OutputError: `check` does, or the folder is not writable.
        """
        with self.explained():
            self._restore()
            if in_turn and self._real.parent.is_dir():
                with self._turn():
                    self._restore_any()
                    check()
            else:
                check()
            self._make_staging()
            # A folder may exist and still refuse: only writing tells.
            probe = self.staging / f".probe-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
            fsync_folder(self._real.parent)

    def _make_staging(self) -> None:
        if self.within is not None:
            self.within.made(self.target.parent)
        self._staging.mkdir(parents=self.within is None, exist_ok=True)
        for part in ("parts", "ledger"):
            (self.staging / part).mkdir(exist_ok=True)

    def _check_writable(self) -> None:
        """Demand that the folder above the target, or the lowest above it that is there, can be written in."""
        folder = self.target.parent if self.within else self._real.parent
        tops = [] if self.within is None else list(map(os.path.realpath, self.within.folders))
        while not (found := self._held(folder)).is_dir():
            if self.within is None and os.path.lexists(folder):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if str(folder) in tops or folder == folder.parent:
                # Made with all that is missing above it.
                return
            folder = folder.parent
        _check_access(found, os.W_OK | os.X_OK)

    def _check_replaceable(self) -> list[str]:
        """The files that go when the target is replaced, by their paths in it.

        Raises:
            OutputError: there is something else; names it.
        """
        if not self._content.is_dir():
            return []
        files, foreign = files_to_replace(self._content)
        if foreign is not None:
            raise OutputError(
                f"{self.purpose} {self.target} holds {foreign}, which is no file of a result, and overwriting replaces "
                f"the folder whole; name another folder, or move the file away"
            )
        return files

    def _check_target(self, may_exist: Callable[[Path], bool], replaced_whole: bool) -> None:
        real, content = self._real, self._content
        if content.is_dir():
            if os.path.ismount(real) or real.stat().st_dev != real.parent.stat().st_dev:
                raise OutputError(
                    f"{self.purpose} {self.target}: a mount point cannot be replaced whole; name a folder inside it"
                )
            _check_access(real, os.W_OK)
            if any(content.iterdir()):
                if not may_exist(content):
                    raise OutputError(self._exists())
                if replaced_whole:
                    self._check_replaceable()
        elif real.exists():
            raise OutputError(f"{self.purpose} {self.target}: this is a file; name a folder")

    def check_linkable(self) -> None:
        """Refuse a target whose files cannot be given a second name: other users', or on a disk that has no links.

        To be called between `prepare` and `publish`.

        Raises:
            OutputError: names the first such file.
        """
        with self.explained(), self._turn():
            probe = self.staging / f".probe-{uuid.uuid4().hex}"
            for path in (*self._kept(), *self._beside()):
                try:
                    os.link(path, probe)
                except OSError as error:
                    raise OutputError(
                        f"{self.purpose} {self.target}: {path.name} cannot be linked into a new folder "
                        f"({error.strerror}), as appending does; run the job as its owner, or name another folder"
                    ) from error
                probe.unlink()

    def _check_holder(self, appends_to: str | None) -> None:
        if appends_to is None:
            return
        if not self._real.exists():
            raise OutputError(f"{self.purpose} {self.target}: the result of {appends_to} is gone; nothing was added")
        manifest = read_manifest(self._content)
        found = None if manifest is None else manifest["job_id"]
        if found != appends_to:
            raise OutputError(f"{self.purpose} {self.target}: {other_result(appends_to, found)}")

    def _kept(self) -> list[Path]:
        """The files of the target, by name, that a result that is added to keeps; none when there is no target.

        Raises:
            OutputError: there is something else than a file, or a file that lies on another disk.
        """
        content = self._content
        if not content.is_dir():
            return []
        return self._plain_files(path for path in content.iterdir() if not path.name.startswith((".", "_")))

    def _beside(self) -> list[Path]:
        """The files of the target that readers pass over, such as `_SUCCESS`; they stay where they are."""
        content = self._content
        if not content.is_dir():
            return []
        hidden = (path for path in content.iterdir() if path.name.startswith((".", "_")) and path.name != MANIFEST)
        return self._plain_files(hidden)

    def _plain_files(self, found: Iterable[Path]) -> list[Path]:
        paths = sorted(found)
        device = self._content.stat().st_dev
        for path in paths:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_dev != device:
                what = "a folder" if stat.S_ISDIR(status.st_mode) else "no plain file on the same disk"
                raise OutputError(
                    f"{self.purpose} {self.target}: {path.name} in it is {what}, and rows are added to plain files "
                    f"only; name another folder, or move it away"
                )
        return paths

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

    def read_schema(self, file: Path) -> pa.Schema:
        """The columns of a Parquet file in the target or in the staging folder.

        Raises:
            ArrowInvalid: it is no such file.
            OutputError: within bounds, it is no plain file.
        """
        if self.within is None:
            return pq.read_schema(file)
        with self.explained(), self.within.opened(file, follow=False) as fd:
            return pq.read_schema(at(fd))

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
        with self.explained(), self._turn():
            if self.published() is None:
                paths = {name: self.parts / part for name, part in files.items()}
                replaced = self._check_replaceable() if replace else []
                self._show(paths, manifest, {"files": listing}, replace, replaced)

    def append(
        self,
        parts: Callable[[bool], Sequence[str]],
        manifest: Manifest,
        entry: Entry,
        appends_to: str | None,
        check: Callable[[Sequence[Path]], None],
    ) -> None:
        """Put a folder of the target's files and the named parts in the target's place.

        Files keep their names, and those of the parts come after them. The manifest is that of this job, save that it
        lists the files of earlier ones, too, and names those in `appended_to`, oldest first.

        Args:
            parts: gives their names, in the order of the input, when told whether the target has no files yet.
            entry: what the manifest says of the file of a part.
            appends_to, check: as `check_appendable` takes them.

        Raises:
            OutputError: as `check_appendable`, or the file system refuses.
        """
        if self.published() is not None:
            return
        with self.explained(), self._turn():
            if self.published() is not None:
                return
            self._restore_any()
            self._check_holder(appends_to)
            is_there, kept = self._real.exists(), self._kept()
            check(kept)
            numbers = [int(match[1]) for path in kept if (match := _PART.match(path.name))]
            names = {
                f"part-{n:05d}-{part}": part for n, part in enumerate(parts(not kept), max(numbers, default=-1) + 1)
            }
            listing = [*self._listing(kept), *(entry(name, part) for name, part in names.items())]
            earlier = read_manifest(self._content)
            told = {"files": listing, "appended_to": [] if earlier is None else publishers(earlier)}
            kept += self._beside()
            replaced = [*(path.name for path in kept), MANIFEST]
            paths = {path.name: path for path in kept} | {name: self.parts / part for name, part in names.items()}
            self._show(paths, manifest, told, replace=is_there, replaced=replaced)

    def _listing(self, files: Sequence[Path]) -> list[dict[str, Any]]:
        """What the target's manifest says of `files`, in its order; those that it does not know come first."""
        manifest = read_manifest(self._content) or {}
        names = {path.name for path in files}
        listed = [entry for entry in manifest.get("files", []) if entry["name"] in names]
        unlisted = names - {entry["name"] for entry in listed}
        return [*({"name": name} for name in sorted(unlisted)), *listed]

    def _show(
        self, paths: dict[str, Path], manifest: Manifest, told: dict[str, Any], replace: bool, replaced: list[str]
    ) -> None:
        """Make a folder with a link to each of `paths`, by name, and put it in the target's place.

        Args:
            told: what the manifest says of them.
            replaced: the files that the target has now; others that come meanwhile must not go with it.
        """
        result = self.staging / "result"
        self._record.unlink(missing_ok=True)
        shutil.rmtree(result, ignore_errors=True)
        result.mkdir()
        inside = self._held(result)
        for name, path in paths.items():
            # Should a link have come in the place of a file, it is the link that gets the name.
            os.link(path, inside / name)
        text = {
            "job_id": manifest.job_id,
            "published_at": manifest.published_at,
            "counts": asdict(manifest.counts),
            **told,
            **manifest.details,
        }
        fsync_folder(inside)
        status = inside.stat()
        record = {
            "result": [status.st_dev, status.st_ino],
            "counts": asdict(manifest.counts),
            "replaced": replaced,
        }
        write_durably(self._record, json.dumps(record).encode())
        # Until the exchange the old folder is there, and known by its own.
        known = entries_for(self._content, self._manifests)
        self._write_manifests([*known, {"folder": status.st_ino, "manifest": text}])
        target = self._real
        self._take_place(result, target, replace)
        fsync_folder(target.parent)
        fsync_folder(self.staging)

    @property
    def _manifests(self) -> Path:
        return self._real.parent / f".{self._real.name}.penstock.json"

    @property
    def _draft(self) -> Path:
        return self._manifests.with_name(f"{self._manifests.name}.draft")

    def _write_manifests(self, entries: Sequence[dict[str, Any]]) -> None:
        """Have the file of manifests say this; in turn only, so that a kill leaves one draft at most."""
        self._draft.unlink(missing_ok=True)
        with open(self._draft, "xb") as file:
            file.write(text_beside(entries))
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._draft, self._manifests)
        fsync_folder(self._manifests.parent)

    @property
    def _lock(self) -> Path:
        return self._real.parent / f".{self._real.name}.penstock.lock"

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one publisher into the target at a time; the lock dies with its process."""
        while True:
            # Not through a link: it could lead to a lock of someone else.
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                # Who had it before has removed the file: then the next ones lock another of that name.
                if _is_at(fd, self._lock):
                    try:
                        yield
                        return
                    finally:
                        self._lock.unlink(missing_ok=True)
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
        replaced = self.staging / _REPLACED
        if replaced.exists() and not self._real.exists():
            os.rename(replaced, self._real)

    def _restore_any(self) -> None:
        """Put back what a kill of whichever job took away; in turn only, when none is between its two renames."""
        if not self._real.exists() and (waiting := self._waiting()) is not None:
            os.rename(waiting, self._real)

    def _waiting(self) -> Path | None:
        """What was the target until some job was killed between two renames."""
        for found in self._real.parent.glob(f".{glob.escape(self._real.name)}.penstock-*"):
            staging = self._held(found)
            # A result that still waits was not shown.
            if (staging / _REPLACED).exists() and (staging / "result").exists():
                return staging / _REPLACED
        return None

    def remove_staging(self) -> None:
        """Remove the hidden folder and what is in it, save an old result that has no other place.

        After rows were added that is not before 0.5 s have passed: so long who is about to list the old folder may be
        at it.
        """
        with self.explained():
            self._restore()
            if self.staging.exists():
                time.sleep(self._stays_whole_for())
                self._remove_replaced()
                # Goes into no link.
                shutil.rmtree(self._staging)
            if self._lock.exists() or self._manifests.exists():
                # Somebody's turn, or left by one that was killed; who takes it next removes it.
                with self._turn():
                    self._forget_replaced()

    def _remove_replaced(self) -> None:
        """Remove the folder whose place ours has taken, save files that came into it after it was looked at last.

        Those are kept beside the target, in a folder `<name>.kept-<job>`.
        """
        if self.published() is None:
            return
        files = json.loads(self._record.read_bytes()).get("replaced")
        for name in ("result", _REPLACED):
            replaced = self.staging / name
            if files is None or not replaced.is_dir():
                continue
            remove_files(self._held(replaced), files)
            try:
                os.rmdir(replaced)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                kept = self._real.parent / f"{self._real.name}.kept-{self.job_id}"
                os.rename(replaced, kept)
                line = "%s %s: somebody put files there while it was replaced; they are kept in %s"
                _log.warning(line, self.purpose, self.target, kept.name)

    def _forget_replaced(self) -> None:
        """Have the file of manifests know of what is there only."""
        self._draft.unlink(missing_ok=True)
        entries = read_beside(self._manifests)
        known = entries_for(self._content, self._manifests)
        if not known and self._waiting() is None:
            self._manifests.unlink(missing_ok=True)
        elif 0 < len(known) < len(entries):
            self._write_manifests(known)

    def _stays_whole_for(self) -> float:
        """Seconds for which a folder that may have been replaced has to stay; 0 if it shares no file with the new one.

        Counted from the exchange, which comes after the record and, on most file systems, touches the folder's inode.
        """
        for name in ("result", _REPLACED):
            replaced = self.staging / name
            try:
                names = set(os.listdir(self._held(replaced)))
                if names and not names.isdisjoint(set(os.listdir(self._content))):
                    since = max(replaced.stat().st_ctime, self._record.stat().st_mtime)
                    return min(max(0.0, since + _STAYS_WHOLE_S - time.time()), _STAYS_WHOLE_S)
            except (OSError, OutputError):
                # There is none, or no target any more in which it could have a file.
                continue
        return 0.0

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the file system says into a line that names the folder and the remedy."""
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self.purpose} {self.target}: {_reason(error)}") from error


def _check_access(path: str | Path, mode: int) -> None:
    """Raise what the file system would, if it does not let this process do so."""
    if not os.access(path, mode):
        reason = errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(reason, os.strerror(reason))


def _is_at(fd: int, path: Path) -> bool:
    """Whether an open file is still the one that is found at `path`."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full; free some space and resume the job, its staged rows are kept"
        case errno.EROFS:
            return f"not writable ({error.strerror}); name another folder"
        case errno.EACCES | errno.EPERM:
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
