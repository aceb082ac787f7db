import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.connection import Connection, ConnectionRefused
from transforms.errors import InputError
from transforms.sources.reading import Session
from transforms.sources.snapshot import SnapshotSource
from transforms.sources.sql import count_rows, sample, snapshot

Database = Callable[..., Connection]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """Makes a database by running statements; a pair of statement and rows runs it for each row."""

    def make(*statements: str | tuple[str, list[tuple[Any, ...]]]) -> Connection:
        with sqlite3.connect(tmp_path / "a.db") as made:
            for statement in statements:
                if isinstance(statement, str):
                    made.execute(statement)
                else:
                    made.executemany(*statement)
        made.close()
        return Connection(f"sqlite:///{tmp_path}/a.db")

    return make


def read(connection: Connection, query: str, folder: Path) -> pa.Table:
    source = snapshot(connection, query, folder / "snapshot", batch_size=1000)
    names = source.schema.names
    rows = [batch.rows for split in source.plan(names, 1000) for batch in source.read(split, names)]
    return pa.Table.from_batches(rows, source.schema)


INTEGERS = [(1,), (2**63 - 1,), (-(2**63),), (2**53 + 1,)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (INTEGERS, pa.array([value for (value,) in INTEGERS], pa.int64())),
        ([(1,), (2.5,)], pa.array([1.0, 2.5])),
        ([(None,), (2.5,), (1,)], pa.array([None, 2.5, 1.0])),
        ([(1,), ("a",), (None,)], pa.array(["1", "a", None])),
        ([(10000001.5,), ("é\0z",)], pa.array(["10000001.5", "é\0z"])),
        ([(b"\0\xff",), (None,)], pa.array([b"\0\xff", None])),
        ([("a",), (b"\xff",)], pa.array([b"a", b"\xff"])),
        ([(math.inf,), (1.0,)], pa.array([math.inf, 1.0])),
        ([(2**53,), (0.5,), (-(2**53),)], pa.array([2.0**53, 0.5, -(2.0**53)])),
        ([(2**53 + 1,), (0.1 + 0.2,), (None,)], pa.array(["9007199254740993", "0.30000000000000004", None])),
        ([(-(2**63),), (1e300,)], pa.array(["-9223372036854775808", "1.0e+300"])),
        ([(-0.0,), (0.0,), ("a",), (None,)], pa.array(["-0.0", "0.0", "a", None])),
        ([(2**63 - 1,), (0.1 + 0.2,), ("a",)], pa.array(["9223372036854775807", "0.30000000000000004", "a"])),
    ],
    ids=[
        "integers",
        "integer and real",
        "real late",
        "number and text",
        "real and text",
        "blob",
        "text and blob",
        "inf",
        "integers that a float keeps",
        "an integer that a float does not keep",
        "the least integer and a real",
        "zeros and text",
        "all kinds of numbers and text",
    ],
)
def test_a_columns_type_follows_from_all_of_its_values(
    database: Database, tmp_path: Path, values: list[tuple[Any]], expected: pa.Array
) -> None:
    connection = database("CREATE TABLE t (x)", ("INSERT INTO t VALUES (?)", values))

    assert read(connection, "SELECT x FROM t", tmp_path) == pa.table({"x": expected})


@pytest.mark.parametrize("late", [2.5, "text", b"blob", 7], ids=["real", "text", "blob", "integer"])
def test_a_value_behind_many_nulls_still_counts(database: Database, tmp_path: Path, late: Any) -> None:
    connection = database("CREATE TABLE t (x)", ("INSERT INTO t VALUES (?)", [(None,)] * 70_000 + [(late,)]))

    column = read(connection, "SELECT x FROM t", tmp_path)["x"]
    assert column[70_000].as_py() == late
    assert column.null_count == 70_000


@pytest.mark.parametrize("late", [2.5, "text"], ids=["real", "text"])
def test_a_value_of_another_type_behind_many_integers_still_counts(
    database: Database, tmp_path: Path, late: Any
) -> None:
    connection = database("CREATE TABLE t (x)", ("INSERT INTO t VALUES (?)", [(7,)] * 70_000 + [(late,)]))

    column = read(connection, "SELECT x FROM t", tmp_path)["x"]
    assert column[70_000].as_py() == late
    assert column[0].as_py() == type(late)(7)


DECLARED = {
    "INTEGER": pa.int64(),
    "BIGINT": pa.int64(),
    "BOOLEAN": pa.int64(),
    "REAL": pa.float64(),
    "DOUBLE PRECISION": pa.float64(),
    "DECIMAL(10, 2)": pa.float64(),
    "NUMERIC": pa.float64(),
    "TEXT": pa.string(),
    "VARCHAR(10)": pa.string(),
    "DATE": pa.string(),
    "TIMESTAMP": pa.string(),
    "BLOB": pa.binary(),
}


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("declared", DECLARED)
def test_a_column_without_values_goes_by_its_declaration(
    database: Database, tmp_path: Path, declared: str, rows: int
) -> None:
    connection = database(f"CREATE TABLE t (x {declared})", ("INSERT INTO t VALUES (?)", [(None,)] * rows))

    table = read(connection, "SELECT x AS y FROM (SELECT * FROM t)", tmp_path)
    assert table == pa.table({"y": pa.nulls(rows, DECLARED[declared])})


