"""The ledger: which spans are durable. Everything a job knows about itself is read off it.

A note says that a span's scored rows and rejects are on stable storage, still invisible. Each sink keeps its notes
where its rows are (files beside the parts, rows beside the rows), so that one action makes both last.
"""

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from predictors.bounds import Bounds
from predictors.notices import Notice, merged
from transforms.batches import ScoredSpan, Split
from transforms.counts import Counts
from transforms.errors import LedgerError


@dataclass(frozen=True)
class Note:
    """A span made durable.

    Args:
        split: id of the split.
        start, stop, last: the span.
        scored, rejected, skipped: rows; they add up to `stop - start`.
        part: name of the file that holds the scored rows; None where the rows lie in a table.
        rejects: name of the file that holds the rejected rows; None when there are none.
        notices: what the span's rows have that is worth a word.
    """

    split: str
    start: int
    stop: int
    last: bool
    scored: int
    rejected: int
    skipped: int
    part: str | None
    rejects: str | None
    notices: tuple[Notice, ...] = ()

    def __post_init__(self) -> None:
        if self.scored + self.rejected + self.skipped != self.stop - self.start:
            raise LedgerError(
                f"split {self.split} rows {self.start} to {self.stop}: {self.scored} scored, "
                f"{self.rejected} rejected and {self.skipped} skipped do not add up to {self.stop - self.start}"
            )


class Ledger(Protocol):
    """Notes of one job, kept by its sink. Any number of processes may note at once."""

    def noted(self, split_id: str) -> list[Note]:
        """The notes of one split, in the order in which they were made. Empty when there is none."""

    def all_notes(self) -> list[Note]:
        """The notes of all splits, in no promised order."""


def note_of(scored: ScoredSpan, part: str | None, rejects: str | None) -> Note:
    """The note for one scored span."""
    span = scored.span
    return Note(
        split=span.split.id,
        start=span.start,
        stop=span.stop,
        last=span.last,
        scored=scored.rows.num_rows,
        rejected=scored.rejected_rows,
        skipped=scored.skipped,
        part=part,
        rejects=rejects if scored.rejected_rows else None,
        notices=merged(scored.notices),
    )


def count(notes: Iterable[Note]) -> Counts:
    """Add up the rows of `notes`."""
    return sum((Counts(note.scored, note.rejected, note.skipped) for note in notes), Counts())


def notices_of(notes: Iterable[Note]) -> tuple[Notice, ...]:
    """What was noticed of all rows of `notes`, in the order of the input."""
    return merged(notice for note in in_order(notes) for notice in note.notices)


def without_noted(spans: Sequence[ScoredSpan], noted: Iterable[Note]) -> list[ScoredSpan]:
    """The spans of one split that `noted` does not have yet, in their order.

    Raises:
        LedgerError: a span overlaps a note without being the same; spans of a split never change, so one of both lies.
    """
    starts = {note.start: note.stop for note in noted}
    fresh = []
    for scored in spans:
        span = scored.span
        if span.start not in starts:
            fresh.append(scored)
        elif starts[span.start] != span.stop:
            raise LedgerError(
                f"split {span.split.id}: rows from {span.start} are noted up to {starts[span.start]}, not {span.stop}"
            )
    return fresh


def first_gap(split: Split, noted: Iterable[Note]) -> int | None:
    """The first row of `split` that no note covers, or None when it is covered to its end.

    Raises:
        LedgerError: two notes cover the same row, or go past the end.
    """
    at, ended = 0, split.rows == 0
    for note in sorted(noted, key=lambda note: (note.start, note.stop)):
        if note.start < at or (ended and note.stop > at):
            raise LedgerError(f"split {split.id}: row {note.start} is noted twice")
        if note.start > at:
            return at
        at, ended = note.stop, note.last
    if ended and split.rows is not None and at != split.rows:
        raise LedgerError(f"split {split.id}: {at} rows were noted but {split.rows} planned")
    return None if ended else at


