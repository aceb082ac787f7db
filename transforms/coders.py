"""How what moves through the graph crosses from one worker of Beam's to another: as Arrow IPC, and JSON for splits."""

import json
import struct
from typing import Any

import apache_beam as beam
import pyarrow as pa

from predictors.notices import Notice
from transforms.batches import Batch, Rejected, ScoredSpan, Span, Split

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


def register_coders() -> None:
    """Have Beam use these coders for elements of their types. Called again, it changes nothing.

    Each step that takes or gives such elements sees to it, since Beam falls back to pickle without a word.
    """
    beam.coders.registry.register_coder(Split, SplitCoder)
    beam.coders.registry.register_coder(Batch, BatchCoder)
    beam.coders.registry.register_coder(ScoredSpan, ScoredSpanCoder)