def test_an_expression_without_values_is_a_number(database: Database, tmp_path: Path) -> None:
    connection = database("CREATE TABLE t (x INTEGER)")

    assert read(connection, "SELECT x * 2 AS y FROM t", tmp_path).schema == pa.schema({"y": pa.float64()})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([(1,), ("a",)], "read as text: it holds text among its numbers; for numbers write CAST(x AS REAL)"),
        ([(2**60,), (0.5,)], "read as text: beside reals it holds integers beyond 2^53"),
        ([(b"a",), ("a",)], "read as binary: it holds blobs among its text"),
        ([(1,), (0.5,), (None,)], None),
    ],
)
def test_a_type_that_a_person_may_not_expect_is_said(
    database: Database, tmp_path: Path, values: list[tuple[Any]], said: str | None
) -> None:
    connection = database("CREATE TABLE t (x, y)", ("INSERT INTO t (x) VALUES (?)", values))
    read = snapshot(connection, "SELECT x, y FROM t", tmp_path / "s", 1000)

    assert [notice.code for notice in read.notices] == ["read_as"] * (said is not None)
    assert all(f"input.query: column 'x' is {said}" in str(notice) for notice in read.notices)
    assert sample(connection, "SELECT x, y FROM t", 1).notices == read.notices


def test_blobs_mixed_with_numbers_are_refused(database: Database, tmp_path: Path) -> None:
    connection = database("CREATE TABLE t (x)", ("INSERT INTO t VALUES (?)", [(b"a",), (1,)]))

    with pytest.raises(InputError, match="column 'x' holds blobs and numbers"):
        read(connection, "SELECT x FROM t", tmp_path)


def test_text_that_is_not_utf8_is_refused(database: Database, tmp_path: Path) -> None:
    connection = database("CREATE TABLE t (x TEXT)", "INSERT INTO t VALUES (CAST(x'ff' AS TEXT))")

    with pytest.raises(InputError, match="column 'x' holds text that is not UTF-8"):
        read(connection, "SELECT x FROM t", tmp_path)


@pytest.mark.parametrize(
    ("query", "name"),
    [("SELECT 1 AS a, 2 AS a", "a"), ("SELECT 1 AS a, 2 AS A", "A"), ("SELECT 1 AS b, * FROM t, t AS u", "a")],
)
def test_a_name_that_is_there_twice_is_refused(database: Database, tmp_path: Path, query: str, name: str) -> None:
    connection = database("CREATE TABLE t (a INTEGER)")

    with pytest.raises(InputError, match=f"two columns named '{name}'; rename one with AS"):
        read(connection, query, tmp_path)


@pytest.mark.parametrize("name", ['a "b"', "größe", "a b", "select", "a'b", "[x]", "count(*)", "a:b", "c0", "é;--"])
def test_odd_names_are_kept(database: Database, tmp_path: Path, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    connection = database(f"CREATE TABLE t ({quoted} INTEGER)", "INSERT INTO t VALUES (1)")

    assert read(connection, "SELECT * FROM t", tmp_path).to_pydict() == {name: [1]}


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT i FROM t ORDER BY i DESC", list(range(9, -1, -1))),
        ("SELECT i FROM t ORDER BY i DESC LIMIT 3", [9, 8, 7]),
        ("SELECT i FROM t ORDER BY i LIMIT 2 OFFSET 4;", [4, 5]),
        ("WITH x AS (SELECT i FROM t) SELECT i FROM x ORDER BY -i -- backwards", list(range(9, -1, -1))),
        ("SELECT 3 AS i UNION SELECT 9 ORDER BY 1 DESC", [9, 3]),
        ("VALUES (1), (5), (3)", [1, 5, 3]),
        ("SELECT i FROM t WHERE i > 100", []),
    ],
)
def test_the_rows_come_as_the_query_orders_and_limits_them(
    database: Database, tmp_path: Path, query: str, rows: list[int]
) -> None:
    connection = database("CREATE TABLE t (i INTEGER)", ("INSERT INTO t VALUES (?)", [(i,) for i in range(10)]))

    assert read(connection, query, tmp_path).column(0).to_pylist() == rows


def test_two_thousand_columns_are_read(database: Database, tmp_path: Path) -> None:
    connection = database("CREATE TABLE t (i INTEGER)", "INSERT INTO t VALUES (7)")
    columns = ", ".join(f"i + {number} AS x{number}" for number in range(1_900))

    table = read(connection, f"SELECT {columns} FROM t", tmp_path)
    assert table.num_columns == 1_900
    assert table["x1899"].to_pylist() == [7 + 1899]


VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.binary(max_size=5),
)


def expected_type(values: list[Any]) -> pa.DataType | None:
    kinds = {type(value) for value in values if value is not None}
    if bytes in kinds:
        return None if kinds & {int, float} else pa.binary()
    if str in kinds:
        return pa.string()
    if kinds == {int, float} and any(isinstance(value, int) and abs(value) > 2**53 for value in values):
        return pa.string()
    return pa.int64() if kinds == {int} else pa.float64()