def check_covered(splits: Iterable[Split], notes: Iterable[Note]) -> Counts:
    """Demand that every split is noted exactly once, from its first row to its last.

    Raises:
        LedgerError: names the first split that is not, or a note of a split that is not in the plan.
    """
    by_split: dict[str, list[Note]] = {}
    for note in notes:
        by_split.setdefault(note.split, []).append(note)
    total = Counts()
    for split in splits:
        own = by_split.pop(split.id, [])
        gap = first_gap(split, own)
        if gap is not None:
            raise LedgerError(f"split {split.id} ({split.uri}): row {gap} was never noted; resume the job")
        total += count(own)
    if by_split:
        raise LedgerError(f"split {min(by_split)} is noted but not in the plan")
    return total


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` last."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and make it and its name last. A crash leaves all of it or nothing under that name."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(draft, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


@dataclass(frozen=True)
class FileLedger:
    """Notes as files: entry n of a split's log is `<folder>/<split>/<n>.json`, created only if absent.

    An entry is written elsewhere, made durable, then linked to its name: `link` fails when the name exists, on every
    POSIX file system, so one writer wins entry n and the other reads what it says before trying n + 1.

    Args:
        folder: holds those of the splits.
        within: where those have to lie, none of them or of their files being a link; None: anywhere.
    """

    folder: Path
    within: Bounds | None = None

    def noted(self, split_id: str) -> list[Note]:
        """The notes of one split, in the order in which they were made."""
        return [note for entry in self._entries(split_id) for note in entry]

    def all_notes(self) -> list[Note]:
        """The notes of all splits, by split."""
        if not self.folder.is_dir():
            return []
        return [note for folder in sorted(self.folder.iterdir()) for note in self.noted(folder.name)]

    def add(self, notes: Sequence[Note]) -> bool:
        """Note spans of one split, all or none. False when one of them is noted already: cut it and try again.

        The rows must be durable before.
        """
        (split_id,) = {note.split for note in notes}
        own = self.folder / split_id
        if not own.is_dir():
            own.mkdir(parents=True, exist_ok=True)
            fsync_folder(self.folder)
        starts = {note.start for note in notes}
        with self._opened(split_id) as folder:
            draft = folder / f".{uuid.uuid4().hex}"
            try:
                with open(draft, "xb") as file:
                    file.write(json.dumps([asdict(note) for note in notes]).encode())
                    file.flush()
                    os.fsync(file.fileno())
                while True:
                    entries = self._entries(split_id)
                    if any(note.start in starts for entry in entries for note in entry):
                        return False
                    try:
                        os.link(draft, folder / f"{len(entries):08d}.json")
                    except FileExistsError:
                        continue
                    fsync_folder(folder)
                    return True
            finally:
                draft.unlink(missing_ok=True)

    def _entries(self, split_id: str) -> list[list[Note]]:
        if not (self.folder / split_id).is_dir():
            return []
        with self._opened(split_id) as folder:
            names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
            return [[_note(values) for values in json.loads(self._read(folder / name))] for name in names]

    @contextmanager
    def _opened(self, split_id: str) -> Iterator[Path]:
        if self.within is None:
            yield self.folder / split_id
        else:
            with self.within.opened_folder(self.folder / split_id) as folder:
                yield folder

    def _read(self, entry: Path) -> bytes:
        if self.within is None:
            return entry.read_bytes()
        with self.within.opened(entry, follow=False) as fd, open(fd, "rb", closefd=False) as file:
            return file.read()


def _note(values: dict[str, Any]) -> Note:
    """A note as `FileLedger` wrote it, or a version of it that knew no notices."""
    return Note(**{**values, "notices": tuple(map(Notice.from_json, values.get("notices", ())))})


def in_order(notes: Iterable[Note]) -> list[Note]:
    """`notes` in the order of the input."""
    return sorted(notes, key=lambda note: (note.split, note.start))


def parts_of(notes: Iterable[Note]) -> Mapping[str, list[Note]]:
    """Notes by the file that holds their scored rows, in the order of the input; notes without a file are left out."""
    by_part: dict[str, list[Note]] = {}
    for note in in_order(notes):
        if note.part is not None:
            by_part.setdefault(note.part, []).append(note)
    return by_part
