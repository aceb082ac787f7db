"""What moves through the graph: splits, spans of them, and batches of their rows.

A split is a piece of input that reads the same each time; a span is a run of its rows, named by position; a batch is
a span with its rows, as Arrow. Nothing here knows Beam; how they cross from one of its workers to another is for
`transforms.coders` to say.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from predictors.notices import Notice


@dataclass(frozen=True)
class Split:
    """An immutable piece of input: reading it again gives the same rows in the same order.

    Args:
        id: unique in the plan; ids sort in the order of the input.
        uri: where the rows lie (a file). Positions shown to people name it.
        first_row: rows of `uri` before this split, so that `first_row + offset` is a row's place in `uri`.
        rows: how many rows there are, or None where only reading tells.
        span_rows: length of every span but the last. Fixed when planned, so that spans are the same each time.
        fingerprint: what `uri` looked like when planned; checked at each open.
        locator: where in `uri` the split lies, in the words of its source.
    """

    id: str
    uri: str
    first_row: int
    rows: int | None
    span_rows: int
    fingerprint: str
    locator: str = ""

    def to_json(self) -> dict[str, Any]:
        """The split as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Split":
        """The split that `to_json` wrote."""
        return cls(**values)


@dataclass(frozen=True)
class Span:
    """Rows `start` (included) to `stop` (excluded) of a split; `last` marks the one that ends it."""

    split: Split
    start: int
    stop: int
    last: bool

    @property
    def rows(self) -> int:
        """Number of positions covered, rows that were skipped included."""
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Batch:
    """A span with its rows, columnar.

    Args:
        span: which positions these are.
        rows: the rows that were not skipped, in order; at least one column.
        at: int32 offsets of `rows` within the span, ascending; None when no row is missing.
        notices: what reading these rows found worth a word.
    """

    span: Span
    rows: pa.RecordBatch
    at: pa.Int32Array | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, eq=False)
class Rejected:
    """Rows that were not scored, and why.

    Args:
        rows: the rows as they were read, in order.
        at: int32 offsets within the span, ascending, one per row.
        error_type: string, one per row: the class of the failure.
        error: string, one per row: what a person needs to mend the row.
    """

    rows: pa.RecordBatch
    at: pa.Int32Array
    error_type: pa.StringArray
    error: pa.StringArray


@dataclass(frozen=True, eq=False)
class ScoredSpan:
    """A span after scoring: what is to be written and what is to be rejected, together.

    Args:
        span: which positions these are; `span.rows = rows.num_rows + rejected + skipped`.
        rows: passthrough columns and predictions of the rows that were scored, in order.
        rejected: the others, or None when every row was scored.
        skipped: rows that the job's `where` dropped before scoring.
        notices: what reading and scoring them found worth a word.
        at: int32 offsets of `rows` within the span, ascending; None where none is skipped: then they are those that
            were not rejected.
    """

    span: Span
    rows: pa.RecordBatch
    rejected: Rejected | None = None
    skipped: int = 0
    notices: tuple[Notice, ...] = ()
    at: pa.Int32Array | None = None

    @property
    def rejected_rows(self) -> int:
        """Number of rejected rows."""
        return 0 if self.rejected is None else len(self.rejected.at)

    def offsets(self) -> pa.Int32Array:
        """Where within the span each of `rows` was."""
        if self.at is not None:
            return self.at
        scored = np.ones(self.span.rows, bool)
        if self.rejected is not None:
            scored[self.rejected.at.to_numpy()] = False
        return pa.array(np.flatnonzero(scored), pa.int32())

    @property
    def size_bytes(self) -> int:
        """Bytes held by the rows, shared buffers counted by what is used of them."""
        held = self.rows.nbytes
        return held if self.rejected is None else held + self.rejected.rows.nbytes