def same(read: Any, written: Any, type_: pa.DataType) -> bool:
    if written is None or read is None:
        return read is written
    if pa.types.is_string(type_) and isinstance(written, float):
        return repr(float(read)) == repr(written)
    if pa.types.is_string(type_):
        return bool(read == str(written))
    if pa.types.is_binary(type_) and isinstance(written, str):
        return bool(read == written.encode())
    return bool(read == (float(written) if pa.types.is_float64(type_) else written))


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(VALUES, VALUES), max_size=8), nulls=st.integers(0, 3))
def test_any_values_come_back_under_one_type_per_column(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, Any]], nulls: int
) -> None:
    folder = tmp_path_factory.mktemp("sqlite")
    rows = [(None, None)] * nulls + rows
    made = sqlite3.connect(folder / "a.db")
    made.execute("CREATE TABLE t (x, y)")
    made.executemany("INSERT INTO t VALUES (?, ?)", rows)
    made.commit()
    made.close()
    connection = Connection(f"sqlite:///{folder}/a.db")
    columns = [[row[number] for row in rows] for number in range(2)]
    types = [expected_type(column) for column in columns]

    if None in types:
        with pytest.raises(InputError, match="blobs and numbers"):
            read(connection, "SELECT x, y, 1 AS z FROM t", folder)
        return
    table = read(connection, "SELECT x, y, 1 AS z FROM t", folder)

    for name, column, type_ in zip("xy", columns, types, strict=True):
        assert type_ is not None
        # Declared without a type is declared BLOB, to SQLite.
        assert table.schema.field(name).type == (type_ if any(v is not None for v in column) else pa.binary())
        assert all(map(same, table[name].to_pylist(), column, [table.schema.field(name).type] * len(column)))


def test_a_sample_is_typed_like_the_whole(database: Database) -> None:
    connection = database("CREATE TABLE t (x)", ("INSERT INTO t VALUES (?)", [(None,), (1,), (2,), (2.5,)]))

    table = sample(connection, "SELECT x FROM t", 2).rows
    assert table == pa.table({"x": pa.array([None, 1.0])})


def test_rows_are_counted(database: Database) -> None:
    connection = database("CREATE TABLE t (x)", ("INSERT INTO t VALUES (?)", [(1,)] * 5))

    assert count_rows(connection, "SELECT x, x FROM t LIMIT 4; -- most") == 4


def test_progress_knows_the_total_from_the_start(database: Database, tmp_path: Path) -> None:
    connection = database("CREATE TABLE t (x)", ("INSERT INTO t VALUES (?)", [(1,)] * 70_000))
    told: list[tuple[int, int | None]] = []

    snapshot(connection, "SELECT x FROM t", tmp_path / "s", 1000, lambda rows, total: told.append((rows, total)))
    assert told == [(0, 70_000), (65_000, 70_000), (70_000, 70_000)]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT * FROM absent", "no such table: absent"),
        ("SELECT absent FROM t", "no such column: absent"),
        ("SELECT json_extract(x, '$') FROM t", "malformed JSON"),
        ("SELECT x FROM t WHERE", "incomplete input"),
    ],
)
def test_a_query_that_fails_is_told_in_one_line_with_the_database(
    database: Database, tmp_path: Path, query: str, reason: str
) -> None:
    rows = [("{}",)] * 70_000 + [("no json",)]
    connection = database("CREATE TABLE t (x)", ("INSERT INTO t VALUES (?)", rows))

    with pytest.raises(InputError) as refused:
        read(connection, query, tmp_path)
    assert str(refused.value) == f"input.query at sqlite:///{tmp_path}/a.db: {reason}"
    with pytest.raises(InputError, match="holds no complete snapshot"):
        SnapshotSource.open(tmp_path / "snapshot")


def test_a_missing_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectionRefused, match=r"there is no file .*missing\.db"):
        snapshot(Connection(f"sqlite:///{tmp_path}/missing.db"), "SELECT 1", tmp_path / "s", 1000)


def test_the_database_is_left_as_it_was(database: Database, tmp_path: Path) -> None:
    connection = database("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
    before = (tmp_path / "a.db").read_bytes()

    read(connection, "SELECT x FROM t", tmp_path)
    assert (tmp_path / "a.db").read_bytes() == before


def test_all_statements_of_a_session_see_one_state(database: Database) -> None:
    connection = database("PRAGMA journal_mode = wal", "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")

    with Session(connection) as session:
        assert session.fetch("SELECT count(*) FROM t") == [(1,)]
        with connection.open(autocommit=True) as other, other.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES (2)")
        assert session.fetch("SELECT count(*) FROM t") == [(1,)]
    assert count_rows(connection, "SELECT * FROM t") == 2


def test_a_writer_that_has_not_committed_does_not_hold_the_snapshot_up(database: Database, tmp_path: Path) -> None:
    connection = database("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")

    with connection.open() as other, other.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (2)")
        assert read(connection, "SELECT x FROM t", tmp_path)["x"].to_pylist() == [1]
