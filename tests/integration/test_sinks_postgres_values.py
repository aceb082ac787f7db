"""What becomes of values in a PostgreSQL table."""

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from tests.contract.sinks import manifest_of
from tests.tables import execute, postgres_sink, refusal, span_with, write
from transforms.errors import RowsRefused

NIL = "00000000-0000-0000-0000-000000000000"
UUIDS = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16)))
NOT_UTF8 = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ab", b"\xff"]).buffers())
NOT_UTF8_INSIDE = pa.StructArray.from_arrays([NOT_UTF8], ["a"])
JSON = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1, "a":2}']))


class TestValues:
    @pytest.mark.parametrize(
        ("column", "type", "text"),
        [
            (pa.array([-3], pa.int8()), "smallint", "-3"),
            (pa.array([65535], pa.uint16()), "integer", "65535"),
            (pa.array([2**32 - 1], pa.uint32()), "bigint", "4294967295"),
            (pa.array([2**64 - 1], pa.uint64()), "numeric(20,0)", "18446744073709551615"),
            (pa.array([1.5], pa.float16()), "real", "1.5"),
            (pa.array([float("nan")], pa.float32()), "real", "NaN"),
            (pa.array([0.1]), "double precision", "0.1"),
            (pa.array([True]), "boolean", "true"),
            (pa.array([Decimal("-12.50")], pa.decimal128(9, 2)), "numeric(9,2)", "-12.50"),
            (pa.array([Decimal("1.25")], pa.decimal32(5, 2)), "numeric(5,2)", "1.25"),
            (pa.array([Decimal("9" * 60)], pa.decimal256(60, 0)), "numeric(60,0)", "9" * 60),
            (pa.array(["Zürich"]).dictionary_encode(), "text", "Zürich"),
            (pa.array(["Zürich"], pa.large_string()), "text", "Zürich"),
            (pa.array(["Zürich"], pa.string_view()), "text", "Zürich"),
            (pa.array([b"\x00\xff"]), "bytea", "\\x00ff"),
            (pa.array([b"\x00\xff"], pa.binary(2)), "bytea", "\\x00ff"),
            (pa.array([dt.date(1969, 7, 20)]), "date", "1969-07-20"),
            (pa.array([dt.date(1969, 7, 20)], pa.date64()), "date", "1969-07-20"),
            (pa.array([dt.time(1, 2, 3, 4)]), "time without time zone", "01:02:03.000004"),
            (pa.array([1], pa.timestamp("ns")), "timestamp without time zone", "1970-01-01 00:00:00"),
            (pa.array([1], pa.timestamp("s")), "timestamp without time zone", "1970-01-01 00:00:01"),
            (
                pa.array([dt.datetime(2024, 7, 1, 12)], pa.timestamp("ms", "Europe/Paris")),
                "timestamp with time zone",
                "2024-07-01 12:00:00+00",
            ),
            (pa.array([dt.timedelta(hours=1, microseconds=5)]), "interval", "01:00:00.000005"),
            (pa.nulls(1), "text", None),
            (pa.array([[1, None], None]), "bigint[]", "{1,NULL}"),
            (pa.array([[0.5, 1.5]], pa.list_(pa.float32(), 2)), "real[]", "{0.5,1.5}"),
            (pa.array([["a b", "c"]], pa.large_list(pa.string())), "text[]", '{"a b",c}'),
            (pa.array([[1, None], None], pa.list_view(pa.int64())), "bigint[]", "{1,NULL}"),
            (pa.array([[[1, 2], [3]]]), "jsonb", "[[1, 2], [3]]"),
            (UUIDS, "uuid", "30303030-3030-3030-3030-303030303030"),
            (JSON, "json", '{"a":1, "a":2}'),
            (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([2], pa.int8())), "boolean", "true"),
            (
                pa.array([{"i": 2**62 + 1, "d": Decimal("123456789012345678.10"), "n": None, "b": b"\x00"}]),
                "jsonb",
                '{"b": "AA==", "d": 123456789012345678.10, "i": 4611686018427387905, "n": null}',
            ),
            (
                pa.array([[{"at": dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)}]]),
                "jsonb",
                '[{"at": "2024-05-01T12:00:00.000000Z"}]',
            ),
            (pa.array([[("k", 1), ('"', None)]], pa.map_(pa.string(), pa.int64())), "jsonb", '{"\\"": null, "k": 1}'),
            (pa.array([[(1, 2)]], pa.map_(pa.int64(), pa.int64())), "jsonb", '[{"key": 1, "value": 2}]'),
            (pa.array([{"f": float("nan")}]), "jsonb", '{"f": "NaN"}'),
            (
                pa.array([(14, 3, 1000)], pa.month_day_nano_interval()),
                "interval",
                "1 year 2 mons 3 days 00:00:00.000001",
            ),
        ],
        ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
    )
    def test_a_new_table_has_the_type_that_fits(
        self, schema: str, column: pa.Array, type: str, text: str | None
    ) -> None:
        write(postgres_sink(schema), pa.record_batch({"x": column}))

        found = execute(schema, "SET TimeZone = 'UTC'", "SELECT pg_typeof(x)::text, x::text FROM scores LIMIT 1")
        (typed,) = execute(
            schema,
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 'scores'::regclass AND attnum = 1",
        )
        assert found[0][1] == text
        assert typed == (type,)

    @pytest.mark.parametrize(
        ("column", "type", "text"),
        [
            (pa.array([7]), "smallint", "7"),
            (pa.array([7], pa.int32()), "double precision", "7"),
            (pa.array([7]), "numeric(5,2)", "7.00"),
            (pa.array([0.125]), "real", "0.125"),
            (pa.array([0.126], pa.float64()), "numeric(5,2)", "0.13"),
            (pa.array([Decimal("1.25")]), "double precision", "1.25"),
            (pa.array(["abc"]), "varchar(3)", "abc"),
            (pa.array(["abc"]), "char(5)", "abc"),
            (pa.array(['{"a": 1}']), "jsonb", '{"a": 1}'),
            (pa.array(['{"a":1}']), "json", '{"a":1}'),
            (pa.array(["00000000-0000-0000-0000-000000000001"]), "uuid", "00000000-0000-0000-0000-000000000001"),
            (pa.array(["10.0.0.0/8"]), "cidr", "10.0.0.0/8"),
            (pa.array(["stay"]), "verdict", "stay"),
            (pa.array([5]), "positive", "5"),
            (pa.array([dt.date(2024, 1, 1)]), "timestamp", "2024-01-01 00:00:00"),
            (pa.array([[1.5]], pa.list_(pa.float64())), "real[]", "{1.5}"),
            (pa.nulls(1), "uuid", None),
            (pa.nulls(1), "integer[]", None),
            (UUIDS, "uuid", "30303030-3030-3030-3030-303030303030"),
            (pa.array([b"0" * 16], pa.binary(16)), "uuid", "30303030-3030-3030-3030-303030303030"),
            (UUIDS, "text", "30303030-3030-3030-3030-303030303030"),
            (JSON, "jsonb", '{"a": 2}'),
            (pa.array([{"a": 1}]), "json", '{"a": 1}'),
            (pa.array([{"a": 1}]), "jsonb", '{"a": 1}'),
            (pa.array(["1 day 2 hours"]), "interval", "1 day 02:00:00"),
            (pa.array(["[1,5)"]), "int4range", "[1,5)"),
            (pa.array(["{stay,leave}"]), "verdict[]", "{stay,leave}"),
            (pa.array([["stay"]]), "verdict[]", "{stay}"),
            (pa.array([["00000000-0000-0000-0000-000000000001"]]), "uuid[]", "{00000000-0000-0000-0000-000000000001}"),
            (pa.array([["abc"]]), "varchar(3)[]", "{abc}"),
            (pa.array([[1.5]]), "numeric(5,2)[]", "{1.50}"),
            (pa.array([[[1, 2], [3, 4]]]), "bigint[]", "{{1,2},{3,4}}"),
            (pa.array(["101"]), "bit(3)", "101"),
            (pa.array(["(1,2)"]), "point", "(1,2)"),
            (pa.array([7]), "tiny", "7"),
            (pa.array([0.1]), "numeric", "0.1"),
            (pa.array([0.1234567890123456]), "numeric", "0.1234567890123456"),
            (pa.array([float("nan")]), "numeric(5,2)", "NaN"),
            (pa.array([2**63], pa.uint64()), "numeric(20,0)", "9223372036854775808"),
            (pa.array([2**60]), "double precision", "1.152921504606847e+18"),
            (pa.array(["abc"]).dictionary_encode(), "verdict_text", "abc"),
            (pa.array([Decimal("7")], pa.decimal128(38, 0)), "bigint", "7"),
            (pa.array([Decimal("7")], pa.decimal256(60, 0)), "smallint", "7"),
            (pa.array([Decimal("1234.5")]), "money", "$1,234.50"),
            (pa.array([[Decimal("1234.5")]]), "money[]", '{"$1,234.50"}'),
            (pa.array([2**32 - 1]), "oid", "4294967295"),
            (pa.array([[7]]), "oid[]", "{7}"),
            (pa.array([[5, None]]), "positive[]", "{5,NULL}"),
            (
                pa.array([[[10**18]]], pa.list_(pa.list_(pa.timestamp("us")))),
                "timestamp[]",
                '{{"33658-09-27 01:46:40"}}',
            ),
            (
                pa.array([[[10**18]]], pa.list_(pa.list_(pa.timestamp("us", "Europe/Paris")))),
                "timestamptz[]",
                '{{"33658-09-27 01:46:40+00"}}',
            ),
            (pa.array([["abc"]]), "verdict_text[]", "{abc}"),
        ],
        ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
    )
    def test_an_existing_table_is_filled_under_its_own_types(
        self, schema: str, column: pa.Array, type: str, text: str | None
    ) -> None:
        execute(
            schema,
            "CREATE TYPE verdict AS ENUM ('leave', 'stay')",
            "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
            "CREATE DOMAIN tiny AS positive CHECK (VALUE < 10)",
            "CREATE DOMAIN verdict_text AS varchar(3)",
            f"CREATE TABLE scores (x {type})",
        )

        write(postgres_sink(schema), pa.record_batch({"x": column}))

        assert execute(schema, "SET TimeZone = 'UTC'", "SELECT x::text FROM scores") == [(text,)]

    @pytest.mark.parametrize(
        ("column", "type", "said"),
        [
            (pa.array([1, 2**31]), "integer", "column x: 2147483648 is out of range for integer"),
            (pa.array([1, 2**64 - 1], pa.uint64()), "bigint", "18446744073709551615 is out of range for bigint"),
            (pa.array([1, 2**53 + 1]), "double precision", "9007199254740993 has more digits than double precision"),
            (pa.array([1, 1e300]), "real", "column x: 1e+300 is out of range for real"),
            (pa.array([1, 1e-300]), "real", "column x: 1e-300 is out of range for real"),
            (pa.array(["abc", "abc "]), "varchar(3)", "column x: 4 characters are too long for character varying(3)"),
            (pa.array(["abc", "abcd"]), "char(3)", "column x: value too long for type character(3)"),
            (pa.array(["ab", "a\0b"]), "text", "column x: a zero byte"),
            (NOT_UTF8, "text", "column x: invalid byte sequence"),
            (NOT_UTF8, "varchar(3)", "column x: invalid byte sequence"),
            (NOT_UTF8_INSIDE, "jsonb", "column x: invalid byte sequence"),
            (pa.array([["ab"], ["a\0b"]]), "text[]", "column x: invalid byte sequence"),
            (pa.array([1, 0]), "positive", "column x: value for domain positive violates check constraint"),
            (pa.array([1, None]), "integer NOT NULL", "column x is NOT NULL in the table"),
            (pa.array([1, 1000]), "numeric(5,2)", "column x: numeric field overflow"),
            (pa.array([1, 0]), "integer CHECK (x > 0)", 'violates check constraint "scores_x_check"'),
            (pa.array(["stay", "go"]), "verdict", 'column x: invalid input value for enum verdict: "go"'),
            (pa.array([NIL, "zz"]), "uuid", 'column x: invalid input syntax for type uuid: "zz"'),
            (pa.array([[NIL], ["zz"]]), "uuid[]", 'invalid input syntax for type uuid: "zz"'),
            (pa.array(["{}", "{"]), "jsonb", "column x: invalid input syntax for type json"),
            (pa.array(["{}", '"\\u0000"']), "jsonb", "column x: unsupported Unicode escape sequence"),
            (pa.array(["[1,2)", "[2,1)"]), "int4range", "column x: range lower bound must be less than"),
            (pa.array(["101", "1011"]), "bit(3)", "bit string length 4 does not match type bit(3)"),
            (pa.array([0, 2**62], pa.timestamp("s")), "timestamp", "column x: the value is out of range for timestamp"),
            (pa.array([0, -(2**31)], pa.int32()).cast(pa.date32()), "date", "column x: date out of range"),
            (
                pa.array([[("a", 1)], [("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64())),
                "jsonb",
                "column x: holds a map with the same key twice",
            ),
            (pa.array([[[1]], [[]]]), "bigint[]", "an empty or a missing list within a list"),
            (pa.array([Decimal(1), Decimal(2**63)]), "bigint", "9223372036854775808 is out of range for bigint"),
            (pa.array([1, 2**32]), "oid", "column x: OID out of range"),
            (pa.array([[1], [0]]), "positive[]", "column x: value for domain positive violates check constraint"),
            (pa.array([1, None]), "present", "column x is NOT NULL in the table"),
        ],
    )
    def test_a_value_that_does_not_fit_is_refused_by_its_row(
        self, schema: str, column: pa.Array, type: str, said: str
    ) -> None:
        execute(
            schema,
            "CREATE TYPE verdict AS ENUM ('leave', 'stay')",
            "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
            "CREATE DOMAIN present AS integer NOT NULL",
            f"CREATE TABLE scores (x {type})",
        )
        rows = pa.record_batch({"x": column})
        sink = postgres_sink(schema)
        sink.prepare(rows.schema)

        with pytest.raises(RowsRefused) as refused:
            sink.stage([span_with(rows.slice(0, 1)), span_with(rows)], None)

        (row,) = refused.value.rows
        assert (row.span, row.row, row.error_type) == (1, 1, "RefusedByDestination")
        assert said in row.reason
        assert sink.all_notes() == []

    @pytest.mark.parametrize(
        ("column", "type", "kept", "code"),
        [
            (pa.array([1000, 1001, None], pa.timestamp("ns")), None, "1970-01-01 00:00:00.000001", "rounded"),
            (pa.array([1000, 1001, None], pa.timestamp("ns", "UTC")), None, "1970-01-01 00:00:00.000001+00", "rounded"),
            (pa.array([1000, 1001, None], pa.time64("ns")), None, "00:00:00.000001", "rounded"),
            (pa.array([1000, 1001, None], pa.duration("ns")), None, "00:00:00.000001", "rounded"),
            (pa.array([(0, 0, 1000), (0, 0, 1001)], pa.month_day_nano_interval()), None, "00:00:00.000001", "rounded"),
            (
                pa.array([[1000, 1001], None], pa.list_(pa.time64("ns"))),
                None,
                "{00:00:00.000001,00:00:00.000001}",
                "rounded",
            ),
            (pa.array([1_000_000, 1_000_001], pa.timestamp("us")), "timestamp(0)", "1970-01-01 00:00:01", "rounded"),
            (pa.array([0.5, 0.1]), "real", "0.5", "rounded"),
            (pa.array([0.25, 0.126]), "numeric(5,2)", "0.25", "rounded"),
            (pa.array([Decimal("1.20"), Decimal("1.23")]), "numeric(5,1)", "1.2", "rounded"),
            (pa.array([Decimal("0.5"), Decimal("0.12345678901234567890")]), "double precision", "0.5", "rounded"),
            (pa.array([{"a": 1.0}, {"a": float("inf")}]), "jsonb", '{"a": 1}', "rounded"),
        ],
        ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
    )
    def test_values_that_lose_digits_are_counted(
        self, schema: str, column: pa.Array, type: str | None, kept: str, code: str
    ) -> None:
        if type is not None:
            execute(schema, f"CREATE TABLE scores (x {type})")
        rows = pa.record_batch({"x": column})
        sink = postgres_sink(schema)
        before = sink.check(rows.schema)
        sink.prepare(rows.schema)
        notes = sink.stage([span_with(rows)], None)
        noted = sink.all_notes()
        sink.publish(manifest_of(sink, "job_1", [span_with(rows).span.split]))

        assert [notice.code for notice in before] == ["may_be_rounded"] * (type != "jsonb")
        assert notes == noted
        assert [(notice.code, notice.count) for note in noted for notice in note.notices] == [("rounded", 1)]
        assert execute(schema, "SET TimeZone = 'UTC'", "SELECT x::text FROM scores LIMIT 1") == [(kept,)]

    def test_values_that_lose_nothing_are_not_spoken_of(self, schema: str) -> None:
        rows = pa.record_batch({"x": pa.array([1000, None], pa.timestamp("ns"))})
        sink = postgres_sink(schema)
        sink.prepare(rows.schema)

        (note,) = sink.stage([span_with(rows)], None) or []
        assert note.notices == ()

    @pytest.mark.parametrize(
        ("arrow", "type"),
        [
            (pa.timestamp("us"), "timestamptz"),
            (pa.timestamp("us", "UTC"), "timestamp"),
            (pa.float64(), "integer"),
            (pa.string(), "integer"),
            (pa.string(), "timestamp"),
            (pa.string(), "name"),
            (pa.string(), '"char"'),
            (pa.string(), "money"),
            (pa.bool_(), "integer"),
            (pa.struct([("a", pa.int64())]), "text"),
            (pa.binary(), "text"),
            (pa.duration("us"), "interval year to month"),
            (pa.list_(pa.string()), "integer[]"),
            (pa.list_(pa.string()), "timetz[]"),
            (pa.decimal128(9, 2), "integer"),
            (pa.decimal128(9, 3), "money"),
            (pa.list_(pa.decimal128(9, 2)), "tenths[]"),
        ],
        ids=str,
    )
    def test_a_type_that_would_have_to_change_is_refused_before_any_row_is_read(
        self, schema: str, arrow: pa.DataType, type: str
    ) -> None:
        execute(schema, "CREATE DOMAIN tenths AS numeric(9,1)", f"CREATE TABLE scores (x {type})")

        said = refusal(lambda: postgres_sink(schema).check(pa.schema([("x", arrow)])))
        assert "its column x is " in said
        assert f"cannot take {arrow}; " in said

    @pytest.mark.parametrize(
        ("origin", "text", "type"),
        [
            ("int4range", "[1,5)", "int4range"),
            ("bit varying(5)[]", "{101}", "bit varying(5)[]"),
            ("interval year to month", "1 year", "interval year to month"),
            ("interval", "1 day", "interval"),
            ("verdict[]", "{stay}", "verdict[]"),
            ("numeric", "9" * 50, "numeric"),
            ("numeric(50,2)", "9" * 40 + ".25", "numeric(50,2)"),
            ("timestamp(3) with time zone", "2024-05-01 12:00:00+00", "timestamp(3) with time zone"),
            ("double precision[]", "{{1,2},{3,4}}", "double precision[]"),
            ("nowhere.kind", "text", "text"),
            ("int4); DROP TABLE x", "text", "text"),
            ("record", "text", "text"),
        ],
    )
    def test_text_that_was_of_another_type_becomes_that_again(
        self, schema: str, origin: str, text: str, type: str
    ) -> None:
        execute(schema, "CREATE TYPE verdict AS ENUM ('leave', 'stay')")
        field = pa.field("x", pa.string(), metadata={"penstock:postgres_type": origin})
        rows = pa.RecordBatch.from_arrays([pa.array([text])], schema=pa.schema([field]))
        codes = [notice.code for notice in postgres_sink(schema).check(rows.schema)]

        for mode, job_id in (("overwrite", "job_1"), ("append", "job_2")):
            write(postgres_sink(schema, mode=mode, job_id=job_id), rows, job_id)

        assert codes == ["type_kept_as_text"] * (type == "text")
        assert (
            execute(
                schema,
                "SET TimeZone = 'UTC'",
                "SELECT x::text, (SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
                " WHERE attrelid = 'scores'::regclass AND attnum = 1) FROM scores",
            )
            == [(text, type)] * 2
        )

    @pytest.mark.parametrize(
        ("origin", "column", "text", "type"),
        [
            ("numeric", pa.array([Decimal("1.50")], pa.decimal128(38, 2)), "1.5", "numeric"),
            ("numeric(80,2)", pa.array([Decimal("1.50")], pa.decimal128(38, 2)), "1.50", "numeric(80,2)"),
            ("numeric(9,2)", pa.array([1.5]), "1.50", "numeric(9,2)"),
            ("money", pa.array([Decimal("1.50")], pa.decimal128(38, 2)), "1.50", "numeric(38,2)"),
            ("time with time zone[]", pa.array([["01:00:00+05"]]), "{01:00:00+05}", "time with time zone[]"),
        ],
    )
    def test_what_was_read_as_another_type_becomes_its_own_again(
        self, schema: str, origin: str, column: pa.Array, text: str, type: str
    ) -> None:
        field = pa.field("x", column.type, metadata={"penstock:postgres_type": origin})
        rows = pa.RecordBatch.from_arrays([column], schema=pa.schema([field]))

        codes = []
        for mode, job_id in (("overwrite", "job_1"), ("append", "job_2")):
            sink = postgres_sink(schema, mode=mode, job_id=job_id)
            codes += [notice.code for notice in sink.check(rows.schema)]
            write(sink, rows, job_id)

        found = execute(
            schema,
            "SELECT x::text, (SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 'scores'::regclass AND attnum = 1) FROM scores",
        )
        assert found == [(text, type)] * 2
        assert codes == []

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            (pa.schema([("x", pa.struct([("a", pa.int64()), ("a", pa.int64())]))]), "no type for column x (struct<"),
            (pa.schema([("x", pa.list_(pa.dense_union([pa.field("a", pa.int64())])))]), "no type for column x (list<"),
            (pa.schema([("_penstock_row", pa.int64())]), "give it another name"),
            (pa.schema([("x", pa.int64()), ("x", pa.int64())]), "column x comes more than once"),
            (pa.schema([("", pa.int64())]), "a column of the output has no name"),
            (pa.schema([("x" * 64, pa.int64())]), "longer than the 63 bytes"),
            (pa.schema([("ctid", pa.int64())]), '"ctid" conflicts with a system column name'),
        ],
        ids=["struct", "union", "ours", "twice", "unnamed", "long", "system"],
    )
    def test_columns_that_no_table_can_have_are_refused(self, schema: str, columns: pa.Schema, said: str) -> None:
        assert said in refusal(lambda: postgres_sink(schema).prepare(columns))
