"""Walks through folders: what lies in one, or what a pattern names, as it is found. They end in time.

A pattern is held against each name once, whatever it has of `**`: `glob` follows every way in which they could share
the folders of a path between them, of which there are too many to come to an end.
"""

import fnmatch
import glob
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from transforms.errors import InputError
from transforms.sources.partitions import is_partition

_DEEP = "**"
# What no folder lists.
_DOTS = (os.curdir, os.pardir)
# Files that say by their names that they are Parquet.
_SUFFIXES = (".parquet", ".parq", ".pq")
# Beside the files of a table whose log alone says which of them it still has: Delta, Hudi, Spark's streams, Iceberg.
_LOGS = ("_delta_log", ".hoodie", "_spark_metadata")
_LOG_SUFFIX = ".metadata.json"
# Of what was passed over, as much as a message names.
_SHOWN = 3


def is_named_parquet(path: str) -> bool:
    """Whether a file says by its name that it is Parquet."""
    return path.lower().endswith(_SUFFIXES)


def is_hidden(name: str, is_folder: bool) -> bool:
    """Whether a name is one that writers of data give to what is no data. `_day=1` is a column, as in Spark."""
    return name.startswith(".") or (name.startswith("_") and not (is_folder and is_partition(name)))


def _is_log(name: str, is_folder: bool) -> bool:
    return name in _LOGS if is_folder else name.endswith(_LOG_SUFFIX)


@dataclass
class PassedOver:
    """What lies in folders and is not read.

    Args:
        files: how many are no data; `links`, `closed`, `logs`: how many links to folders, folders that may not be read,
            and logs of tables.
        first_files, first_links, first_closed, first_logs: the first of them.
    """

    files: int = 0
    links: int = 0
    closed: int = 0
    logs: int = 0
    first_files: list[str] = field(default_factory=list)
    first_links: list[str] = field(default_factory=list)
    first_closed: list[str] = field(default_factory=list)
    first_logs: list[str] = field(default_factory=list)

    def add(self, kind: Literal["files", "links", "closed", "logs"], path: str) -> None:
        """Take note of one more."""
        setattr(self, kind, getattr(self, kind) + 1)
        first = getattr(self, f"first_{kind}")
        if len(first) < _SHOWN:
            first.append(path)


def walk_folder(
    folder: str,
    deadline: float = math.inf,
    is_data: Callable[[str], bool] = is_named_parquet,
    passed: PassedOver | None = None,
) -> Iterator[str]:
    """The data files in a folder and those below it, in any order.

    Hidden files and folders, and those that begin with an underscore, are left out without a word, save folders that
    say a column, `_day=1`; links to folders are not followed.

    Args:
        deadline: until when to look, as `time.monotonic` tells the time.
        is_data: tells a data file by its path.
        passed: gets what else is left out.

    Raises:
        InputError: a folder cannot be read; one without the right to is left out.
        TimeoutError: there is more to look at.
    """
    passed = passed if passed is not None else PassedOver()
    pending = [folder]
    while pending:
        for entry in _entries(pending.pop(), deadline, passed):
            is_folder = _is_folder(entry)
            if _is_log(entry.name, is_folder):
                passed.add("logs", entry.path)
                continue
            if is_hidden(entry.name, is_folder):
                continue
            if is_folder and entry.is_symlink():
                passed.add("links", entry.path)
            elif is_folder:
                pending.append(entry.path)
            elif is_data(entry.path):
                yield entry.path
            else:
                passed.add("files", entry.path)


def walk_pattern(
    pattern: str, deadline: float = math.inf, *, folders: bool = False, passed: PassedOver | None = None
) -> Iterator[str]:
    """The files that a pattern names, in any order: `*`, `?` and `[…]` as in a shell, `**` for any number of folders.

    Only what begins with a dot in the pattern is hidden in the file system. Links are followed, but not into a folder
    that the way to them leads through.

    Args:
        folders: whether folders that the last part of the pattern names come, too; not those of `**`, nor those that
            `is_hidden` tells and the pattern does not spell out.
        passed: gets the folders that may not be read, and the logs of tables.

    Raises:
        InputError, TimeoutError: as `walk_folder`.
    """
    start, parts = _cut(pattern)
    pending = [_Visit(start, _at(parts, 0))] if parts else []
    while pending:
        visit = pending.pop()
        for name, path, is_link, is_folder in _named(visit, parts, deadline, passed):
            further: set[int] = set()
            if passed is not None and _is_log(name, is_folder):
                passed.add("logs", path)
            for state in visit.states:
                part = parts[state]
                is_last = state == len(parts) - 1
                if not part.matches(name):
                    continue
                if part.is_deep and is_folder:
                    further |= _at(parts, state)
                elif is_last and (folders if is_folder else os.path.isfile(path)):
                    if not is_folder or part.text[:1] == name[:1] or not is_hidden(name, is_folder=True):
                        yield path
                    break
                elif not is_last and not part.is_deep and is_folder:
                    further |= _at(parts, state + 1)
            if further:
                following = _Visit(path, frozenset(further), visit)
                if not (is_link and following.is_within_itself()):
                    pending.append(following)


