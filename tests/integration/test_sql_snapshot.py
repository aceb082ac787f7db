"""Snapshots of queries to a real PostgreSQL; SQLite, which needs no server, has its tests among the unit tests."""

import json
import math
import re
import subprocess
import sys
import time
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from predictors.errors import SchemaMismatch
from predictors.feeding import check_features, feed
from tests.servers import Postgres
from transforms.connection import Connection, ConnectionRefused
from transforms.errors import InputError
from transforms.marks import POSTGRES_TYPE
from transforms.sources.reading import Session
from transforms.sources.snapshot import SnapshotSource
from transforms.sources.sql import count_rows, sample, snapshot


@pytest.fixture(scope="module")
def shared(postgres: Postgres) -> Connection:
    """A database that the tests only read."""
    return Connection(postgres.database())


def read(connection: Connection, query: str, folder: Path) -> pa.Table:
    source = snapshot(connection, query, folder, batch_size=1000)
    assert SnapshotSource.open(folder) == source
    names = source.schema.names
    rows = [batch.rows for split in source.plan(names, 1000) for batch in source.read(split, names)]
    return pa.Table.from_batches(rows, source.schema)


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        (["1", "2.25", "-3.125"], pa.decimal128(38, 3), [Decimal("1.000"), Decimal("2.250"), Decimal("-3.125")]),
        (["NULL", "-0.5"], pa.decimal128(38, 1), [None, Decimal("-0.5")]),
        (["NULL"], pa.decimal128(38, 0), [None]),
        (["-" + "9" * 38], pa.decimal128(38, 0), [Decimal("-" + "9" * 38)]),
        (["9" * 20 + "." + "1" * 18], pa.decimal128(38, 18), [Decimal("9" * 20 + "." + "1" * 18)]),
        (["1" * 39], pa.decimal256(76, 0), [Decimal("1" * 39)]),
        (
            ["1" + "0" * 30, "0.123456789"],
            pa.decimal256(76, 9),
            [Decimal("1" + "0" * 30 + "." + "0" * 9), Decimal("0.123456789")],
        ),
        (["-" + "9" * 70 + "." + "1" * 6], pa.decimal256(76, 6), [Decimal("-" + "9" * 70 + "." + "1" * 6)]),
        (["1" * 70, "0.1234567"], pa.string(), ["1" * 70, "0.1234567"]),
        (["9" * 131_072], pa.string(), ["9" * 131_072]),
        (["1", "'NaN'", "'Infinity'", "'-Infinity'"], pa.float64(), [1.0, math.nan, math.inf, -math.inf]),
        (["12345678901234567890", "'NaN'"], pa.string(), ["12345678901234567890", "NaN"]),
    ],
    ids=[
        "largest scale",
        "null first",
        "all null",
        "38 digits",
        "38 with scale",
        "39 digits",
        "38 are too few",
        "76 digits",
        "76 are too few",
        "131072 digits",
        "not finite",
        "not finite among many digits",
    ],
)
def test_a_numeric_without_scale_gets_the_one_that_its_digits_need(
    shared: Connection, tmp_path: Path, values: list[str], type_: pa.DataType, expected: list[Any]
) -> None:
    rows = ", ".join(f"({number}, {value}::numeric)" for number, value in enumerate(values))

    column = read(shared, f"SELECT x FROM (VALUES {rows}) v(i, x) ORDER BY i", tmp_path)["x"]
    assert column.type == type_
    assert str(column.to_pylist()) == str(expected)


def test_a_declared_numeric_that_holds_nan_is_a_float(shared: Connection, tmp_path: Path) -> None:
    value = "(CASE WHEN i = 100000 THEN 'NaN' ELSE i::numeric END)::numeric(10, 2)"
    query = f"SELECT {value} AS x FROM generate_series(1, 100000) i"

    column = read(shared, query, tmp_path)["x"]
    assert column.type == pa.float64()
    assert column[0].as_py() == 1.0
    assert math.isnan(column[99_999].as_py())
    assert [str(notice) for notice in sample(shared, "SELECT 'NaN'::numeric(10, 2) AS x", 1).notices] == [
        "input.query: column 'x' is read as double: it holds NaN or infinity, which no decimal can hold"
    ]


