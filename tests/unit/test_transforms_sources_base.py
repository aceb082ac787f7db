"""Spans are as long as memory allows, and as short as threads and a model's pace ask."""

import pytest

from transforms.batches import Split
from transforms.sources.base import cut, shortened


@pytest.mark.parametrize(
    ("rows", "threads", "row_s", "expected"),
    [
        pytest.param(100_000_000, 4, None, 65_000, id="many rows: as long as they may"),
        pytest.param(1_000_000, 4, None, 15_000, id="each of 4 threads gets 16 at least"),
        pytest.param(1_000_000, 1, None, 62_000, id="as does one"),
        pytest.param(20_000, 4, None, 1000, id="few rows: a batch"),
        pytest.param(0, 4, None, 1000, id="none"),
        pytest.param(100_000_000, 4, 1e-7, 65_000, id="a fast model"),
        pytest.param(100_000_000, 4, 1e-3, 5000, id="5 s of one that scores 1,000 rows/s"),
        pytest.param(100_000_000, 4, 60.0, 1000, id="a batch of one that takes a minute for each row"),
        pytest.param(1_000_000, 4, 3e-4, 15_000, id="the shorter of both"),
        pytest.param(100_000_000, 4, 0.0, 65_000, id="too fast for the clock"),
    ],
)
def test_the_length_of_spans(rows: int, threads: int, row_s: float | None, expected: int) -> None:
    assert shortened(65_000, 1000, rows, threads, row_s) == expected


def test_no_span_is_longer_than_memory_allows() -> None:
    assert shortened(300, 300, 100_000_000, 1, 1e-9) == 300


def split(number: int, rows: int | None, span_rows: int) -> Split:
    return Split(f"{number:06d}", "input", 0, rows, span_rows, "")


def test_each_split_is_cut_and_otherwise_left_as_it_is() -> None:
    planned = [split(0, 700_000, 65_000), split(1, 300_000, 8000)]

    assert cut(planned, 1000, 4) == (split(0, 700_000, 15_000), split(1, 300_000, 8000))


def test_what_cannot_be_counted_is_not_cut() -> None:
    planned = (split(0, 700_000, 65_000), split(1, None, 65_000))

    assert cut(planned, 1000, 4, row_s=1.0) == planned


def test_an_input_without_rows_has_no_splits() -> None:
    assert cut([], 1000, 4) == ()
