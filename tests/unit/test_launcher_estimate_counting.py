"""Counting the rows of an input: exact or not at all, in time, without Beam, and with a job's own messages."""

import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.estimate.counting import count_rows
from pipelines.spec import ParquetInput, SqlInput
from tests.scenes import numbered_rows, write_files
from tests.servers import Postgres
from transforms.connection import Connection
from transforms.errors import ConnectionRefused, InputError
from transforms.sources.counting import _count_in_sqlite
from transforms.sources.parquet import ParquetSource
from transforms.sources.sql import count_rows as count_without_limit

# Time enough for any count here, on a busy machine.
AMPLE_S = 60.0
# Rows that no machine counts in a test.
ENDLESS = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s) SELECT n FROM s LIMIT 100000000000"


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    return write_files(tmp_path / "in", numbered_rows(2500), files=3)


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """URI of a database with a table of 1,000 rows, in a file whose name a URI would not bear."""
    path = tmp_path / "a ?#%41.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE numbers (n INTEGER, note TEXT)")
        database.executemany("INSERT INTO numbers VALUES (?, ?)", [(n, f"row {n}") for n in range(1000)])
    database.close()
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def postgresql(postgres: Postgres) -> str:
    uri = postgres.database()
    postgres.execute("CREATE TABLE numbers AS SELECT n, 'row ' || n AS note FROM generate_series(1, 1000) AS n", uri)
    return uri


@pytest.fixture(params=["sqlite", "postgresql"])
def uri(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def threads() -> list[threading.Thread]:
    """Threads that count."""
    return [thread for thread in threading.enumerate() if thread.name == "count"]


def await_that(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + AMPLE_S
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


# --- Beam ----------------------------------------------------------------------------------------------------------


def test_no_count_imports_beam(parquet: Path, uri: str) -> None:
    program = (
        "import sys\n"
        "from launcher.estimate.counting import count_rows\n"
        "from pipelines.spec import ParquetInput, SqlInput\n"
        f"print(count_rows(ParquetInput(({str(parquet)!r},)), 60))\n"
        f"print(count_rows(SqlInput({uri!r}, 'SELECT n FROM numbers'), 60))\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'apache_beam'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.stdout.split("\n"), done.stderr) == (["2500", "1000", "[]", ""], "")


# --- files ---------------------------------------------------------------------------------------------------------


def test_files_are_counted_by_their_footers(parquet: Path, tmp_path: Path) -> None:
    twice = ParquetInput((str(parquet), str(parquet / "in-0[01].parquet"), str(parquet / "in-02.parquet")))
    pq.write_table(pa.table({"id": pa.array([], pa.int64())}), tmp_path / "empty.parquet")

    assert count_rows(ParquetInput((str(parquet),)), AMPLE_S) == 2500
    assert count_rows(twice, AMPLE_S) == 2500
    assert count_rows(ParquetInput((str(tmp_path / "empty.parquet"),)), AMPLE_S) == 0


def test_files_that_there_is_no_time_for_are_not_counted(parquet: Path) -> None:
    assert count_rows(ParquetInput((str(parquet),)), 0) is None


@pytest.mark.parametrize("name", ["none", "*.csv", "empty", "text.parquet", "differing", "doubled.parquet"])
def test_files_are_refused_in_the_words_of_a_job(parquet: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no Parquet")
    write_files(tmp_path / "differing", numbered_rows(10))
    pq.write_table(pa.table({"id": [1]}), tmp_path / "differing" / "z.parquet")
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), tmp_path / "doubled.parquet")
    path = str(tmp_path / name)

    with pytest.raises(InputError) as of_a_job:
        ParquetSource.open([path])
    with pytest.raises(InputError) as counting:
        count_rows(ParquetInput((path,)), AMPLE_S)
    assert str(counting.value) == str(of_a_job.value)


# --- queries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT n FROM numbers", 1000),
        ("SELECT n FROM numbers WHERE n < 10 ORDER BY n LIMIT 5; -- the first", 5),
        ("/* none */ SELECT * FROM numbers WHERE n < 0", 0),
        (
            "WITH few AS (SELECT n FROM numbers WHERE n <= 7) SELECT a.n FROM few a, few b WHERE a.n = b.n AND a.n > 0",
            7,
        ),
        ("SELECT note, count(*) FROM numbers GROUP BY note", 1000),
    ],
    ids=["all", "comment and semicolon", "none", "join", "groups"],
)
def test_a_query_is_counted_exactly(uri: str, query: str, rows: int) -> None:
    assert count_rows(SqlInput(uri, query), AMPLE_S) == rows
    assert count_without_limit(Connection(uri), query) == rows


def test_an_input_that_only_names_its_connection_is_counted_over_the_one_given(uri: str) -> None:
    assert count_rows(SqlInput("warehouse", "SELECT n FROM numbers"), AMPLE_S, Connection(uri)) == 1000


