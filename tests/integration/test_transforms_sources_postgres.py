"""Each type of a real PostgreSQL: what it is read as, with its extremes, and under which name of its own."""

import datetime as dt
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.servers import Postgres
from transforms.connection import Connection
from transforms.marks import POSTGRES_TYPE
from transforms.sources.snapshot import SnapshotSource
from transforms.sources.sql import snapshot

UTC = dt.UTC
TEXT, TEXTS = pa.string(), pa.list_(pa.string())
UUID = "5ec6a741-4740-4669-adb6-de4824b00288"
MADE = [
    "CREATE EXTENSION citext",
    "CREATE EXTENSION hstore",
    "CREATE EXTENSION ltree",
    "CREATE EXTENSION cube",
    "CREATE EXTENSION isn",
    "CREATE TYPE mood AS ENUM ('calm', 'glad')",
    "CREATE TYPE pair AS (x integer, y text)",
    "CREATE TYPE floats AS RANGE (subtype = float8)",
    "CREATE DOMAIN age AS integer CHECK (VALUE > 0)",
    "CREATE DOMAIN cash AS numeric(10, 2)",
    "CREATE DOMAIN more_cash AS cash",
    "CREATE DOMAIN ints AS integer[]",
    "CREATE DOMAIN key AS uuid",
    "CREATE DOMAIN bits AS bit(3)",
]
# What sessions may have set, and no value may depend on.
SET = {
    "intervalstyle": "sql_standard",
    "datestyle": "'German, DMY'",
    "extra_float_digits": "-10",
    "timezone": "'Asia/Tokyo'",
}

