"""What a source promises: the same rows, in the same order, at the same positions, each time it is read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import pyarrow as pa

from predictors.notices import Notice
from transforms.batches import Batch, Span, Split
from transforms.errors import InputChanged

# Spans travel between steps whole; 65,536 rows make a step's fixed cost vanish and still spread over cores.
SPAN_ROWS = 65_536
# A span of wide rows is cut shorter, so that several in flight fit in memory.
SPAN_BYTES = 32 * 1024 * 1024
# A kill costs the spans at work, and threads wait for the last ones at the end: so each thread gets at least this many,
# and takes about this long for one at most.
SPANS_EACH = 16
SPAN_S = 5.0
# A split is about this long where the format lets us choose: small enough to deal out evenly to workers.
SPLIT_ROWS = 1_048_576


class Source(Protocol):
    """Rows of one input, in splits. Picklable; holds no open file."""

    @property
    def schema(self) -> pa.Schema:
        """All columns of the input, in order, under the types in which they are read."""

    @property
    def closed(self) -> Mapping[str, str]:
        """Columns that the input has besides, and why they cannot be read."""

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What opening the input found worth a word; empty where it was opened before."""

    def plan(self, columns: Sequence[str], batch_size: int) -> Iterator[Split]:
        """Cut the input into splits, in its order. Reads metadata only. An input without rows yields none.

        Their spans are the longest that fit into memory; whoever knows how many threads share them may shorten them, to
        any multiple of `batch_size`.

        Args:
            columns: the columns that `read` will be asked for; they decide the mean size of a row.
            batch_size: rows of a model call; a span is a multiple of it.

        Raises:
            InputError: the input is missing or unreadable.
        """

    def read(self, split: Split, columns: Sequence[str], start: int = 0) -> Iterator[Batch]:
        """The spans of `split` from row `start` on, in order, each exactly as the split fixes them.

        Args:
            columns: which columns, in this order.
            start: first row wanted; a multiple of `split.span_rows`.

        Raises:
            InputChanged: the input is not what was planned.
            InputError: it cannot be read.
        """

    def lookup(self, split: Split, rows: Sequence[int], columns: Sequence[str]) -> pa.RecordBatch:
        """The `columns` of single rows of `split`, for the rejects: rare, so it may read more than it returns.

        Args:
            rows: offsets within the split, ascending.
        """


@dataclass(frozen=True)
class NoRows:
    """A source of which only the columns are known, for a job that will not read it again."""

    schema: pa.Schema
    closed: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()

    def plan(self, columns: Sequence[str], batch_size: int) -> Iterator[Split]:
        """No splits."""
        return iter(())

    def read(self, split: Split, columns: Sequence[str], start: int = 0) -> Iterator[Batch]:
        """No rows; no split is one of this source."""
        raise InputChanged(f"split {split.id} is of an input that is not open any more; resume the job")

    def lookup(self, split: Split, rows: Sequence[int], columns: Sequence[str]) -> pa.RecordBatch:
        """No rows; no split is one of this source."""
        raise InputChanged(f"split {split.id} is of an input that is not open any more; resume the job")


def span_rows(batch_size: int, row_bytes: float) -> int:
    """The largest multiple of `batch_size` within `SPAN_ROWS` and `SPAN_BYTES`, at least one batch."""
    fitting = min(SPAN_ROWS, int(SPAN_BYTES / max(row_bytes, 1.0)))
    return max(fitting // batch_size, 1) * batch_size


def shortened(length: int, batch_size: int, rows: int, threads: int, row_s: float | None = None) -> int:
    """Length of the spans of an input that several threads share, at least one batch.

    Args:
        length: what they may have at most; a multiple of `batch_size`.
        rows: of the whole input.
        row_s: seconds that a thread takes for a row; None: not known.
    """
    share = rows // (threads * SPANS_EACH)
    paced = length if not row_s else int(min(SPAN_S / row_s, length))
    return min(max(min(share, paced) // batch_size, 1) * batch_size, length)


def cut(splits: Iterable[Split], batch_size: int, threads: int, row_s: float | None = None) -> tuple[Split, ...]:
    """`splits` of one plan with spans as short as `shortened` says; those whose rows are not known stay as they are."""
    planned = tuple(splits)
    if any(split.rows is None for split in planned):
        return planned
    rows = sum(split.rows or 0 for split in planned)
    return tuple(
        replace(split, span_rows=shortened(split.span_rows, batch_size, rows, threads, row_s)) for split in planned
    )


def rebatch(chunks: Iterator[pa.RecordBatch], split: Split, before: int, start: int) -> Iterator[Batch]:
    """Join and cut a reader's own batches to the spans of `split`, copying only where a span lies over two of them.

    Args:
        chunks: rows of `split` from row `before` on, in order, in batches of any length.
        before: a row at or before `start`.
        start: first row wanted; a multiple of `split.span_rows`.

    Raises:
        InputChanged: there are more or fewer rows than were planned.
    """
    held: list[pa.RecordBatch] = []
    held_rows, skip, at = 0, start - before, start
    for chunk in chunks:
        if skip:
            dropped = min(skip, chunk.num_rows)
            skip -= dropped
            chunk = chunk.slice(dropped)
        if chunk.num_rows == 0:
            continue
        held.append(chunk)
        held_rows += chunk.num_rows
        # One row more than a span is waited for, so that the last span of a split of unknown length is known as such.
        while held_rows > split.span_rows:
            rows, held = _take(held, split.span_rows)
            held_rows -= split.span_rows
            yield Batch(Span(split, at, at + split.span_rows, last=False), rows)
            at += split.span_rows
        if split.rows is not None and at + held_rows >= split.rows:
            break
    if split.rows is not None and at + held_rows != split.rows:
        raise InputChanged(
            f"{split.uri}: {at + held_rows} rows were read of split {split.id}, but {split.rows} planned"
        )
    if held_rows:
        rows, _ = _take(held, held_rows)
        yield Batch(Span(split, at, at + held_rows, last=True), rows)


def _take(held: list[pa.RecordBatch], rows: int) -> tuple[pa.RecordBatch, list[pa.RecordBatch]]:
    """The first `rows` rows of `held` as one batch, and what is left."""
    taken = []
    while rows:
        head = held[0]
        if head.num_rows <= rows:
            taken.append(held.pop(0))
            rows -= head.num_rows
        else:
            taken.append(head.slice(0, rows))
            held[0] = head.slice(rows)
            rows = 0
    return taken[0] if len(taken) == 1 else pa.concat_batches(taken), held
