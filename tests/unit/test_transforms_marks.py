from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.marks import POSTGRES_TYPE, marked
from transforms.sinks.parquet import write_parquet


def test_only_marks_of_our_own_are_kept() -> None:
    field = pa.field("x", pa.string(), metadata={POSTGRES_TYPE: "uuid", "made": "by pandas"})

    assert marked(field).metadata == {POSTGRES_TYPE: b"uuid"}
    assert marked(pa.field("x", pa.string(), metadata={"made": "by pandas"})).metadata is None


def test_marks_are_not_written_into_files(tmp_path: Path) -> None:
    fields = [pa.field("x", pa.string(), metadata={POSTGRES_TYPE: "uuid"}), pa.field("y", pa.int64())]
    table = pa.table([["a"], [1]], schema=pa.schema(fields))
    write_parquet(tmp_path / "a.parquet", table)

    written = pq.read_table(tmp_path / "a.parquet")
    assert written.equals(table)
    assert b"penstock" not in (tmp_path / "a.parquet").read_bytes()
