"""The plain loop on PostgreSQL: ADBC reads Arrow batches, ONNX Runtime scores them in calls, ADBC ingests them."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import onnxruntime as ort
import pyarrow as pa
from adbc_driver_postgresql import dbapi

from benchmarks.models import FEATURES, ID_COLUMN, SCORE_COLUMN, SCORED_SCHEMA, open_session, score_batch

STAGING_TABLE = "loop_staging"


def scored_batches(
    rows: pa.RecordBatchReader, session: ort.InferenceSession, call_rows: int
) -> Iterator[pa.RecordBatch]:
    """Score what `rows` yields, batch by batch."""
    for batch in rows:
        yield score_batch(session, batch, call_rows)


def main() -> None:
    """Score one table into another, in one transaction."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.postgres_loop", description=__doc__)
    parser.add_argument("uri")
    parser.add_argument("rows", help="table to score")
    parser.add_argument("model", type=Path)
    parser.add_argument("result", help="table to write to")
    parser.add_argument("--call-rows", type=int, default=1000)
    parser.add_argument("--existing", action="store_true", help="the table is there: replace its rows")
    args = parser.parse_args()

    session = open_session(args.model)
    ingested = STAGING_TABLE if args.existing else args.result
    with (
        dbapi.connect(args.uri) as source,
        dbapi.connect(args.uri) as destination,
        source.cursor() as read,
        destination.cursor() as write,
    ):
        read.execute(f"SELECT {', '.join([ID_COLUMN, *FEATURES])} FROM {args.rows}")
        batches = scored_batches(read.fetch_record_batch(), session, args.call_rows)
        write.adbc_ingest(ingested, pa.RecordBatchReader.from_batches(SCORED_SCHEMA, batches), mode="create")
        if args.existing:
            columns = f"{ID_COLUMN}, {SCORE_COLUMN}"
            write.execute(f"DELETE FROM {args.result}")
            write.execute(f"INSERT INTO {args.result} ({columns}) SELECT {columns} FROM {STAGING_TABLE}")
            write.execute(f"DROP TABLE {STAGING_TABLE}")
        destination.commit()


if __name__ == "__main__":
    main()