def check_time(deadline: float) -> None:
    """Demand that it is not over.

    Raises:
        TimeoutError: it is.
    """
    if time.monotonic() >= deadline:
        raise TimeoutError("there is more to look at than there is time for")


@dataclass(frozen=True)
class _Part:
    """What a pattern says between two slashes."""

    text: str
    is_deep: bool
    is_literal: bool
    _matches: Callable[[str], object] = field(repr=False)

    @classmethod
    def read(cls, text: str) -> Self:
        return cls(text, text == _DEEP, not glob.has_magic(text), re.compile(fnmatch.translate(text)).match)

    def matches(self, name: str) -> bool:
        if self.is_literal:
            return name == self.text
        if name.startswith(".") and not self.text.startswith("."):
            return False
        return self._matches(name) is not None


@dataclass(frozen=True)
class _Visit:
    """A folder on the way, and which parts of the pattern what lies in it may be the first of."""

    folder: str
    states: frozenset[int]
    came_from: "_Visit | None" = None

    def is_within_itself(self) -> bool:
        """Whether the way to the folder leads through it."""
        way = self.came_from
        while way is not None:
            try:
                if os.path.samefile(self.folder, way.folder or os.curdir):
                    return True
            except OSError:
                # Gone by now.
                return True
            way = way.came_from
        return False


def _cut(pattern: str) -> tuple[str, Sequence[_Part]]:
    """The folder before the first wildcard, and the rest; nothing of a pattern that names folders."""
    texts = [text for text in pattern.split(os.sep) if text]
    first = next(n for n, text in enumerate(texts) if glob.has_magic(text))
    root = os.sep if pattern.startswith(os.sep) else ""
    rest = [text for n, text in enumerate(texts) if n >= first and not (text == _DEEP == texts[n - 1] and n > first)]
    return root + os.sep.join(texts[:first]), [] if pattern.endswith(os.sep) else [_Part.read(text) for text in rest]


def _at(parts: Sequence[_Part], state: int) -> frozenset[int]:
    """The parts that may come next where this one may: `**` may stand for no folder."""
    if parts[state].is_deep and state + 1 < len(parts):
        return frozenset((state, state + 1))
    return frozenset((state,))


def _named(
    visit: _Visit, parts: Sequence[_Part], deadline: float, passed: PassedOver | None
) -> Iterator[tuple[str, str, bool, bool]]:
    """What lies in a folder, as far as it can match: name, path, whether it is a link, whether it leads to a folder."""
    wanted = {parts[state].text for state in visit.states if parts[state].is_literal}
    is_listed = any(not parts[state].is_literal for state in visit.states)
    for name in wanted.intersection(_DOTS) if is_listed else wanted:
        check_time(deadline)
        path = os.path.join(visit.folder, name)
        yield name, path, os.path.islink(path), os.path.isdir(path)
    if is_listed:
        for entry in _entries(visit.folder, deadline, passed):
            yield entry.name, os.path.join(visit.folder, entry.name), entry.is_symlink(), _is_folder(entry)


def _entries(folder: str, deadline: float, passed: PassedOver | None) -> Iterator["os.DirEntry[str]"]:
    check_time(deadline)
    try:
        with os.scandir(folder or os.curdir) as entries:
            for entry in entries:
                check_time(deadline)
                yield entry
    except PermissionError:
        if passed is not None:
            passed.add("closed", folder or os.curdir)
    except (FileNotFoundError, NotADirectoryError):
        # Gone by now.
        return
    except TimeoutError:
        raise
    except OSError as error:
        raise InputError(f"{folder or os.curdir} cannot be read: {error.strerror}") from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