# SQL, the Arrow type, the value, and the name of the type where the Arrow type does not say it.
Case = tuple[str, pa.DataType, Any, str | None]
NUMBERS: list[Case] = [
    ("'-32768'::smallint", pa.int16(), -32768, None),
    ("'-2147483648'::integer", pa.int32(), -(2**31), None),
    ("9223372036854775807", pa.int64(), 2**63 - 1, None),
    ("'1e-45'::real", pa.float32(), 1.401298464324817e-45, None),
    ("'-0'::real", pa.float32(), -0.0, None),
    ("'NaN'::real", pa.float32(), math.nan, None),
    ("'5e-324'::float8", pa.float64(), 5e-324, None),
    ("'-0'::float8", pa.float64(), -0.0, None),
    ("'-Infinity'::float8", pa.float64(), -math.inf, None),
    ("0.1::float8 + 0.2::float8", pa.float64(), 0.30000000000000004, None),
    ("true", pa.bool_(), True, None),
    ("1.50::numeric(10, 2)", pa.decimal128(10, 2), Decimal("1.50"), "numeric(10,2)"),
    ("1.50::numeric", pa.decimal128(38, 2), Decimal("1.50"), "numeric"),
    ("NULL::numeric(10, 2)", pa.decimal128(10, 2), None, "numeric(10,2)"),
    ("12345::numeric(3, -2)", pa.decimal128(5, 0), Decimal(12300), "numeric(3,-2)"),
    ("0.00012::numeric(2, 5)", pa.decimal128(5, 5), Decimal("0.00012"), "numeric(2,5)"),
    ("repeat('9', 76)::numeric(76)", pa.decimal256(76, 0), Decimal("9" * 76), "numeric(76,0)"),
    ("repeat('9', 77)::numeric(100, 0)", TEXT, "9" * 77, "numeric(100,0)"),
    ("'NaN'::numeric(20, 2)", TEXT, "NaN", "numeric(20,2)"),
    ("5::cash", pa.decimal128(10, 2), Decimal("5.00"), "numeric(10,2)"),
    ("5::more_cash", pa.decimal128(10, 2), Decimal("5.00"), "numeric(10,2)"),
    ("5::age", pa.int32(), 5, None),
    ("'-92233720368547758.08'::money", pa.decimal128(38, 2), Decimal("-92233720368547758.08"), "money"),
    ("4294967295::oid", pa.int64(), 2**32 - 1, "oid"),
    ("'18446744073709551615'::xid8", TEXT, "18446744073709551615", "xid8"),
    ("'4294967295'::xid", TEXT, "4294967295", "xid"),
    ("'16/B374D848'::pg_lsn", TEXT, "16/B374D848", "pg_lsn"),
    ("'pg_class'::regclass", TEXT, "pg_class", "regclass"),
]
TEXTUAL: list[Case] = [
    ("'é'::text", TEXT, "é", None),
    ("''::text", TEXT, "", None),
    ("'x'::varchar(3)", TEXT, "x", None),
    ("'ab'::char(5)", TEXT, "ab   ", None),
    ("'é'::name", TEXT, "é", None),
    ("'a'::\"char\"", TEXT, "a", '"char"'),
    ("''::\"char\"", TEXT, "", '"char"'),
    ("'é'::\"char\"", TEXT, "\\303", '"char"'),
    ("'AbC'::citext", TEXT, "AbC", "citext"),
    ("'\\x00ff'::bytea", pa.binary(), b"\0\xff", None),
    (f"'{UUID}'::uuid", TEXT, UUID, "uuid"),
    (f"'{UUID}'::key", TEXT, UUID, "uuid"),
    ("'{\"a\":  1}'::json", TEXT, '{"a":  1}', "json"),
    ("'{\"a\":  1}'::jsonb", TEXT, '{"a": 1}', "jsonb"),
    ("'<a/>'::xml", TEXT, "<a/>", "xml"),
    ("'glad'::mood", TEXT, "glad", "mood"),
    ("(1, 'a b')::pair", TEXT, '(1,"a b")', "pair"),
    ("row(1, NULL::text)", TEXT, "(1,)", None),
    ("NULL", TEXT, None, None),
    ("'fat cat'::tsvector", TEXT, "'cat' 'fat'", "tsvector"),
    ("'fat & cat'::tsquery", TEXT, "'fat' & 'cat'", "tsquery"),
    ("'a=>1'::hstore", TEXT, '"a"=>"1"', "hstore"),
    ("'a.b.c'::ltree", TEXT, "a.b.c", "ltree"),
    ("'9780306406157'::isbn13", TEXT, "978-0-306-40615-7", "isbn13"),
    ("'$.a'::jsonpath", TEXT, '$."a"', "jsonpath"),
    ("B'101'::bit(3)", TEXT, "101", '"bit"'),
    ("B'101'::bits", TEXT, "101", "bit(3)"),
    ("B'101'::varbit(5)", TEXT, "101", "bit varying"),
    ("'1.2.3.4/24'::inet", TEXT, "1.2.3.4/24", "inet"),
    ("'1.2.3.0/24'::cidr", TEXT, "1.2.3.0/24", "cidr"),
    ("'08:00:2b:01:02:03'::macaddr", TEXT, "08:00:2b:01:02:03", "macaddr"),
    ("point(0.1 + 0.2::float8, 2)", TEXT, "(0.30000000000000004,2)", "point"),
    ("'<(1,2),3>'::circle", TEXT, "<(1,2),3>", "circle"),
    ("'((1,2),(3,4))'::polygon", TEXT, "((1,2),(3,4))", "polygon"),
    ("'1,2'::cube", TEXT, "(1, 2)", "cube"),
    ("int4range(1, 3)", TEXT, "[1,3)", "int4range"),
    ("'[2020-02-01,infinity)'::daterange", TEXT, "[2020-02-01,infinity)", "daterange"),
    ("floats(0.1 + 0.2::float8, NULL)", TEXT, "[0.30000000000000004,)", "floats"),
    ("'{[1,3),[5,7)}'::int4multirange", TEXT, "{[1,3),[5,7)}", "int4multirange"),
    ("'1 2'::int2vector", TEXT, "1 2", "int2vector"),
    ("'1 2'::oidvector", TEXT, "1 2", "oidvector"),
    ("pg_sleep(0)", TEXT, "", None),
]
FIRST_DAY = pa.scalar(-2_440_550, pa.int32()).cast(pa.date32())
LAST_DAY = pa.scalar(2_145_042_905, pa.int32()).cast(pa.date32())
TIMES: list[Case] = [
    ("date '2026-02-28'", pa.date32(), dt.date(2026, 2, 28), None),
    ("date '5874897-12-31'", pa.date32(), LAST_DAY, None),
    ("date '4713-01-01 BC'", pa.date32(), FIRST_DAY, None),
    ("timestamp '9999-12-31 23:59:59.999999'", pa.timestamp("us"), dt.datetime.max, None),
    ("timestamp '294246-01-01'", pa.timestamp("us"), pa.scalar(9_223_339_708_800_000_000, pa.timestamp("us")), None),
    ("timestamptz '2262-05-01 10:00+02'", pa.timestamp("us", "UTC"), dt.datetime(2262, 5, 1, 8, tzinfo=UTC), None),
    ("time '23:59:59.999999'", pa.time64("us"), dt.time(23, 59, 59, 999_999), None),
    ("timetz '24:00+15:59'", TEXT, "24:00:00+15:59", "time with time zone"),
    ("interval '1 mon -3 days 0.000001 s'", TEXT, "1 mon -3 days +00:00:00.000001", "interval"),
    ("interval '178000000 years'", TEXT, "178000000 years", "interval"),
]
ARRAYS: list[Case] = [
    ("ARRAY[1, NULL]", pa.list_(pa.int32()), [1, None], None),
    ("'{}'::smallint[]", pa.list_(pa.int16()), [], None),
    ("NULL::bigint[]", pa.list_(pa.int64()), None, None),
    ("'{1.5,NaN}'::real[]", pa.list_(pa.float32()), [1.5, math.nan], None),
    ("'{t,f}'::boolean[]", pa.list_(pa.bool_()), [True, False], None),
    ("'{a,NULL,\"b c\"}'::text[]", TEXTS, ["a", None, "b c"], None),
    ("'{AbC}'::name[]", TEXTS, ["AbC"], None),
    ("'{\"\\\\x00ff\"}'::bytea[]", pa.list_(pa.binary()), [b"\0\xff"], None),
    ("'{2020-01-01}'::date[]", pa.list_(pa.date32()), [dt.date(2020, 1, 1)], None),
    ("ARRAY[5::age]", pa.list_(pa.int32()), [5], None),
    ("'{1,2}'::ints", pa.list_(pa.int32()), [1, 2], None),
    ("ARRAY['{1,2}'::ints]", TEXT, '{"{1,2}"}', "ints[]"),
    ("'{1.50}'::numeric(10, 2)[]", pa.list_(pa.decimal128(38, 2)), [Decimal("1.50")], "numeric[]"),
    ("'{1.5}'::money[]", pa.list_(pa.decimal128(38, 2)), [Decimal("1.50")], "money[]"),
    ("'{4294967295}'::oid[]", pa.list_(pa.int64()), [2**32 - 1], "oid[]"),
    ("'{AbC}'::citext[]", TEXTS, ["AbC"], "citext[]"),
    (f"ARRAY['{UUID}'::uuid]", TEXTS, [UUID], "uuid[]"),
    ("ARRAY['{\"a\":1}'::json]", TEXTS, ['{"a":1}'], "json[]"),
    ("'{glad,NULL}'::mood[]", TEXTS, ["glad", None], "mood[]"),
    ("ARRAY[(1, 'a')::pair]", TEXTS, ["(1,a)"], "pair[]"),
    ("ARRAY[row(1, 2)]", TEXT, '{"(1,2)"}', None),
    ("ARRAY[interval '1 day -1 s']", TEXTS, ["1 day -00:00:01"], "interval[]"),
    ("ARRAY[int4range(1, 2)]", TEXTS, ["[1,2)"], "int4range[]"),
    ("ARRAY['1.2.3.4'::inet]", TEXTS, ["1.2.3.4/32"], "inet[]"),
    ("'{{a},{b}}'::text[]", pa.list_(TEXTS), [["a"], ["b"]], "text[]"),
    ("'[0:1]={0.1,2}'::float8[]", TEXT, "[0:1]={0.1,2}", "double precision[]"),
]
CASES = [*NUMBERS, *TEXTUAL, *TIMES, *ARRAYS]


