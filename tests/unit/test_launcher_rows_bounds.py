"""How large pages get."""

from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.rows.bounds import bounded, rows_at_a_time


def batch_of(sizes: list[int]) -> pa.RecordBatch:
    return pa.record_batch({"text": pa.array(["x" * size for size in sizes], pa.string())})


SIZES = st.lists(st.lists(st.integers(0, 300), max_size=20), max_size=8)


@given(batches=SIZES, limit=st.integers(1, 60), most_bytes=st.integers(50, 3000))
def test_a_page_is_the_first_rows_within_both_bounds(batches: list[list[int]], limit: int, most_bytes: int) -> None:
    taken, goes_on = bounded([batch_of(sizes) for sizes in batches], limit, most_bytes)

    lengths = [len(text) for batch in taken for text in batch["text"].to_pylist()]
    offered = [size for sizes in batches for size in sizes]
    assert lengths == offered[: len(lengths)]
    assert len(lengths) <= limit
    assert len(lengths) == 1 or sum(batch.nbytes for batch in taken) <= most_bytes
    assert bool(lengths) == bool(offered)
    assert goes_on == (len(lengths) < len(offered))


def test_nothing_is_read_behind_the_page() -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield batch_of([1, 2])
        yield batch_of([3, 4])
        raise AssertionError("read too far")

    taken, goes_on = bounded(batches(), 3)

    assert [batch.num_rows for batch in taken] == [2, 1]
    assert goes_on


@pytest.mark.parametrize(
    ("rows", "size", "together"),
    [(1_000_000, 8_000_000, 16_384), (1000, 1000 * 1024 * 1024, 4), (10, 10**12, 1), (0, 0, 16_384)],
)
def test_large_rows_are_decoded_few_at_a_time(rows: int, size: int, together: int) -> None:
    assert rows_at_a_time(rows, size, 16_384) == together