@pytest.mark.parametrize(
    ("type", "rows", "is_said"), [("numeric", 2, True), ("numeric", 4, False), ("numeric(5, 1)", 2, False)]
)
def test_a_sample_says_which_types_more_rows_may_change(
    shared: Connection, type: str, rows: int, is_said: bool
) -> None:
    query = f"SELECT (i / 2.0)::{type} AS x FROM generate_series(1, 3) i"

    said = [str(notice) for notice in sample(shared, query, rows).notices]
    words = "the type of 'x' is that of the first 2 rows here; a run looks at all of them"
    assert said == [f"input.query: NUMERIC without a scale: {words}"] * is_said


def test_a_numeric_that_only_text_can_hold_feeds_a_float_and_keeps_its_digits(
    shared: Connection, tmp_path: Path
) -> None:
    digits = ["12345678901234567890.25", "NaN", "-Infinity", "0.1", "1" + "0" * 400]
    rows = ", ".join(f"({n}, {text!r}::numeric)" for n, text in enumerate(digits))
    query = f"SELECT x, x AS y FROM (VALUES {rows}, (9, NULL)) v(i, x) ORDER BY i"
    source = snapshot(shared, query, tmp_path, 1000)
    model = pa.schema([("x", pa.float64())])
    check_features(source.schema, model)
    (split,) = source.plan(("x", "y"), 10)
    (batch,) = source.read(split, ("x", "y"))

    passed, rejected = feed(batch.rows, model, "pass"), feed(batch.rows, model, "reject")

    assert batch.rows["y"].to_pylist() == [*digits, None]
    assert str(passed.rows["x"].to_pylist()) == str([12345678901234567890.25, math.nan, -math.inf, 0.1, None])
    assert [(bad.row, bad.error) for bad in passed.bad] == [(4, "column x holds a number beyond double")]
    assert rejected.rows["x"].to_pylist() == [12345678901234567890.25, -math.inf, 0.1]
    assert [bad.row for bad in rejected.bad] == [1, 4, 5]
    with pytest.raises(SchemaMismatch, match="the model takes column 'x' as int64, but the input has string"):
        check_features(source.schema, pa.schema([("x", pa.int64())]))


def test_a_declared_numeric_has_its_type_whatever_it_holds(shared: Connection, tmp_path: Path) -> None:
    query = "SELECT 1::numeric(12, 4) AS x WHERE {}"

    assert read(shared, query.format("true"), tmp_path).schema == read(shared, query.format("false"), tmp_path).schema


@pytest.mark.parametrize("type_", ["date", "timestamp", "timestamptz"])
@pytest.mark.parametrize("value", ["infinity", "-infinity"])
def test_an_infinite_time_is_read_as_text_and_said(shared: Connection, tmp_path: Path, type_: str, value: str) -> None:
    query = f"SELECT {type_} '2024-05-01' AS x UNION ALL SELECT '{value}'"

    rows = read(shared, query, tmp_path / "read")
    (notice,) = snapshot(shared, query, tmp_path / "said", 10).notices

    assert rows.column("x").to_pylist()[1] == value
    assert rows.schema.field("x").metadata == {POSTGRES_TYPE: type_.encode()}
    assert notice.message.startswith("input.query: column 'x' is read as text: it holds infinity, 24:00 or another")


@pytest.mark.parametrize("value", ["4712-01-01 BC", "0001-01-01", "9999-12-31"])
def test_an_old_or_late_time_is_not_taken_for_infinite(shared: Connection, tmp_path: Path, value: str) -> None:
    assert read(shared, f"SELECT date '{value}' AS d, timestamp '{value}' AS t", tmp_path).num_rows == 1


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("time '24:00'", "24:00:00"),
        ("ARRAY[time '24:00']", "{24:00:00}"),
        ("'{2020-01-01,infinity}'::date[]", "{2020-01-01,infinity}"),
        ("'{{-infinity}}'::timestamptz[]", "{{-infinity}}"),
        ("'[0:0]={infinity}'::date[]", "[0:0]={infinity}"),
        ("timestamp '294276-12-31'", "294276-12-31 00:00:00"),
    ],
)
def test_a_column_with_a_time_that_arrow_has_not_is_read_as_text(
    shared: Connection, tmp_path: Path, sql: str, text: str
) -> None:
    assert read(shared, f"SELECT 1 AS a, {sql} AS x", tmp_path).column("x").to_pylist() == [text]


