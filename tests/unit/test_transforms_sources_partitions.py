"""Columns that folders say: as which types they are read, and that the files' own columns stand back."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.errors import InputError
from transforms.sources.parquet import ParquetSource
from transforms.sources.partitions import partition_of

NULL = "__HIVE_DEFAULT_PARTITION__"


def write(folder: Path, *names: str, **columns: Any) -> Path:
    """A file of a row or more in each of the folders."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        pq.write_table(pa.table({"id": [number], **columns}), folder / name / "part-0")
    return folder


def opened(*paths: Path, declared: Mapping[str, pa.DataType] | None = None) -> ParquetSource:
    return ParquetSource.open([str(path) for path in paths], None, declared)


def values(source: ParquetSource, *columns: str) -> list[Any]:
    """What is read of the columns, in the order of `id`; looking rows up comes to the same."""
    names = (*columns, "id")
    rows = []
    for split in source.plan(names, 2):
        read = [row for batch in source.read(split, names) for row in batch.rows.to_pylist()]
        assert read == source.lookup(split, range(split.rows or 0), names).to_pylist()
        rows += read
    found = [list(row.values())[:-1] for row in sorted(rows, key=lambda row: row["id"])]
    return [value for (value,) in found] if len(columns) == 1 else found


@pytest.mark.parametrize(
    ("folders", "type", "wanted"),
    [
        pytest.param(["n=1", "n=-20", f"n={NULL}"], pa.int64(), [1, -20, None], id="integers"),
        pytest.param(["n=01234", "n=7"], pa.string(), ["01234", "7"], id="zeros in front"),
        pytest.param(["n=1", "n=1.5"], pa.string(), ["1", "1.5"], id="a fraction among them"),
        pytest.param(["n=9223372036854775808"], pa.string(), ["9223372036854775808"], id="beyond int64"),
        pytest.param(["n=+1", "n=-0"], pa.string(), ["+1", "-0"], id="signs"),
        pytest.param(["n=1_000"], pa.string(), ["1_000"], id="what only Python takes"),
        pytest.param(["n="], pa.string(), [""], id="empty"),
        pytest.param([f"n={NULL}"], pa.string(), [None], id="null alone"),
        pytest.param(["n=2025-01-01"], pa.string(), ["2025-01-01"], id="dates"),
        pytest.param(["n=a%2Fb%3Dc", "n=x=y", "n=50%"], pa.string(), ["a/b=c", "x=y", "50%"], id="escapes"),
        pytest.param(["n=K%C3%B6ln", "n=Köln", "n=K%F6ln"], pa.string(), ["Köln"] * 3, id="escapes of bytes"),
    ],
)
def test_a_column_of_folders_is_integers_only_where_each_value_is_one(
    tmp_path: Path, folders: list[str], type: pa.DataType, wanted: list[Any]
) -> None:
    source = opened(write(tmp_path / "in", *folders))

    assert source.schema == pa.schema([("id", pa.int64()), ("n", type)])
    assert values(source, "n") == wanted
    assert source.notices == ()


@pytest.mark.parametrize(
    ("folder", "type", "wanted"),
    [
        ("n=2025-01-01", pa.date32(), datetime.date(2025, 1, 1)),
        ("n=2025-01-01 10%3A00%3A00", pa.timestamp("us"), datetime.datetime(2025, 1, 1, 10)),
        ("n=2025-01-01 10%3A00%3A00", pa.timestamp("s", "UTC"), datetime.datetime(2025, 1, 1, 10, tzinfo=datetime.UTC)),
        (
            "n=2025-01-01 10%3A00%3A00",
            pa.timestamp("s", "Europe/Berlin"),
            datetime.datetime(2025, 1, 1, 9, tzinfo=datetime.UTC),
        ),
        ("n=0.25", pa.float32(), 0.25),
        ("n=7", pa.string(), "7"),
        ("n=01234", pa.int32(), 1234),
        ("n=true", pa.bool_(), True),
        ("n=a", pa.dictionary(pa.int32(), pa.string()), "a"),
    ],
)
def test_a_declared_type_is_that_of_a_folders_column(
    tmp_path: Path, folder: str, type: pa.DataType, wanted: Any
) -> None:
    source = opened(write(tmp_path / "in", folder, f"n={NULL}"), declared={"n": type})

    assert source.schema.field("n").type == type
    assert values(source, "n") == [wanted, None]


