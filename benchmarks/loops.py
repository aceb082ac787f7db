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
    groups: list[tuple[Path, int]], session: ort.InferenceSession, result: Path, call_rows: int, hold: bool
) -> None:
    """Score `groups` one after the other into the one file `result`.

    Args:
        hold: keep the chunks of a row group and write them as one, which takes half the time and the memory for it;
            else each chunk is written as it comes.
    """
    with pq.ParquetWriter(result, SCORED_SCHEMA) as writer:
        for file, group in groups:
            chunks = pq.ParquetFile(file).iter_batches(
                batch_size=CHUNK_ROWS, row_groups=[group], columns=[ID_COLUMN, *FEATURES]
            )
            scored = (score_batch(session, chunk, call_rows) for chunk in chunks)
            if hold:
                table = pa.Table.from_batches(list(scored))
                writer.write_table(table, row_group_size=len(table))
            else:
                for batch in scored:
                    writer.write_batch(batch)


def main() -> None:
    """Run one loop over its share of the input."""
    parser = program_arguments("loops", __doc__)
    parser.add_argument(
        "--share", type=int, default=0, help="which of `--shares` equal shares of the row groups to score"
    )
    parser.add_argument("--shares", type=int, default=1)
    parser.add_argument("--hold", action="store_true", help="write a row group of the input as one, not chunk by chunk")
    args = parser.parse_args()
    args.result.mkdir(parents=True, exist_ok=True)
    groups = row_groups(args.rows, args.share, args.shares)
    result = args.result / f"share-{args.share}.parquet"
    score_row_groups(groups, open_session(args.model), result, args.call_rows, args.hold)


if __name__ == "__main__":
    main()