@pytest.mark.parametrize(
    ("rows", "type_", "expected"),
    [
        (["{{1,2},{3,4}}", "{{5,NULL}}", "{}", None], pa.list_(pa.list_(pa.float64())), ...),
        (["{}", "{{{1}},{{2}}}"], pa.list_(pa.list_(pa.list_(pa.float64()))), ...),
        ([None, "{{1,2},{3,4}}", "{5}"], pa.string(), ...),
        (["{5}", "{{1,2},{3,4}}"], pa.string(), ...),
        (["{{1}}", "{{{2}}}"], pa.string(), ...),
        (["{5}", "[0:1]={1,2}"], pa.string(), ...),
        (["{5}", "[-2:-1]={1,2.5}"], pa.string(), ...),
        (["[7:7]={1}", "{5,NULL}"], pa.string(), ...),
        (["[1:1][2:2]={{1}}"], pa.string(), ...),
    ],
    ids=[
        "two dimensions",
        "three dimensions",
        "two, then one",
        "one, then two",
        "two, then three",
        "from 0",
        "from -2",
        "from 7",
        "inner from 2",
    ],
)
def test_arrays_keep_their_dimensions_as_lists_or_as_text(
    shared: Connection, tmp_path: Path, rows: list[str | None], type_: pa.DataType, expected: Any
) -> None:
    values = ", ".join(f"({at}, {'NULL' if row is None else repr(row)}::float8[])" for at, row in enumerate(rows))
    query = f"SELECT i, m, ARRAY[i] AS other FROM (VALUES {values}) v(i, m) ORDER BY i"
    if pa.types.is_string(type_):
        expected = rows
    else:
        expected = [None if row is None else json.loads(row.translate(AS_JSON).replace("NULL", "null")) for row in rows]

    table = read(shared, query, tmp_path)
    assert table["m"].type == type_
    assert table["m"].to_pylist() == expected
    assert table["other"].to_pylist() == [[at] for at in range(len(rows))]
    assert table.schema.field("m").metadata == {POSTGRES_TYPE: b"double precision[]"}
    first = sample(shared, query, 10)
    assert first.rows.to_pydict() == table.to_pydict()
    assert [notice.code for notice in first.notices] == ["read_as"] * pa.types.is_string(type_)


AS_JSON = str.maketrans("{}", "[]")


def test_an_array_that_differs_late_is_found_and_all_rows_are_kept(shared: Connection, tmp_path: Path) -> None:
    query = """
        SELECT i, CASE WHEN i = 150000 THEN ARRAY[[i]] ELSE ARRAY[i] END AS m, ARRAY[[i, i]] AS n
        FROM generate_series(1, 150000) i ORDER BY i
    """

    table = read(shared, query, tmp_path)
    assert table.num_rows == 150_000
    assert table["m"][0].as_py() == "{1}"
    assert table["m"][149_999].as_py() == "{{150000}}"
    assert table["n"][149_999].as_py() == [[150_000, 150_000]]


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        ("ARRAY[[1.5, 2.25], [3, NULL]]", pa.list_(pa.list_(pa.decimal128(38, 2)))),
        ("ARRAY[12345678901234567890.5, 'NaN']", pa.list_(pa.string())),
        ("ARRAY[1.5, 'NaN']", pa.list_(pa.float64())),
        ("ARRAY[1e50]", pa.list_(pa.decimal256(76, 0))),
    ],
)
def test_numbers_in_arrays_keep_their_digits(
    shared: Connection, tmp_path: Path, value: str, type_: pa.DataType
) -> None:
    table = read(shared, f"SELECT {value}::numeric[] AS x, ({value}::numeric[])::text AS said", tmp_path)

    assert table["x"].type == type_
    found = str(table["x"][0].as_py()).replace("Decimal('", "").replace("')", "").replace("None", "NULL")
    numbers = re.findall(r"[\d.]+|NaN|NULL", found.replace("nan", "NaN"))
    said = re.findall(r"[\d.]+|NaN|NULL", table["said"][0].as_py())
    assert [n if n in ("NaN", "NULL") else Decimal(n) for n in numbers] == [
        n if n in ("NaN", "NULL") else Decimal(n) for n in said
    ]


def test_text_that_is_not_utf8_is_refused_by_the_columns_name(postgres: Postgres, tmp_path: Path) -> None:
    name = f"ascii_{uuid.uuid4().hex}"
    postgres.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    connection = Connection(postgres.uri.rpartition("/")[0] + "/" + name)
    query = "SELECT 1 AS a, {} AS x FROM (VALUES (convert_from('\\xe9', 'SQL_ASCII'))) v(t)"

    with pytest.raises(InputError, match=r"column 'x' holds text that is not UTF-8; .*convert_to\(x, 'SQL_ASCII'\)"):
        read(connection, query.format("t"), tmp_path)
    with pytest.raises(InputError, match="column 'x' holds text that is not UTF-8"):
        read(connection, query.format("ARRAY[t]"), tmp_path)
    assert read(connection, query.format("convert_to(t, 'SQL_ASCII')"), tmp_path)["x"].to_pylist() == [b"\xe9"]