@pytest.mark.parametrize(
    ("said", "type"),
    [
        pytest.param("16777217", pa.float32(), id="more digits than a float"),
        pytest.param("0.1234567890123456789", pa.float64(), id="more digits than a double"),
        pytest.param("2025-03-30 02%3A30%3A00", pa.timestamp("s", "Europe/Berlin"), id="an hour that was left out"),
        pytest.param("2025-10-26 02%3A30%3A00", pa.timestamp("s", "Europe/Berlin"), id="an hour that came twice"),
    ],
)
def test_a_value_that_the_declared_type_does_not_hold_exactly_is_refused(
    tmp_path: Path, said: str, type: pa.DataType
) -> None:
    with pytest.raises(InputError, match=r"its folder says .* of column 'n'.*give input\.schema another type"):
        opened(write(tmp_path / "in", f"n={said}"), declared={"n": type})


def test_a_value_that_is_not_of_the_declared_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"n=x/part-0: its folder says 'x' of column 'n', which is no int64"):
        opened(write(tmp_path / "in", "n=1", "n=x"), declared={"n": pa.int64()})


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param(["day=1", "day=2"], id="a list of folders"),
        pytest.param(["day=*"], id="a pattern of folders"),
        pytest.param(["day=*/"], id="with a slash behind it"),
        pytest.param(["*/*"], id="a pattern of files"),
        pytest.param(["day=1/part-0", "day=2/part-0"], id="files"),
    ],
)
def test_folders_say_their_columns_however_they_are_named(tmp_path: Path, paths: list[str]) -> None:
    write(tmp_path, "day=1", "day=2")

    assert values(opened(*(tmp_path / path for path in paths)), "day") == [1, 2]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("a=1/b=2/part-0", {"a": "1", "b": "2"}),
        ("a=1/sub/part-0", {"a": "1"}),
        ("/data/tenant=t/in/a=1/part-0", {"a": "1"}),
        ("in/x=y.parquet", {}),
        ("=1/part-0", {}),
    ],
)
def test_columns_are_those_of_the_lowest_run_of_folders(file: str, said: dict[str, str]) -> None:
    assert partition_of(file) == said


def test_a_column_may_begin_with_an_underscore_though_such_folders_are_hidden(tmp_path: Path) -> None:
    write(tmp_path / "in", "_year=2025", "_year=2026")
    write(tmp_path / "in" / "_temporary", "0")

    assert values(opened(tmp_path / "in"), "_year") == [2025, 2026]


@pytest.mark.parametrize(
    ("own", "folders", "count"),
    [
        pytest.param(["1", "1"], ["day=1"], 0, id="the same"),
        pytest.param([1, 1], ["day=01"], 0, id="the same number"),
        pytest.param([datetime.date(2025, 1, 1)] * 2, ["day=2025-01-01"], 0, id="the same date"),
        pytest.param(["1", "2"], ["day=1"], 1, id="another value"),
        pytest.param(["1", None], ["day=1"], 1, id="a null"),
        pytest.param(["1", "1"], ["day=1", "day=2"], 1, id="in one of two files"),
    ],
)
def test_the_folder_wins_over_a_column_of_the_file_and_it_is_said_where_they_differ(
    tmp_path: Path, own: list[Any], folders: list[str], count: int
) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"day": own, "id": [1, 2]}), tmp_path / folder / "part-0")
    source = opened(tmp_path)

    assert source.schema.names == ["day", "id"]
    assert {str(value) for value in values(source, "day")} == {folder.partition("=")[2] for folder in folders}
    assert [(notice.code, notice.count) for notice in source.notices] == [("partition_differs", count)] * bool(count)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ["day=1", "hour=1"],
            r"hour=1/part-0 lies in folders of the columns 'hour', but \S*day=1/part-0 in folders of",
        ),
        (["day=1", "x"], r"x/part-0 lies in folders of no column, but \S*day=1/part-0 in folders of the columns 'day'"),
        (["day=1/day=2"], r"day=1/day=2/part-0: two of its folders say the column 'day'"),
    ],
    ids=["other columns", "none", "one twice"],
)
def test_folders_that_do_not_go_together_are_refused(tmp_path: Path, folders: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(write(tmp_path / "in", *folders))
