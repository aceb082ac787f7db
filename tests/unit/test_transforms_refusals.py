"""Rows that a destination refuses are found in few attempts, whichever they are and however it names them."""

import math
import random
from collections.abc import Callable

import pyarrow as pa
import pytest

from tests.contract.sinks import SCHEMA, rows_of, split_of
from transforms.batches import Rejected, ScoredSpan, Span
from transforms.errors import RefusedRow
from transforms.refusals import Failure, refusals, refused_rows, without_refused


class Table:
    """Takes ranges of rows that hold no bad one; tells as much as it is made to."""

    def __init__(self, bad: set[int], names: Callable[[int], int | None]) -> None:
        self.bad, self.names, self.attempts = bad, names, 0

    def __call__(self, start: int, stop: int) -> Failure | None:
        self.attempts += 1
        found = min((row for row in self.bad if start <= row < stop), default=None)
        return None if found is None else Failure(f"row {found}", self.names(found - start))


NAMES = {
    "tells nothing": lambda row: None,
    "names the row": lambda row: row,
    "names another": lambda row: row + 3,
    "names none of them": lambda row: 10**9,
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize("seed", range(5))
def test_exactly_the_bad_rows_are_found(names: Callable[[int], int | None], seed: int) -> None:
    draw = random.Random(seed)
    rows = draw.randint(1, 300)
    bad = set(draw.sample(range(rows), draw.randint(0, min(rows, 12))))
    table = Table(bad, names)

    found = list(refusals(table, rows))

    assert found == [(row, f"row {row}") for row in sorted(bad)]
    assert table.attempts <= len(bad) * (math.ceil(math.log2(rows)) + 3) + 1 + 3 * len(bad)


def test_a_row_that_is_named_takes_four_attempts() -> None:
    table = Table({700, 40_000}, lambda row: row)

    assert [row for row, _ in refusals(table, 65_536)] == [700, 40_000]
    assert table.attempts <= 2 * 4 + 1


def test_a_failure_of_no_single_row_names_none() -> None:
    assert list(refusals(lambda start, stop: Failure("too many at once") if stop - start > 1 else None, 50)) == []


def test_past_a_cap_the_rest_is_rejected_under_a_name_of_its_own() -> None:
    table = Table(set(range(0, 1000, 2)), lambda row: row)

    found = refused_rows(table, span=4, rows=1000)

    assert [row.row for row in found] == [*range(0, 64, 2), *range(64, 1000)]
    assert {row.span for row in found} == {4}
    assert [row.error_type for row in found] == ["RefusedByDestination"] * 32 + ["NotWritten"] * 936
    assert found[-1].reason == "not written, as 32 rows of its span were refused; the last of them: row 62"


class Lookup:
    """A source in which the row at `offset` has the id `offset`."""

    schema = pa.schema([("id", pa.int64()), ("note", pa.string())])

    def lookup(self, split: object, rows: list[int], columns: list[str]) -> pa.RecordBatch:
        """Rows by their offsets."""
        made = pa.record_batch([pa.array(rows, pa.int64()), pa.array(map(str, rows))], schema=self.schema)
        return made.select(columns)


@pytest.mark.parametrize("with_skipped", [False, True], ids=["dense", "skipped"])
@pytest.mark.parametrize("with_rejected", [False, True], ids=["all scored", "some rejected"])
def test_refused_rows_are_rejected_in_their_place(with_skipped: bool, with_rejected: bool) -> None:
    at = [offset for offset in range(10) if not (with_skipped and offset == 4) and not (with_rejected and offset == 3)]
    rejected = Rejected(
        pa.record_batch({"id": [103]}), pa.array([3], pa.int32()), pa.array(["ValueError"]), pa.array(["bad"])
    )
    scored = ScoredSpan(
        Span(split_of(0, 200, 10), 100, 110, False),
        rows_of(0, 10).take(pa.array(at)),
        rejected if with_rejected else None,
        skipped=int(with_skipped),
        at=pa.array(at, pa.int32()) if with_skipped else None,
    )
    refused = [RefusedRow(1, at.index(offset), "RefusedByDestination", f"row {offset}") for offset in (8, 1)]

    untouched, made = without_refused([scored, scored], refused, Lookup())  # type: ignore[arg-type]

    assert untouched is scored
    assert made.rejected is not None
    assert made.rejected.at.to_pylist() == [1, 3, 8] if with_rejected else [1, 8]
    assert made.rejected.rows["id"].to_pylist() == [100 + offset for offset in made.rejected.at.to_pylist()]
    assert made.rejected.error.to_pylist()[:: len(made.rejected.error) - 1] == ["row 1", "row 8"]
    assert made.offsets().to_pylist() == [offset for offset in at if offset not in (1, 8)]
    assert made.rows.schema == SCHEMA
    assert made.rows.num_rows + made.rejected_rows + made.skipped == 10
