"""Spans that a model was called for when its process died: known to whoever comes next, from the job's own folder.

A span is marked before the model is called for it, and the mark goes when the model has answered. What is written
there outlives the process, as the system keeps it. So the next attempt finds which spans are *suspect*: one of their
rows may have killed the process. What is found out about them is kept, too, across further deaths.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# A class that does not say what it answers is called for the first rows, before there are spans.
FIRST_ROWS = "the first rows"
# Of one thread: a split's name and two numbers.
_SLOT_BYTES = 256
# A job that has more rows than this that kill its model is given up.
MOST_KILLED = 8
# So is one with this many suspect spans of which no row survived.
MOST_HOPELESS = 3


@dataclass(frozen=True)
class SpanName:
    """Rows `start` to before `stop` of a split."""

    split: str
    start: int
    stop: int

    def overlaps(self, other: "SpanName") -> bool:
        """Whether they have a row in common."""
        return self.split == other.split and self.start < other.stop and other.start < self.stop


@dataclass(frozen=True)
class Killed:
    """A row that killed the model's process: the `row`th of those read of the span, and how the process ended."""

    span: SpanName
    row: int
    how: str


@dataclass(frozen=True)
class Findings:
    """What is known of the deaths of a job.

    Args:
        deaths: of its process, while a model was called.
        suspects: spans that a model was called for at that time.
        killed: rows that were found.
        hopeless: suspect spans of which no row survived.
    """

    deaths: int = 0
    suspects: tuple[SpanName, ...] = ()
    killed: tuple[Killed, ...] = ()
    hopeless: tuple[SpanName, ...] = ()

    @property
    def unexplained(self) -> int:
        """Deaths for which no row was found to blame."""
        return max(self.deaths - len(self.killed), 0)

    def suspects_in(self, span: SpanName) -> bool:
        """Whether a row of `span` may kill."""
        return any(suspect.overlaps(span) for suspect in self.suspects)

    def killed_in(self, span: SpanName) -> dict[int, str]:
        """The rows of `span` that are known to kill, and how."""
        return {each.row: each.how for each in self.killed if each.span == span}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Findings":
        """What `asdict` made JSON values of."""
        return cls(
            deaths=values["deaths"],
            suspects=tuple(SpanName(**each) for each in values["suspects"]),
            killed=tuple(Killed(SpanName(**each["span"]), each["row"], each["how"]) for each in values["killed"]),
            hopeless=tuple(SpanName(**each) for each in values["hopeless"]),
        )


@dataclass(frozen=True)
class CrashRecord:
    """What a job's folder has of crashes. One process of a job writes at a time.

    Args:
        folder: the job's own.
    """

    folder: Path

    @property
    def _calls(self) -> Path:
        return self.folder / "calls"

    @property
    def _file(self) -> Path:
        return self.folder / "crashes.json"

    def marks(self) -> tuple[SpanName, ...]:
        """The spans that a model is called for by a process that lives, or was called for when it died."""
        found: dict[SpanName, None] = {}
        with contextlib.suppress(OSError):
            for file in sorted(self._calls.iterdir()):
                found |= dict.fromkeys(_marks(file.read_bytes()))
        return tuple(found)

    def findings(self) -> Findings:
        """What is known so far."""
        try:
            return Findings.from_json(json.loads(self._file.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return Findings()

    def take_up(self) -> Findings:
        """Begin an attempt: what is marked is suspect from now on."""
        marks, found = self.marks(), self.findings()
        if marks:
            suspects = tuple(dict.fromkeys([*found.suspects, *marks]))
            found = replace(found, deaths=found.deaths + 1, suspects=suspects)
            self._write(found)
        self.forget_marks()
        return found

    def forget_marks(self) -> None:
        """Say that the process did not die of what it was doing."""
        with contextlib.suppress(OSError):
            for file in self._calls.iterdir():
                file.unlink(missing_ok=True)

    def forget_own(self) -> None:
        """Say so of this process, which ends as it wants to."""
        with contextlib.suppress(OSError):
            (self._calls / str(os.getpid())).unlink(missing_ok=True)

    def add_killed(self, killed: Killed) -> Findings:
        """Keep that a row was found."""
        found = self.findings()
        return self._write(replace(found, killed=(*found.killed, killed)))

    def add_hopeless(self, span: SpanName) -> Findings:
        """Keep that no row of a suspect span survived."""
        found = self.findings()
        return self._write(replace(found, hopeless=tuple(dict.fromkeys([*found.hopeless, span]))))

    def start_over(self) -> None:
        """Forget all but the suspects: whoever goes on with the job has mended something."""
        self._write(Findings(suspects=self.findings().suspects))

    def running(self) -> "RunningCalls":
        """The marks of this process."""
        return RunningCalls(self._calls)

    def _write(self, found: Findings) -> Findings:
        draft = self._file.with_name(f".{self._file.name}")
        try:
            with open(draft, "w", encoding="utf-8") as file:
                json.dump(asdict(found), file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self._file)
        except OSError:
            # On a full disk the search is made again, should the process die once more.
            draft.unlink(missing_ok=True)
        return found


class RunningCalls:
    """The marks of one process, one for each thread. Written once a span, not durably: what dies is the process, and
    the system keeps what it has.

    Where they cannot be written, nothing is marked, and nobody is suspect.

    Args:
        folder: gets a file for the process; None: nothing is written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._own = threading.local()
        self._slots = 0
        self._fd: int | None = None

    @contextmanager
    def during(self, span: SpanName | None) -> Iterator[None]:
        """A model is called for `span` by this thread, as long as the block lasts."""
        if span is None or self._folder is None:
            yield
            return
        mark = json.dumps([span.split, span.start, span.stop]).encode()
        self._own.mark = mark if len(mark) <= _SLOT_BYTES else b""
        self._write(self._own.mark)
        try:
            yield
        finally:
            self._own.mark = b""
            self._write(b"")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """This thread waits, and does not call the model meanwhile."""
        mark = getattr(self._own, "mark", b"")
        if not mark:
            yield
            return
        self._write(b"")
        try:
            yield
        finally:
            self._write(mark)

    def _write(self, mark: bytes) -> None:
        with contextlib.suppress(OSError):
            if not hasattr(self._own, "slot"):
                with self._lock:
                    self._own.slot = self._slots
                    self._slots += 1
            if self._fd is None:
                self._open()
            if self._fd is not None:
                os.pwrite(self._fd, mark.ljust(_SLOT_BYTES, b"\0"), self._own.slot * _SLOT_BYTES)

    def _open(self) -> None:
        with self._lock:
            if self._fd is None and self._folder is not None:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                file = self._folder / str(os.getpid())
                self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def _marks(data: bytes) -> Iterator[SpanName]:
    for at in range(0, len(data), _SLOT_BYTES):
        with contextlib.suppress(ValueError, TypeError):
            split, start, stop = json.loads(data[at : at + _SLOT_BYTES].rstrip(b"\0"))
            yield SpanName(str(split), int(start), int(stop))