@pytest.fixture(scope="module")
def read(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """All values as one row, read from a snapshot that was opened again."""
    uri = postgres.database()
    for statement in MADE:
        postgres.execute(statement, uri)
    for name, value in SET.items():
        postgres.execute(f"ALTER DATABASE {uri.rpartition('/')[2]} SET {name} = {value}")
    folder = tmp_path_factory.mktemp("types") / "s"
    columns = ", ".join(f"{sql} AS c{number}" for number, (sql, *_) in enumerate(CASES))
    snapshot(Connection(uri), f"SELECT {columns}", folder, batch_size=1000)
    source = SnapshotSource.open(folder)
    names = source.schema.names
    rows = [batch.rows for split in source.plan(names, 1000) for batch in source.read(split, names)]
    return pa.Table.from_batches(rows)


@pytest.mark.parametrize(
    ("number", "type_", "value", "named"),
    [(number, *case[1:]) for number, case in enumerate(CASES)],
    ids=[sql for sql, *_ in CASES],
)
def test_every_type_arrives_as_what_it_is(
    read: pa.Table, number: int, type_: pa.DataType, value: Any, named: str | None
) -> None:
    field, found = read.schema.field(number), read.column(number)[0]

    assert field.type == type_
    assert (field.metadata or {}).get(POSTGRES_TYPE) == (None if named is None else named.encode())
    if isinstance(value, pa.Scalar):
        assert found == value
    else:
        # As text NaN is itself, and -0.0 is not 0.0.
        assert repr(found.as_py()) == repr(value) or found.as_py() == value != 0


def test_every_type_can_be_written_and_read_again(read: pa.Table, tmp_path: Path) -> None:
    pq.write_table(read, tmp_path / "out.parquet")

    written = pq.read_table(tmp_path / "out.parquet")
    assert list(map(str, written.columns)) == list(map(str, read.columns))
