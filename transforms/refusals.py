"""Rows that a destination refuses: found by halving, then rejected like rows that a model refuses."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predictors.taking import take_rows
from transforms.batches import Rejected, ScoredSpan
from transforms.errors import RefusedRow
from transforms.sources.base import Source

REFUSED = "RefusedByDestination"
# Under a name of their own: they are good, as far as is known.
NOT_WRITTEN = "NotWritten"
# Past so many refused rows of a span its rest is rejected whole, so that a column gone wrong costs tens of tries a span
# and not thousands; as for models, see `predictors.recovery.RetryPolicy`.
_MOST_ROWS = 32


@dataclass(frozen=True)
class Failure:
    """Rows that were not written together.

    Args:
        reason: what the destination said.
        row: which row it said it of, counted from the first of those; None where it named none.
    """

    reason: str
    row: int | None = None


# Writes the rows from its first to before its second argument, or says why it could not; then none of them is.
Attempt = Callable[[int, int], Failure | None]


def refusals(attempt: Attempt, rows: int) -> Iterator[tuple[int, str]]:
    """The rows that cannot be written, in order, each with the reason; what passes on the way is written.

    For k bad rows of n that takes k * (ceil(log2 n) + 2) + 1 attempts at most; four for each row that is named. Rows
    that fail together, but none of them alone, are not found.
    """
    start = 0
    while start < rows:
        failure = attempt(start, rows)
        if failure is None:
            return
        start = _first(attempt, start, rows, failure)
        alone = attempt(start, start + 1)
        if alone is not None:
            yield start, alone.reason
        start += 1


def _first(attempt: Attempt, start: int, stop: int, failure: Failure) -> int:
    """The first bad row of a failed attempt, as far as can be told; those before it are written."""
    while stop - start > 1:
        named = None if failure.row is None else start + failure.row
        middle = (start + stop) // 2 if named is None or not start <= named < stop else max(named, start + 1)
        inner = attempt(start, middle)
        if inner is not None:
            failure, stop = inner, middle
        elif middle == named:
            return named
        else:
            start, failure = middle, replace(failure, row=None)
    return start


def refused_rows(attempt: Attempt, span: int, rows: int) -> list[RefusedRow]:
    """The rows of one span that are to be rejected: those that cannot be written, and past a cap all others."""
    found = [RefusedRow(span, row, REFUSED, reason) for row, reason in islice(refusals(attempt, rows), _MOST_ROWS + 1)]
    if len(found) <= _MOST_ROWS:
        return found
    last = found[-1]
    why = f"not written, as {_MOST_ROWS} rows of its span were refused; the last of them: {found[-2].reason}"
    return [*found[:-1], *(RefusedRow(span, row, NOT_WRITTEN, why) for row in range(last.row, rows))]


def without_refused(spans: Sequence[ScoredSpan], refused: Sequence[RefusedRow], source: Source) -> list[ScoredSpan]:
    """`spans` with their refused rows among the rejected ones.

    Args:
        refused: no row twice.
        source: where their input columns are looked up.
    """
    by_span: dict[int, list[RefusedRow]] = {}
    for row in refused:
        by_span.setdefault(row.span, []).append(row)
    return [
        _without(scored, sorted(by_span[at], key=lambda row: row.row), source) if at in by_span else scored
        for at, scored in enumerate(spans)
    ]


def _without(scored: ScoredSpan, refused: Sequence[RefusedRow], source: Source) -> ScoredSpan:
    span = scored.span
    keep = np.ones(scored.rows.num_rows, bool)
    keep[[row.row for row in refused]] = False
    offsets = scored.offsets().to_numpy()
    at = pa.array(offsets[~keep], pa.int32())
    names = source.schema.names if scored.rejected is None else scored.rejected.rows.schema.names
    places = pc.add(at.cast(pa.int64()), span.start).to_pylist()
    rejected = Rejected(
        rows=source.lookup(span.split, places, names),
        at=at,
        error_type=pa.array([row.error_type for row in refused], pa.string()),
        error=pa.array([row.reason for row in refused], pa.string()),
    )
    return replace(
        scored,
        rows=take_rows(scored.rows, pa.array(np.flatnonzero(keep))),
        rejected=rejected if scored.rejected is None else _merged(scored.rejected, rejected),
        at=None if scored.at is None else pa.array(offsets[keep], pa.int32()),
    )


def _merged(one: Rejected, other: Rejected) -> Rejected:
    """The rejected rows of both, in the order of the input."""
    at = pa.concat_arrays([one.at, other.at])
    order = pc.sort_indices(at)
    rows = pa.concat_batches([one.rows, other.rows.cast(one.rows.schema)])
    return Rejected(
        rows=take_rows(rows, order),
        at=at.take(order),
        error_type=pa.concat_arrays([one.error_type, other.error_type]).take(order),
        error=pa.concat_arrays([one.error, other.error]).take(order),
    )
