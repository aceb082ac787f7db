"""Pages of a result in a table of a real PostgreSQL server."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from launcher.errors import ForkFailed, ResultGone, ResultUnreadable
from launcher.forks.forking import ForkServer
from launcher.rows.results import TableResult, result_page
from launcher.rows.tablepages import TablesAside
from launcher.rows.values import as_json_rows
from tests.api import ASIDE
from tests.contract.sinks import manifest_of, rows_of, split_of
from tests.mute import mute_postgres
from tests.servers import Postgres
from tests.unit.launcher_parts import FakeForks, until, warm_forks
from transforms.batches import ScoredSpan, Span
from transforms.connection import Connection, ConnectionRefused
from transforms.sinks.mode import Mode
from transforms.sinks.postgres import PostgresSink


def execute(uri: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements, each by itself, and return the rows of the last."""
    rows: list[tuple[Any, ...]] = []
    with Connection(uri).open(autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
    return rows


def publish(
    uri: str,
    rows: pa.RecordBatch,
    job_id: str = "job_1",
    mode: Mode = "overwrite",
    appends_to: str | None = None,
    table: str = "scores",
) -> TableResult:
    """Take `rows` all the way into a table."""
    sink = PostgresSink(Connection(uri), table, mode, job_id, appends_to)
    split = split_of(1, rows.num_rows, max(rows.num_rows, 1))
    sink.prepare(rows.schema)
    if rows.num_rows:
        sink.stage([ScoredSpan(Span(split, 0, rows.num_rows, True), rows)], None)
    sink.publish(manifest_of(sink, job_id, [split]))
    sink.clean()
    return TableResult(Connection(uri), table, job_id)


def all_rows(place: TableResult, limit: int) -> pa.Table:
    """The rows of all pages."""
    pages, offset = [], 0
    while True:
        page = result_page(place, offset, limit)
        pages.append(page.rows)
        if page.next_offset is None:
            return pa.concat_tables(pages)
        offset = page.next_offset


def refusal(place: TableResult) -> str:
    """The line that says that the result is gone."""
    with pytest.raises(ResultGone) as refused:
        result_page(place, 0, 10)

    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("limit", [7, 250, 251])
def test_pages_have_every_row_once_in_the_order_of_the_input(database: str, limit: int) -> None:
    place = publish(database, rows_of(0, 250))

    assert all_rows(place, limit).to_pylist() == rows_of(0, 250).to_pylist()


def test_large_rows_make_short_pages(database: str) -> None:
    texts = [f"{n}" + "x" * 1024 * 1024 for n in range(40)]
    place = publish(database, pa.record_batch({"id": list(range(40)), "score": [0.5] * 40, "name": texts}))
    first = result_page(place, 0, 100)

    assert 1 <= first.rows.num_rows <= 17
    assert all_rows(place, 100)["name"].to_pylist() == texts


@pytest.mark.parametrize("offset", [10, 11, 10**9])
def test_past_the_end_there_are_no_rows_but_their_columns(database: str, offset: int) -> None:
    place = publish(database, rows_of(0, 10))

    page = result_page(place, offset, 5)

    assert (page.rows.num_rows, page.next_offset) == (0, None)
    assert page.rows.schema == result_page(place, 0, 5).rows.schema


def test_an_empty_result_has_one_page_without_rows(database: str) -> None:
    page = result_page(publish(database, rows_of(0, 0)), 0, 5)

    assert (page.rows.num_rows, page.rows.column_names, page.next_offset) == (0, ["id", "score", "name"], None)


def test_rows_come_as_they_lie_whatever_indexes_and_readers_there_are(database: str) -> None:
    publish(database, rows_of(0, 200_000))
    execute(
        database,
        # An index that has all columns, in another order, and tempts the planner to read nothing else.
        "CREATE INDEX tempting ON scores (name DESC, score, id)",
        "DELETE FROM scores WHERE id % 3 = 0",
        "VACUUM ANALYZE scores",
        "ALTER DATABASE " + database.rpartition("/")[2] + " SET min_parallel_table_scan_size = 0",
        "ALTER DATABASE " + database.rpartition("/")[2] + " SET parallel_setup_cost = 0",
        "ALTER DATABASE " + database.rpartition("/")[2] + " SET random_page_cost = 0.01",
    )
    place = publish(database, rows_of(500_000, 50_000), "job_2", "append")
    in_order = [id for (id,) in execute(database, "SELECT id FROM scores ORDER BY ctid")]

    assert all_rows(place, 17_001)["id"].to_pylist() == in_order


def test_pages_of_a_partitioned_table_have_every_row_once(database: str) -> None:
    execute(
        database,
        "CREATE TABLE scores (id bigint, score real, name text) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF scores FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE high PARTITION OF scores DEFAULT",
    )
    place = publish(database, rows_of(50, 100))

    assert sorted(all_rows(place, 7)["id"].to_pylist()) == list(range(50, 150))


def test_a_result_that_was_added_to_is_shown_to_each_job_and_one_that_was_replaced_to_none(database: str) -> None:
    first = publish(database, rows_of(0, 10), "job_1")
    second = publish(database, rows_of(10, 10), "job_2", "append")
    third = publish(database, rows_of(20, 10), "job_3", "append", "job_2")
    ids = [sorted(all_rows(place, 7)["id"].to_pylist()) for place in (first, second, third)]
    fourth = publish(database, rows_of(30, 10), "job_4")

    assert ids == [list(range(30))] * 3
    for place in (first, second, third):
        assert f"now holds the result of another job, job_4, which published after {place.job_id}" in refusal(place)
    assert all_rows(fourth, 100)["id"].to_pylist() == list(range(30, 40))


def test_a_table_that_is_gone_and_a_job_that_published_none_are_told(database: str) -> None:
    place = publish(database, rows_of(0, 10))
    execute(database, "DROP TABLE scores")
    gone = refusal(place)
    publish(database, rows_of(0, 10), "job_2", "append")

    assert "is gone, and the result of job_1 with it" in gone
    assert "now holds the result of another job, job_2" in refusal(place)
    assert "is not recorded to hold the result of job_1" in refusal(TableResult(place.connection, "other", "job_1"))
    assert "is not recorded" in refusal(TableResult(place.connection, "nowhere.scores", "job_1"))


def test_jobs_of_other_tables_do_not_matter(database: str) -> None:
    place = publish(database, rows_of(0, 10))
    publish(database, rows_of(0, 10), "job_2", table='"Scores"')
    execute(database, "CREATE SCHEMA predictions")
    publish(database, rows_of(0, 10), "job_3", table="predictions.scores")

    assert result_page(place, 0, 100).rows.num_rows == 10


@pytest.mark.parametrize("table", ["Scores", '"Scores"', "predictions.scores", '"Odd Schema"."SELECT"', '"quo""te"'])
def test_a_table_name_is_read_as_in_sql(database: str, table: str) -> None:
    execute(database, "CREATE SCHEMA predictions", 'CREATE SCHEMA "Odd Schema"')

    place = publish(database, rows_of(0, 10), table=table)

    assert result_page(place, 0, 100).rows.num_rows == 10


def test_reading_needs_no_other_right_than_to_read(postgres: Postgres, database: str) -> None:
    place = publish(database, rows_of(0, 10))
    reader = postgres.role(database)
    role = reader.partition("//")[2].partition("@")[0]
    mine = TableResult(Connection(reader), place.table_name, place.job_id)

    with pytest.raises(ResultUnreadable, match="permission denied for table"):
        result_page(mine, 0, 10)
    execute(database, f"GRANT SELECT ON scores, penstock_ledger TO {role}")

    assert result_page(mine, 0, 10).rows.num_rows == 10


def test_a_page_that_takes_too_long_is_told_in_one_line(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import launcher.rows.tablepages as tablepages

    place = publish(database, rows_of(0, 10))
    monkeypatch.setattr(tablepages, "_SETTINGS", tablepages._SETTINGS.replace("'10s'", "'100ms'"))

    with Connection(database).open(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE scores IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ResultUnreadable) as refused:
            result_page(place, 0, 10)

    assert str(refused.value).endswith("no answer within 10 s; ask again later, or for fewer rows")


def test_a_page_is_wholly_of_one_result(database: str) -> None:
    place = publish(database, rows_of(0, 1000))

    def look(_: int) -> set[int] | None:
        try:
            return set(result_page(place, 0, 1000).rows["id"].to_pylist())
        except ResultGone:
            return None

    with ThreadPoolExecutor(4) as threads:
        looking = [threads.submit(look, number) for number in range(40)]
        publish(database, rows_of(5000, 1000), "job_2")
        seen = [look.result() for look in looking]

    assert all(ids is None or ids == set(range(1000)) for ids in seen)
    assert look(0) is None


def test_a_wrong_password_is_not_repeated(postgres: Postgres, database: str) -> None:
    publish(database, rows_of(0, 10))
    uri = postgres.role(database, "s3cret-Pass").replace("s3cret-Pass", "wr0ng-Pass")

    with pytest.raises(ConnectionRefused) as refused:
        result_page(TableResult(Connection(uri), "scores", "job_1"), 0, 10)

    assert "wr0ng" not in str(refused.value)


@pytest.mark.parametrize(
    ("type", "written", "arrow", "said"),
    [
        ("numeric(9,2)", "12.5", pa.decimal128(9, 2), "12.50"),
        ("numeric(9,2)", "'NaN'", pa.decimal128(9, 2), None),
        ("numeric", "12.345", pa.string(), "12.345"),
        ("jsonb", """'{"a": 1}'""", pa.string(), '{"a": 1}'),
        ("uuid", "'00000000-0000-0000-0000-000000000001'", pa.string(), "00000000-0000-0000-0000-000000000001"),
        ("interval", "'1 hour'", pa.string(), "01:00:00"),
        ("money", "'$1.50'", pa.string(), "1.50"),
        ("inet", "'10.0.0.1'", pa.string(), "10.0.0.1/32"),
        ("bytea", "'\\x00ff'", pa.binary(), "AP8="),
        ("date", "'2024-01-02'", pa.date32(), "2024-01-02"),
        ("time", "'01:02:03'", pa.time64("us"), "01:02:03.000000"),
        ("timestamptz", "'2024-07-01 12:00+02'", pa.timestamp("us", "UTC"), "2024-07-01T10:00:00Z"),
        ("double precision", "'NaN'", pa.float64(), None),
        ("real[]", "'{0.5,NULL}'", pa.list_(pa.float32()), [0.5, None]),
        ("numeric[]", "'{0.5}'", pa.list_(pa.string()), ["0.5"]),
        ("boolean", "true", pa.bool_(), True),
        ("bigint", "9223372036854775807", pa.int64(), 9223372036854775807),
    ],
)
def test_columns_come_under_types_that_everybody_knows(
    database: str, type: str, written: str, arrow: pa.DataType, said: Any
) -> None:
    place = publish(database, rows_of(0, 1))
    execute(database, f"ALTER TABLE scores ADD COLUMN x {type} DEFAULT {written}")

    rows = result_page(place, 0, 10).rows

    assert rows.schema.field("x").type == arrow
    assert as_json_rows(rows)[0]["x"] == said
    assert result_page(place, 10, 10).rows.schema.types == rows.schema.types


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with warm_forks(tmp_path_factory.mktemp("forks"), *ASIDE) as server:
        yield server


class TestInAProcessOfItsOwn:
    @pytest.fixture
    def aside(self, forks: ForkServer, tmp_path: Path) -> TablesAside:
        return TablesAside(forks, str(tmp_path), {})

    def test_a_page_is_the_same(self, database: str, aside: TablesAside) -> None:
        place = publish(database, rows_of(0, 250))

        for offset, limit in ((0, 100), (200, 100), (250, 1)):
            here, there = result_page(place, offset, limit), result_page(place, offset, limit, aside.read)
            assert there == here
            assert there.rows.schema.equals(here.rows.schema, check_metadata=True)

    def test_nothing_of_the_database_is_touched_here(
        self, database: str, aside: TablesAside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = publish(database, rows_of(0, 10))

        def here(*_: Any, **__: Any) -> Any:
            raise AssertionError("opened in the launcher itself")

        monkeypatch.setattr(Connection, "open", here)

        assert result_page(place, 0, 100, aside.read).rows.num_rows == 10

    def test_what_is_wrong_is_told_in_the_same_words(self, database: str, aside: TablesAside) -> None:
        place = publish(database, rows_of(0, 10))
        wrong = TableResult(Connection(database.replace("postgres@", "nobody:s3cret@", 1)), "scores", "job_1")
        execute(database, "DROP TABLE scores")

        for each, error in ((place, ResultGone), (wrong, ConnectionRefused)):
            with pytest.raises(error) as here:
                result_page(each, 0, 10)
            with pytest.raises(error) as there:
                result_page(each, 0, 10, aside.read)
            assert str(there.value) == str(here.value)
            assert "s3cret" not in str(there.value)

    @pytest.mark.parametrize(
        ("megabytes", "reason"),
        [
            (20, "row 3 has 20 MiB, and a page at most 16 MiB"),
            (300, "takes too much memory, as of a row that is larger"),
        ],
    )
    def test_a_row_that_is_larger_than_a_page_is_refused(
        self, database: str, aside: TablesAside, megabytes: int, reason: str
    ) -> None:
        place = publish(database, rows_of(0, 3))
        execute(database, f"UPDATE scores SET name = repeat('x', {megabytes} * 1024 * 1024) WHERE id = 2")

        assert result_page(place, 0, 1, aside.read).rows.num_rows == 1
        with pytest.raises(ResultUnreadable) as refused:
            result_page(place, 2, 2, aside.read)
        assert reason in str(refused.value)
        assert str(refused.value).endswith("from the database")

    def test_a_server_that_says_nothing_is_not_waited_for_longer(
        self, aside: TablesAside, forks: ForkServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("launcher.rows.tablepages.TIMEOUT_S", 0.5)
        began = time.monotonic()
        with mute_postgres() as uri, pytest.raises(ResultUnreadable) as refused:
            result_page(TableResult(Connection(uri), "scores", "job_1"), 0, 10, aside.read)

        assert str(refused.value).endswith("no answer within 0.5 s; ask again later, or for fewer rows")
        assert "s3cret" not in str(refused.value)
        assert time.monotonic() - began < 5
        until(lambda: not psutil.Process(forks.pid).children())

    def test_that_cannot_be_forked_is_told_without_more(self, database: str) -> None:
        aside = TablesAside(FakeForks([ForkFailed("not warm; see /home/log")]), "/", {})

        with pytest.raises(ResultUnreadable, match="no process can be started to read it; ask again") as refused:
            result_page(publish(database, rows_of(0, 1)), 0, 10, aside.read)

        assert "/home/log" not in str(refused.value)


@pytest.mark.parametrize(
    ("type", "written", "said"),
    [
        ("real[]", "{{1,2},{3,4}}", [[1.0, 2.0], [3.0, 4.0]]),
        ("real[]", "[5:6]={1,2}", "[5:6]={1,2}"),
        ("date", "infinity", "infinity"),
        ("time[]", "{24:00}", "{24:00:00}"),
    ],
)
def test_a_value_that_its_type_does_not_tell_is_shown_as_it_is(
    database: str, type: str, written: str, said: Any
) -> None:
    place = publish(database, rows_of(0, 2))
    execute(database, f"ALTER TABLE scores ADD COLUMN x {type} DEFAULT '{written}'")

    assert [row["x"] for row in as_json_rows(result_page(place, 0, 10).rows)] == [said, said]
