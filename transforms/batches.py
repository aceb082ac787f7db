"""What moves through the graph: splits, spans of them, and batches of their rows.

A split is a piece of input that reads the same each time; a span is a run of its rows, named by position; a batch is
a span with its rows, as Arrow. Nothing here knows Beam's transforms, only its coders, which are registered below.
"""

import json
import struct
from dataclasses import asdict, dataclass
from typing import Any

import apache_beam as beam
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


_LENGTH = struct.Struct("<I")


def _pack(header: dict[str, Any], batches: list[pa.RecordBatch]) -> bytes:
    """Lay down a JSON header and record batches, each as an Arrow IPC stream, each with its length in front.

    IPC writes only the rows of a slice; pickle would ship the parent's buffers whole.
    """
    text = json.dumps(header).encode()
    pieces = [_LENGTH.pack(len(text)), text]
    for batch in batches:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        buffer = sink.getvalue()
        pieces += [_LENGTH.pack(buffer.size), buffer]
    return b"".join(pieces)


def _unpack(encoded: bytes) -> tuple[dict[str, Any], list[pa.RecordBatch]]:
    (length,) = _LENGTH.unpack_from(encoded)
    header = json.loads(encoded[_LENGTH.size : _LENGTH.size + length])
    at = _LENGTH.size + length
    buffer = pa.py_buffer(encoded)
    batches = []
    while at < len(encoded):
        (length,) = _LENGTH.unpack_from(encoded, at)
        at += _LENGTH.size
        with pa.ipc.open_stream(buffer.slice(at, length)) as reader:
            batches.append(reader.read_next_batch())
        at += length
    return header, batches


def _span_header(span: Span) -> dict[str, Any]:
    return {"split": span.split.to_json(), "start": span.start, "stop": span.stop, "last": span.last}


def _notices(header: dict[str, Any]) -> tuple[Notice, ...]:
    return tuple(map(Notice.from_json, header["notices"]))


def _span(header: dict[str, Any]) -> Span:
    return Span(Split.from_json(header["split"]), header["start"], header["stop"], header["last"])


def _with_column(rows: pa.RecordBatch, arrays: list[pa.Array]) -> pa.RecordBatch:
    """`rows` with unnamed columns behind its own; names may repeat, so only positions are used to take them off."""
    fields = [*rows.schema, *(pa.field("", array.type) for array in arrays)]
    return pa.RecordBatch.from_arrays([*rows.columns, *arrays], schema=pa.schema(fields, rows.schema.metadata))


def _without_columns(batch: pa.RecordBatch, count: int) -> tuple[pa.RecordBatch, list[pa.Array]]:
    kept = batch.num_columns - count
    schema = pa.schema([batch.schema.field(i) for i in range(kept)], batch.schema.metadata)
    return pa.RecordBatch.from_arrays(batch.columns[:kept], schema=schema), batch.columns[kept:]


class BatchCoder(beam.coders.Coder):
    """`Batch` as Arrow IPC."""

    def encode(self, value: Batch) -> bytes:
        extra = [] if value.at is None else [value.at]
        noticed = [notice.to_json() for notice in value.notices]
        header = {**_span_header(value.span), "extra": len(extra), "notices": noticed}
        return _pack(header, [_with_column(value.rows, extra)])

    def decode(self, encoded: bytes) -> Batch:
        header, (batch,) = _unpack(encoded)
        rows, extra = _without_columns(batch, header["extra"])
        return Batch(_span(header), rows, extra[0] if extra else None, _notices(header))

    def estimate_size(self, value: Batch) -> int:
        return int(value.rows.nbytes)

    def is_deterministic(self) -> bool:
        return False

    def to_type_hint(self) -> type[Batch]:
        return Batch


class ScoredSpanCoder(beam.coders.Coder):
    """`ScoredSpan` as Arrow IPC."""

    def encode(self, value: ScoredSpan) -> bytes:
        extra = [] if value.at is None else [value.at]
        batches = [_with_column(value.rows, extra)]
        if value.rejected is not None:
            rejected = value.rejected
            batches.append(_with_column(rejected.rows, [rejected.at, rejected.error_type, rejected.error]))
        noticed = [notice.to_json() for notice in value.notices]
        header = {**_span_header(value.span), "skipped": value.skipped, "extra": len(extra), "notices": noticed}
        return _pack(header, batches)

    def decode(self, encoded: bytes) -> ScoredSpan:
        header, (rows, *rest) = _unpack(encoded)
        rejected = None
        if rest:
            as_read, (at, error_type, error) = _without_columns(rest[0], 3)
            rejected = Rejected(as_read, at, error_type, error)
        rows, extra = _without_columns(rows, header["extra"])
        at = extra[0] if extra else None
        return ScoredSpan(_span(header), rows, rejected, header["skipped"], _notices(header), at)

    def estimate_size(self, value: ScoredSpan) -> int:
        return int(value.size_bytes)

    def is_deterministic(self) -> bool:
        return False

    def to_type_hint(self) -> type[ScoredSpan]:
        return ScoredSpan


class SplitCoder(beam.coders.Coder):
    """`Split` as JSON with sorted keys."""

    def encode(self, value: Split) -> bytes:
        return json.dumps(value.to_json(), sort_keys=True).encode()

    def decode(self, encoded: bytes) -> Split:
        return Split.from_json(json.loads(encoded))

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type[Split]:
        return Split


beam.coders.registry.register_coder(Split, SplitCoder)
beam.coders.registry.register_coder(Batch, BatchCoder)
beam.coders.registry.register_coder(ScoredSpan, ScoredSpanCoder)
