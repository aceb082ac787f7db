"""Counting the rows of an input: exact or not at all, in time, without Beam, and with a job's own messages."""

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.errors import ForkFailed
from launcher.estimate.counting import Counting
from launcher.forks.forking import LOOKS_PRELOAD, ForkServer
from pipelines.spec import ParquetInput, SqlInput
from predictors.bounds import Bounds
from tests.mute import mute_postgres
from tests.scenes import numbered_rows, write_files
from tests.servers import Postgres
from tests.unit.launcher_parts import ROOT, FakeForks, warm_forks
from transforms.connection import Connection
from transforms.errors import ConnectionRefused, InputError
from transforms.sources.counting import count_soon
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


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with warm_forks(tmp_path_factory.mktemp("forks"), *LOOKS_PRELOAD) as server:
        yield server


@pytest.fixture
def counting(forks: ForkServer, tmp_path: Path) -> Counting:
    return Counting(forks, str(tmp_path), {})


def processes(forks: ForkServer) -> list[psutil.Process]:
    """Those that count."""
    return psutil.Process(forks.pid).children()


def await_that(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + AMPLE_S
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


# --- Beam ----------------------------------------------------------------------------------------------------------


def test_no_count_imports_beam(parquet: Path, uri: str) -> None:
    program = (
        "import sys\n"
        "from launcher.estimate.counting import count_soon\n"
        "from pipelines.spec import ParquetInput, SqlInput\n"
        f"print(count_soon(ParquetInput(({str(parquet)!r},)).to_json(), None, 60))\n"
        f"print(count_soon(SqlInput({uri!r}, 'SELECT n FROM numbers').to_json(), None, 60))\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'apache_beam'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.stdout.split("\n"), done.stderr) == (["2500", "1000", "[]", ""], "")


# --- files ---------------------------------------------------------------------------------------------------------


def test_files_are_counted_by_their_footers(counting: Counting, parquet: Path, tmp_path: Path) -> None:
    twice = ParquetInput((str(parquet), str(parquet / "in-0[01].parquet"), str(parquet / "in-02.parquet")))
    pq.write_table(pa.table({"id": pa.array([], pa.int64())}), tmp_path / "empty.parquet")

    assert counting.rows("acme", ParquetInput((str(parquet),)), AMPLE_S) == 2500
    assert counting.rows("acme", twice, AMPLE_S) == 2500
    assert counting.rows("acme", ParquetInput((str(tmp_path / "empty.parquet"),)), AMPLE_S) == 0


def test_files_that_there_is_no_time_for_are_not_counted(counting: Counting, parquet: Path) -> None:
    assert counting.rows("acme", ParquetInput((str(parquet),)), 0) is None


def test_files_are_not_counted_where_a_link_leads_elsewhere(counting: Counting, parquet: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.parquet").symlink_to(parquet / "in-00.parquet")
    given = ParquetInput((str(tmp_path / "data"),))

    with pytest.raises(InputError, match=r"input\.path leads to a file outside of the folders"):
        counting.rows("acme", given, AMPLE_S, within=Bounds((str(tmp_path / "data"),)))
    assert counting.rows("acme", given, AMPLE_S, within=Bounds((str(tmp_path),))) == 833


@pytest.mark.parametrize("name", ["none", "*.csv", "empty", "text.parquet", "cut", "differing"])
def test_files_are_refused_in_the_words_of_a_job(counting: Counting, parquet: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no Parquet")
    (tmp_path / "cut").write_bytes((parquet / "in-00.parquet").read_bytes()[:1000])
    write_files(tmp_path / "differing" / "day=1", numbered_rows(10))
    write_files(tmp_path / "differing" / "hour=1", numbered_rows(10))
    path = str(tmp_path / name)

    with pytest.raises(InputError) as of_a_job:
        ParquetSource.open([path])
    with pytest.raises(InputError) as told:
        counting.rows("acme", ParquetInput((path,)), AMPLE_S)
    assert str(told.value) == str(of_a_job.value)


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
def test_a_query_is_counted_exactly(counting: Counting, uri: str, query: str, rows: int) -> None:
    assert counting.rows("acme", SqlInput(uri, query), AMPLE_S) == rows
    assert count_without_limit(Connection(uri), query) == rows


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
def test_a_query_is_refused_in_the_words_of_a_job(counting: Counting, uri: str, query: str) -> None:
    with pytest.raises(InputError) as of_a_job:
        count_without_limit(Connection(uri), query)
    with pytest.raises(InputError) as told:
        counting.rows("acme", SqlInput(uri, query), AMPLE_S)
    assert str(told.value) == str(of_a_job.value)
    assert "\n" not in str(told.value)


def test_a_query_that_fails_on_its_way_is_refused(counting: Counting, uri: str) -> None:
    bad = "json_extract(note, '$.a')" if uri.startswith("sqlite") else "1 / (n - n)"

    with pytest.raises(InputError, match=r"input\.query at .*: (malformed JSON|division by zero)"):
        counting.rows("acme", SqlInput(uri, f"SELECT n FROM numbers WHERE {bad} IS NULL"), AMPLE_S)


@pytest.mark.parametrize("timeout_s", [0.0, 0.4])
def test_a_query_that_there_is_no_time_for_is_given_up_in_time_and_ends(
    counting: Counting, forks: ForkServer, uri: str, timeout_s: float
) -> None:
    began = time.monotonic()
    rows = counting.rows("acme", SqlInput(uri, ENDLESS), timeout_s)
    took_s = time.monotonic() - began

    assert rows is None
    assert took_s < timeout_s + 1
    await_that(lambda: not processes(forks))


def test_nothing_is_left_running_in_the_server(counting: Counting, postgres: Postgres, postgresql: str) -> None:
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%penstock_query%' AND pid <> pg_backend_pid()"
    count = SqlInput(postgresql, "SELECT pg_sleep(600) FROM numbers")

    assert counting.rows("acme", count, 0.5) is None
    await_that(lambda: postgres.execute(running, postgresql) == [(0,)])


def test_a_server_ends_a_count_by_itself(postgresql: str) -> None:
    began = time.monotonic()

    assert count_soon(Connection(postgresql), "SELECT pg_sleep(20) FROM numbers", 0.5) is None
    assert time.monotonic() - began < 10


def test_a_locked_table_is_not_waited_for_longer(counting: Counting, postgres: Postgres, postgresql: str) -> None:
    with Connection(postgresql).open() as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE numbers IN ACCESS EXCLUSIVE MODE")

        assert counting.rows("acme", SqlInput(postgresql, "SELECT n FROM numbers"), 0.5) is None
        other.rollback()
    assert counting.rows("acme", SqlInput(postgresql, "SELECT n FROM numbers"), AMPLE_S) == 1000


def test_a_locked_file_is_not_waited_for_longer(counting: Counting, sqlite: str) -> None:
    with sqlite3.connect(Connection(sqlite).sqlite_path()) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()

        assert counting.rows("acme", SqlInput(sqlite, "SELECT n FROM numbers"), 0.3) is None
        assert time.monotonic() - began < 5
        other.rollback()
    other.close()


def test_nothing_of_an_input_is_touched_here(
    counting: Counting, parquet: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(*_: Any, **__: Any) -> Any:
        raise AssertionError("opened in the launcher itself")

    for name in ("transforms.sources.parquet.named_files", "transforms.sources.parquet.open_file", "sqlite3.connect"):
        monkeypatch.setattr(name, here)
    monkeypatch.setattr(Connection, "open", here)

    assert counting.rows("acme", ParquetInput((str(parquet),)), AMPLE_S) == 2500

    assert counting.rows("acme", SqlInput(uri, "SELECT n FROM numbers"), AMPLE_S) == 1000


def test_a_file_that_breaks_a_library_breaks_nobody_who_counts(counting: Counting, tmp_path: Path) -> None:
    # The tokenizer of its table is at an address that the query gives; some builds of SQLite jump there.
    path = tmp_path / "evil.db"
    database = sqlite3.connect(path, isolation_level=None)
    entry = "INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql) VALUES (?, ?, ?, 0, ?)"
    database.execute("CREATE VIRTUAL TABLE t USING fts3(c)")
    database.execute("INSERT INTO t (c) VALUES ('hello')")
    database.execute("PRAGMA writable_schema = ON")
    database.execute("DELETE FROM sqlite_master WHERE name = 't_content'")
    database.execute(entry, ("table", "evil", "evil", "CREATE VIRTUAL TABLE evil USING fts3(c, tokenize=evil)"))
    view = "CREATE VIEW t_content AS SELECT docid AS docid, c AS c0c FROM evil"
    database.execute(entry, ("view", "t_content", "t_content", view))
    database.close()
    jump = "SELECT 1 WHERE fts3_tokenizer('evil', x'4141414141414141') IS NOT NULL AND (SELECT count(c) FROM t) >= 0"

    with pytest.raises(InputError, match="fts3tokenize disabled"):
        counting.rows("acme", SqlInput(f"sqlite:///{path}", jump), AMPLE_S)


def test_a_query_that_needs_too_much_memory_is_not_counted(counting: Counting, sqlite: str) -> None:
    query = "SELECT n FROM numbers WHERE length(hex(zeroblob(n + 450000000))) > 0"

    assert counting.rows("acme", SqlInput(sqlite, query), AMPLE_S) is None
    assert counting.rows("acme", SqlInput(sqlite, query.replace("450000000", "45000")), AMPLE_S) == 1000


def test_a_database_that_is_pinned_is_so_there_too(counting: Counting, sqlite: str, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(Connection(sqlite).sqlite_path())
    query = SqlInput(f"sqlite:///{tmp_path}/link.db", "SELECT n FROM numbers")

    assert counting.rows("acme", query, AMPLE_S) == 1000
    with pytest.raises(ConnectionRefused, match="leads elsewhere"):
        counting.rows("acme", query, AMPLE_S, within=Bounds((str(tmp_path),)))


def test_nothing_is_counted_while_nobody_can_fork(sqlite: str) -> None:
    query = SqlInput(sqlite, "SELECT n FROM numbers")
    cold, broken = FakeForks(is_warm=False), FakeForks([ForkFailed("no room for a process")])

    assert Counting(cold, "/", {}).rows("acme", query, AMPLE_S) is None
    assert not cold.tasks
    assert Counting(broken, "/", {}).rows("acme", query, AMPLE_S) is None


def test_a_tenant_whose_counts_take_long_has_few_at_once_and_the_next_has_its_turn(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.estimate.counting._AT_ONCE", 4)
    monkeypatch.setattr("launcher.estimate.counting._TURN_S", AMPLE_S)
    query, at_it, go_on = SqlInput(sqlite, "SELECT n FROM numbers"), threading.Semaphore(0), threading.Event()

    def slow(_: Any) -> None:
        at_it.release()
        assert go_on.wait(AMPLE_S)
        raise ForkFailed("enough")

    counting = Counting(FakeForks(on_fork=slow), "/", {})
    with ThreadPoolExecutor(6) as threads:
        for _ in range(4):
            threads.submit(counting.rows, "acme", query, AMPLE_S)
            assert at_it.acquire(timeout=AMPLE_S)
        threads.submit(counting.rows, "globex", query, AMPLE_S)
        others_are = at_it.acquire(timeout=AMPLE_S)
        threads.submit(counting.rows, "acme", query, AMPLE_S)
        fifth_is = at_it.acquire(timeout=0.05)
        go_on.set()
        has_its_turn = at_it.acquire(timeout=AMPLE_S)

    assert (others_are, fifth_is, has_its_turn) == (True, False, True)


def test_a_tenant_s_counts_that_take_long_keep_none_that_is_short_from_being_made(
    counting: Counting, postgresql: str
) -> None:
    endless, short = SqlInput(postgresql, "SELECT pg_sleep(600) FROM numbers"), SqlInput(postgresql, "SELECT 1")
    with ThreadPoolExecutor(9) as threads:
        long = [threads.submit(counting.rows, "acme", endless, 0.5) for _ in range(8)]
        rows = threads.submit(counting.rows, "acme", short, AMPLE_S).result()

    assert rows == 1
    assert [each.result() for each in long] == [None] * 8


def test_a_server_that_is_cold_is_waited_for(tmp_path: Path, parquet: Path) -> None:
    cold = ForkServer(
        preload=LOOKS_PRELOAD,
        environment={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        log=tmp_path / "looks.log",
        on_exit=lambda pid, code: None,
        on_lost=lambda: None,
    )
    counting = Counting(cold, str(tmp_path), {})
    unstarted = counting.rows("acme", ParquetInput((str(parquet),)), AMPLE_S)
    cold.start()
    try:
        rows = counting.rows("acme", ParquetInput((str(parquet),)), AMPLE_S)
    finally:
        cold.close()

    assert (unstarted, rows) == (None, 2500)


def test_counting_changes_no_file_and_makes_none(counting: Counting, sqlite: str, tmp_path: Path) -> None:
    before = [(path.name, path.read_bytes()) for path in tmp_path.iterdir()]
    counting.rows("acme", SqlInput(sqlite, "SELECT n FROM numbers"), AMPLE_S)
    with pytest.raises(ConnectionRefused, match=r"there is no file .*none\.db"):
        counting.rows("acme", SqlInput(f"sqlite:///{tmp_path}/none.db", "SELECT 1"), AMPLE_S)

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == before


@pytest.fixture
def port() -> Iterator[int]:
    """A port where connections are taken and nobody ever says a word."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield silent.getsockname()[1]


def test_a_server_that_says_nothing_is_not_waited_for_longer(counting: Counting, forks: ForkServer, port: int) -> None:
    began = time.monotonic()

    assert counting.rows("acme", SqlInput(f"postgresql://u@127.0.0.1:{port}/db", "SELECT 1"), 0.5) is None
    assert time.monotonic() - began < 2
    await_that(lambda: not processes(forks))


def test_a_server_that_lets_in_and_says_no_more_leaves_neither_thread_nor_file(
    counting: Counting, forks: ForkServer
) -> None:
    own = psutil.Process()
    with mute_postgres() as uri:
        # The first makes what is made once.
        counts = [counting.rows("acme", SqlInput(uri, "SELECT 1"), 0.3)]
        before = threading.active_count(), own.num_fds()
        counts += [counting.rows("acme", SqlInput(uri, "SELECT 1"), 0.3) for _ in range(3)]
        await_that(lambda: not processes(forks))
        await_that(lambda: (threading.active_count(), own.num_fds()) <= before)

    assert counts == [None] * 4


def test_a_server_that_is_not_there_is_told_of_at_once(counting: Counting) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        free = taken.getsockname()[1]

        with pytest.raises(
            ConnectionRefused, match=r"connection postgresql://u:\*\*\*\*\*@127\.0\.0\.1:\d+/db: .*refused"
        ):
            counting.rows("acme", SqlInput(f"postgresql://u:secret@127.0.0.1:{free}/db", "SELECT 1"), AMPLE_S)
