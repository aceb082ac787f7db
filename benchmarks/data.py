"""The rows that the benchmarks score, made once, and the sums by which every program's result is checked."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.churn import score_with_numpy, write_onnx
from benchmarks.folders import bench_folder, model_file
from benchmarks.models import FEATURES, ID_COLUMN, SCORE_COLUMN

MI = 1 << 20  # the benchmarks count rows in Mi, so that row groups are whole and two loops get equal halves
ROW_GROUP_ROWS = MI
FILE_ROW_GROUPS = 4
SEED = 7
ROWS_SCHEMA = pa.schema([(ID_COLUMN, pa.int64()), *((name, pa.float32()) for name in FEATURES)])
# A prime, so that a score given to the wrong one of two neighbours, or of two files, shifts the sum.
PAIRING_MODULUS = 1009
# Sums of float32 scores, added up in different orders by different kernels, agree to about 1e-7.
SCORE_TOLERANCE = 1e-5


class WrongResult(Exception):
    """A program's result is not the scores of its input."""


@dataclass(frozen=True)
class Checksum:
    """What a result is checked by: no row lost, doubled or made up, and each score at its own id."""

    rows: int
    id_sum: int  # modulo 2**64
    id_square_sum: int  # modulo 2**64
    score_sum: float
    paired_sum: float  # of score * (id modulo PAIRING_MODULUS)

    def agrees_with(self, other: "Checksum") -> bool:
        """Whether ids agree exactly and scores within `SCORE_TOLERANCE`."""
        return (self.rows, self.id_sum, self.id_square_sum) == (other.rows, other.id_sum, other.id_square_sum) and bool(
            np.allclose(
                (self.score_sum, self.paired_sum), (other.score_sum, other.paired_sum), rtol=SCORE_TOLERANCE, atol=0
            )
        )


def checksum(chunks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Checksum:
    """Add up chunks of int64 ids and float scores."""
    rows = id_sum = id_square_sum = 0
    score_sum = paired_sum = 0.0
    for ids, scores in chunks:
        unsigned = ids.astype(np.uint64)
        rows += len(ids)
        id_sum += int(unsigned.sum())
        id_square_sum += int((unsigned * unsigned).sum())
        exact = scores.astype(np.float64)
        score_sum += float(exact.sum())
        paired_sum += float(exact @ (ids % PAIRING_MODULUS))
    return Checksum(rows, id_sum % 2**64, id_square_sum % 2**64, score_sum, paired_sum)


def checksum_of_batches(batches: Iterable[pa.RecordBatch]) -> Checksum:
    """Add up the columns `customer_id` and `score`, neither with nulls."""
    return checksum((batch[ID_COLUMN].to_numpy(), batch[SCORE_COLUMN].to_numpy()) for batch in batches)


def checksum_of_parquet(folder: Path) -> Checksum:
    """Add up `customer_id` and `score` of all Parquet files in `folder`, which must hold these two columns alone."""

    def batches() -> Iterator[pa.RecordBatch]:
        for path in sorted(folder.glob("*.parquet")):
            file = pq.ParquetFile(path)
            if file.schema_arrow.names != [ID_COLUMN, SCORE_COLUMN]:
                raise WrongResult(f"{path} holds the columns {file.schema_arrow.names}")
            yield from file.iter_batches(batch_size=MI)

    return checksum_of_batches(batches())


@dataclass(frozen=True)
class DataSet:
    """`rows` customers in Parquet files; of each Mi, `bad_rows_per_mi` have a negative monthly charge.

    A larger set begins with the rows of a smaller one; a set with bad rows differs from the one without in those only.
    """

    rows: int
    bad_rows_per_mi: int = 0

    @property
    def folder(self) -> Path:
        """Where the Parquet files lie."""
        name = f"rows-{self.rows}" + (f"-bad-{self.bad_rows_per_mi}" if self.bad_rows_per_mi else "")
        return bench_folder() / "data" / name

    @property
    def files(self) -> str:
        """The Parquet files as a glob."""
        return str(self.folder / "*.parquet")

    @property
    def bad_rows(self) -> int:
        """How many rows of the set `Picky` refuses."""
        return self.rows - self.reference().rows

    def make(self) -> None:
        """Write the files, and the model with them, unless they are there."""
        if not model_file().exists():
            write_onnx(model_file())
        if self._reference_file.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        reference = checksum(self._write())
        print(f"\rmade {self.folder}" + 20 * " ", flush=True)
        self._reference_file.write_text(json.dumps(asdict(reference), indent=1))

    def reference(self) -> Checksum:
        """What a right result adds up to, bad rows left out; the scores come from NumPy, not from ONNX Runtime."""
        return Checksum(**json.loads(self._reference_file.read_text()))

    def warm(self) -> None:
        """Read the files once, so that the first program does not pay for the disk."""
        for file in self.folder.iterdir():
            file.read_bytes()

    @property
    def _reference_file(self) -> Path:
        return self.folder.with_suffix(".json")

    def _write(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Write the files, yielding the ids and expected scores of each row group as it is written."""
        starts = range(0, self.rows, ROW_GROUP_ROWS)
        for first in range(0, len(starts), FILE_ROW_GROUPS):
            file = self.folder / f"part-{first // FILE_ROW_GROUPS:04}.parquet"
            with pq.ParquetWriter(file, ROWS_SCHEMA) as writer:
                for start in starts[first : first + FILE_ROW_GROUPS]:
                    print(f"\rmaking {self.folder}: {start / self.rows:4.0%}", end="", flush=True)
                    ids = np.arange(start, min(start + ROW_GROUP_ROWS, self.rows))
                    features = _customers(first_id=start, rows=len(ids))
                    bad = _bad_positions(first_id=start, rows=len(ids), per_mi=self.bad_rows_per_mi)
                    features[bad, FEATURES.index("monthly_charges")] *= -1
                    writer.write_table(pa.table([ids, *features.T], schema=ROWS_SCHEMA), row_group_size=ROW_GROUP_ROWS)
                    good = np.delete(np.arange(len(ids)), bad)
                    yield ids[good], score_with_numpy(features[good])


def _customers(first_id: int, rows: int) -> np.ndarray:
    """Months with us, dollars per month in whole cents, and dollars in all: float32 [rows, 3]."""
    rng = np.random.default_rng([SEED, first_id])
    # Drawn for a whole row group and then cut, so that a smaller set has the same first rows.
    tenure = rng.integers(0, 72, ROW_GROUP_ROWS, endpoint=True)[:rows]
    monthly_charges = rng.uniform(18, 120, ROW_GROUP_ROWS)[:rows].round(2)
    discounts = rng.normal(1, 0.05, ROW_GROUP_ROWS)[:rows]
    total_charges = (tenure * monthly_charges * discounts).round(2)
    return np.column_stack([tenure, monthly_charges, total_charges]).astype(np.float32)


def _bad_positions(first_id: int, rows: int, per_mi: int) -> np.ndarray:
    """Which rows of a row group are bad: spread at random, the same ones each time."""
    return np.random.default_rng([SEED + 1, first_id]).choice(rows, rows * per_mi // MI, replace=False)