def test_no_rows_are_a_snapshot_with_all_columns(shared: Connection, tmp_path: Path) -> None:
    table = read(shared, "SELECT 1 AS a, 'x'::text AS b, gen_random_uuid() AS c WHERE false", tmp_path)

    assert table.schema == pa.schema({"a": pa.int32(), "b": pa.string(), "c": pa.string()})
    assert table.num_rows == 0


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT i FROM generate_series(0, 9) i ORDER BY i DESC", list(range(9, -1, -1))),
        ("SELECT i FROM generate_series(0, 9) i ORDER BY i DESC LIMIT 3;", [9, 8, 7]),
        ("WITH x AS (SELECT 3 AS i) SELECT * FROM x -- one; row", [3]),
        ("VALUES (2), (1)", [2, 1]),
        ("SELECT 1 UNION SELECT 2 ORDER BY 1 DESC ; ;", [2, 1]),
    ],
)
def test_the_rows_come_as_the_query_orders_and_limits_them(
    shared: Connection, tmp_path: Path, query: str, rows: list[int]
) -> None:
    assert read(shared, query, tmp_path).column(0).to_pylist() == rows


def test_the_order_stays_where_the_server_has_to_cast(shared: Connection, tmp_path: Path) -> None:
    query = "SELECT i, md5(i::text)::uuid AS u FROM generate_series(1, 20000) i ORDER BY md5(i::text) DESC"

    table = read(shared, query, tmp_path)
    assert table["u"].to_pylist() == sorted(table["u"].to_pylist(), reverse=True)


def test_a_long_result_comes_whole(shared: Connection, tmp_path: Path) -> None:
    source = snapshot(shared, "SELECT i, i * 0.5 AS x FROM generate_series(1, 1200000) i", tmp_path, 1000)

    splits = list(source.plan(["i"], 1000))
    batches = [batch for split in splits for batch in source.read(split, ["i"])]
    assert [split.rows for split in splits] == [1_040_000, 160_000]
    assert {batch.span.rows for batch in batches if not batch.span.last} == {65_000}
    ids = pa.chunked_array([batch.rows["i"] for batch in batches])
    assert ids.equals(pa.chunked_array([pa.array(range(1, 1_200_001), pa.int32())]))


def test_all_statements_of_a_session_see_one_state(database: str, postgres: Postgres) -> None:
    postgres.execute("CREATE TABLE t AS SELECT 1 AS x", database)

    with Session(Connection(database)) as session:
        assert session.fetch("SELECT count(*) FROM t") == [(1,)]
        postgres.execute("INSERT INTO t VALUES (2)", database)
        assert session.fetch("SELECT count(*) FROM t") == [(1,)]


def test_a_query_cannot_write_by_a_detour(database: str, postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (x integer)", database)
    postgres.execute(
        "CREATE FUNCTION f() RETURNS integer LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING x'", database
    )

    with pytest.raises(InputError, match="cannot execute INSERT in a read-only transaction"):
        read(Connection(database), "SELECT f() AS x", tmp_path)
    assert postgres.execute("SELECT count(*) FROM t", database) == [(0,)]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT * FROM nothing", 'relation "nothing" does not exist'),
        ("SELECT nothing FROM (VALUES (1)) t(x)", 'column "nothing" does not exist'),
        ("SELECT 1 / (100000 - i) AS x FROM generate_series(1, 200000) i", "division by zero"),
        ("SELECT FROM generate_series(1, 3)", "input.query gives no columns; select at least one"),
        ("SELECT 1 AS a, 2 AS a", "input.query gives two columns named 'a'; rename one with AS"),
    ],
)
def test_a_query_that_fails_is_told_in_one_line_with_the_database(
    shared: Connection, tmp_path: Path, query: str, reason: str
) -> None:
    with pytest.raises(InputError) as refused:
        read(shared, query, tmp_path)

    prefix = "" if reason.startswith("input.query") else f"input.query at {shared.describe()}: "
    assert str(refused.value) == prefix + reason
    assert not list(tmp_path.iterdir())