@pytest.mark.parametrize(
    "query",
    [
        "SELECT n FROM letters",
        "SELECT m FROM numbers",
        "SELECT n FROM numbers WHERE nothing(n) = 1",
        "SELECT n FORM numbers WHERE",
        "SELECT 1; SELECT 2",
        "DELETE FROM numbers",
        "",
    ],
    ids=["table", "column", "function", "syntax", "two statements", "writing", "empty"],
)
def test_a_query_is_refused_in_the_words_of_a_job(uri: str, query: str) -> None:
    with pytest.raises(InputError) as of_a_job:
        count_without_limit(Connection(uri), query)
    with pytest.raises(InputError) as counting:
        count_rows(SqlInput(uri, query), AMPLE_S)
    assert str(counting.value) == str(of_a_job.value)
    assert "\n" not in str(counting.value)


def test_a_query_that_fails_on_its_way_is_refused(uri: str) -> None:
    bad = "json_extract(note, '$.a')" if uri.startswith("sqlite") else "1 / (n - n)"

    with pytest.raises(InputError, match=r"input\.query at .*: (malformed JSON|division by zero)"):
        count_rows(SqlInput(uri, f"SELECT n FROM numbers WHERE {bad} IS NULL"), AMPLE_S)


@pytest.mark.parametrize("timeout_s", [0.0, 0.4])
def test_a_query_that_there_is_no_time_for_is_given_up_in_time_and_ends(uri: str, timeout_s: float) -> None:
    began = time.monotonic()
    rows = count_rows(SqlInput(uri, ENDLESS), timeout_s)
    took_s = time.monotonic() - began

    assert rows is None
    # What is not of the database, as the parsing of the query, is not timed.
    assert took_s < timeout_s + 1
    await_that(lambda: not threads())


def test_nothing_is_left_running_in_the_server(postgres: Postgres, postgresql: str) -> None:
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%penstock_query%' AND pid <> pg_backend_pid()"
    count = SqlInput(postgresql, "SELECT pg_sleep(600) FROM numbers")

    assert count_rows(count, 0.5) is None
    await_that(lambda: postgres.execute(running, postgresql) == [(0,)])
    assert not threads()


def test_a_locked_table_is_not_waited_for_longer(postgres: Postgres, postgresql: str) -> None:
    with Connection(postgresql).open() as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE numbers IN ACCESS EXCLUSIVE MODE")

        assert count_rows(SqlInput(postgresql, "SELECT n FROM numbers"), 0.5) is None
        other.rollback()
    assert count_rows(SqlInput(postgresql, "SELECT n FROM numbers"), AMPLE_S) == 1000


def test_a_locked_file_is_not_waited_for_longer(sqlite: str) -> None:
    with sqlite3.connect(Connection(sqlite).sqlite_path()) as other:
        other.execute("BEGIN EXCLUSIVE")
        counted = _count_in_sqlite(Connection(sqlite), "SELECT count(*) FROM numbers", time.monotonic() + 0.3)
        began = time.monotonic()

        assert counted is None
        assert count_rows(SqlInput(sqlite, "SELECT n FROM numbers"), 0.3) is None
        assert time.monotonic() - began < 5
        other.rollback()
    other.close()


def test_what_only_the_driver_understands_is_not_refused(sqlite: str) -> None:
    query = "SELECT n FROM numbers WHERE octet_length(note) > 0"

    # Since SQLite 3.43; the library of Python may be older, and then nobody knows.
    assert count_rows(SqlInput(sqlite, query), AMPLE_S) in (None, 1000)
    assert count_without_limit(Connection(sqlite), query) == 1000


def test_counting_changes_no_file_and_makes_none(sqlite: str, tmp_path: Path) -> None:
    before = [(path.name, path.read_bytes()) for path in tmp_path.iterdir()]
    count_rows(SqlInput(sqlite, "SELECT n FROM numbers"), AMPLE_S)
    with pytest.raises(ConnectionRefused, match=r"there is no file .*none\.db"):
        count_rows(SqlInput(f"sqlite:///{tmp_path}/none.db", "SELECT 1"), AMPLE_S)

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == before


@pytest.fixture
def port() -> Iterator[int]:
    """A port where connections are taken and nobody ever says a word."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield silent.getsockname()[1]


def test_a_server_that_says_nothing_is_not_waited_for_longer(port: int) -> None:
    began = time.monotonic()

    assert count_rows(SqlInput(f"postgresql://u@127.0.0.1:{port}/db", "SELECT 1"), 0.5) is None
    assert time.monotonic() - began < 2
    await_that(lambda: not threads())


def test_a_server_that_is_not_there_is_told_of_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        free = taken.getsockname()[1]

        with pytest.raises(
            ConnectionRefused, match=r"connection postgresql://u:\*\*\*\*\*@127\.0\.0\.1:\d+/db: .*refused"
        ):
            count_rows(SqlInput(f"postgresql://u:secret@127.0.0.1:{free}/db", "SELECT 1"), AMPLE_S)
