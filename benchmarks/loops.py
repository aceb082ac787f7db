"""The plain loop: pyarrow reads chunks, ONNX Runtime scores them in calls, pyarrow writes; no framework."""

from pathlib import Path

import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.arguments import program_arguments
from benchmarks.models import FEATURES, ID_COLUMN, SCORED_SCHEMA, open_session, score_batch

CHUNK_ROWS = 65_536


def row_groups(folder: Path, share: int, shares: int) -> list[tuple[Path, int]]:
    """The row groups of all Parquet files in `folder` that fall to share 0, 1, … of `shares` equal ones, in order."""
    groups = [
        (file, i) for file in sorted(folder.glob("*.parquet")) for i in range(pq.ParquetFile(file).num_row_groups)
    ]
    return groups[len(groups) * share // shares : len(groups) * (share + 1) // shares]


def score_row_groups(
    groups: list[tuple[Path, int]], session: ort.InferenceSession, result: Path, call_rows: int
) -> None:
    """Score `groups` one after the other into the one file `result`, each as a row group of its own.

    Writing each chunk as a row group would need no memory for a whole one, but takes twice as long.
    """
    with pq.ParquetWriter(result, SCORED_SCHEMA) as writer:
        for file, group in groups:
            chunks = pq.ParquetFile(file).iter_batches(
                batch_size=CHUNK_ROWS, row_groups=[group], columns=[ID_COLUMN, *FEATURES]
            )
            scored = [score_batch(session, chunk, call_rows) for chunk in chunks]
            writer.write_table(pa.Table.from_batches(scored), row_group_size=sum(map(len, scored)))


def main() -> None:
    """Run one loop over its share of the input."""
    parser = program_arguments("loops", __doc__)
    parser.add_argument(
        "--share", type=int, default=0, help="which of `--shares` equal shares of the row groups to score"
    )
    parser.add_argument("--shares", type=int, default=1)
    args = parser.parse_args()
    args.result.mkdir(parents=True, exist_ok=True)
    groups = row_groups(args.rows, args.share, args.shares)
    score_row_groups(groups, open_session(args.model), args.result / f"share-{args.share}.parquet", args.call_rows)


if __name__ == "__main__":
    main()