def test_names_that_differ_in_case_are_two_names(shared: Connection, tmp_path: Path) -> None:
    table = read(shared, 'SELECT 1 AS a, gen_random_uuid() AS "A"', tmp_path)

    assert table.schema.names == ["a", "A"]


def test_no_right_to_read_is_told(postgres: Postgres, database: str, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE secrets (x integer)", database)

    with pytest.raises(InputError, match="permission denied for table secrets"):
        read(Connection(postgres.role(database)), "SELECT * FROM secrets", tmp_path)


def test_a_wrong_password_is_told_without_repeating_it(postgres: Postgres, database: str, tmp_path: Path) -> None:
    uri = postgres.role(database, password="right").replace(":right@", ":hunter2@")

    with pytest.raises(ConnectionRefused, match="password authentication failed") as refused:
        snapshot(Connection(uri), "SELECT 1", tmp_path, 1000)
    assert "hunter2" not in str(refused.value)


def test_a_session_whose_types_the_driver_does_not_know_is_refused_with_the_remedy(postgres: Postgres) -> None:
    uri = postgres.role(postgres.database())
    role = uri.partition("//")[2].partition("@")[0]
    postgres.execute(f"ALTER ROLE {role} SET quote_all_identifiers = on")

    with pytest.raises(ConnectionRefused, match=r"ALTER ROLE .* SET quote_all_identifiers = off") as refused:
        sample(Connection(uri), "SELECT 'a' AS x", 1)

    remedy = str(refused.value).partition("append ")[2].partition(" ")[0]
    assert sample(Connection(f"{uri}?{remedy}"), "SELECT 'a' AS x", 1).rows["x"].to_pylist() == ["a"]


def test_a_result_that_the_disk_cannot_hold_is_refused_before_it_is_read(shared: Connection, tmp_path: Path) -> None:
    query = "SELECT i, repeat('x', 100) AS s FROM generate_series(1, 1000000000000) i"

    with pytest.raises(InputError) as refused:
        snapshot(shared, query, tmp_path, 1000)
    assert "about 38,146,973 MiB (1,000,000,000,000 rows)" in str(refused.value)
    assert f"but {tmp_path} has " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_progress_has_an_estimate_and_ends_with_the_truth(shared: Connection, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []

    snapshot(
        shared,
        "SELECT i FROM generate_series(1, 200000) i WHERE i % 2 = 0",
        tmp_path,
        1000,
        lambda rows, total: told.append((rows, total)),
    )
    estimate = told[0][1]
    assert told == [(0, estimate), (65_000, estimate), (100_000, 100_000)]
    assert estimate is not None
    assert estimate < 100_000


# Reads, in a process of its own, what the server takes ten minutes for.
READ_LONG = """
import sys
from transforms.connection import Connection
from transforms.sources.reading import Session
with Session(Connection(sys.argv[1])) as session:
    session.fetch("SELECT pg_sleep(600)::text")
"""


def test_the_server_gives_a_query_up_when_the_process_that_asked_is_gone(database: str, postgres: Postgres) -> None:
    asks = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND state = 'active'"
    here = f"{asks} AND datname = current_database() AND pid <> pg_backend_pid()"

    def await_count(count: int) -> None:
        deadline = time.monotonic() + 60
        while postgres.execute(here, database) != [(count,)]:
            assert time.monotonic() < deadline, f"waited in vain for {count} queries"

    process = subprocess.Popen([sys.executable, "-c", READ_LONG, database], cwd=Path(__file__).parents[2])
    await_count(1)
    process.kill()
    process.wait()

    await_count(0)


def test_a_sample_is_typed_like_the_snapshot(shared: Connection, tmp_path: Path) -> None:
    query = "SELECT i, i / 4.0 AS n, md5('x')::uuid AS u FROM generate_series(1, 100000) i ORDER BY i"

    table = sample(shared, query, 4).rows
    assert table.num_rows == 4
    assert table["n"].type == pa.decimal128(38, 20)
    assert table.schema == read(shared, query, tmp_path).schema


def test_rows_are_counted(shared: Connection) -> None:
    assert count_rows(shared, "SELECT i, i FROM generate_series(1, 1000) i LIMIT 999; -- most") == 999


@pytest.mark.parametrize("call", [sample, count_rows])
def test_only_a_select_is_sampled_or_counted(shared: Connection, call: Any) -> None:
    arguments = [3] if call is sample else []

    with pytest.raises(InputError, match="holds 2 statements"):
        call(shared, "SELECT 1; SELECT 2", *arguments)
