import itertools
import os
import pickle
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import adbc_driver_sqlite.dbapi
import pytest
from adbc_driver_manager import dbapi

from launcher.rows.tablepages import read_as_arrow
from tests.servers import Postgres
from transforms.connection import Connection, ConnectionRefused
from transforms.sources.counting import count_soon


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("postgresql://u@h/db", "postgresql://u@h/db"),
        ("postgresql://u:secret@h:5432/db", "postgresql://u:*****@h:5432/db"),
        ("postgresql://u:${PW}@h/db", "postgresql://u:*****@h/db"),
        ("postgresql://h/db?user=u&password=secret", "postgresql://h/db?*****"),
        ("postgresql://u:sec@ret@h/db", "postgresql://u:*****@h/db"),
        ("postgresql://u:sec/ret@h/db", "postgresql://u:*****@h/db"),
        ("postgresql://u:sec?ret@h/db", "postgresql://*****"),
        ("postgresql://h/db?password=sec@ret", "postgresql://*****"),
        ("sqlite:///data/a:b@c.db", "sqlite:///data/a:b@c.db"),
        ("${DATABASE_URL}", "${DATABASE_URL}"),
        ("${DATABASE_URL}?password=secret", "${DATABASE_URL}*****"),
        ("secret", "*****"),
    ],
)
def test_a_connection_is_shown_without_its_secrets(template: str, shown: str) -> None:
    connection = Connection(template)

    assert connection.describe() == shown
    assert repr(connection) == f"Connection({shown!r})"


def test_a_pickled_connection_holds_the_name_of_the_variable_not_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "hunter2")
    connection = Connection("postgresql://u:${PW}@h/db")

    assert connection.expanded() == "postgresql://u:hunter2@h/db"
    assert b"hunter2" not in pickle.dumps(connection)


@pytest.mark.parametrize(
    ("value", "expanded"),
    [
        ("a/b@c:d?e#f g", "a%2Fb%40c%3Ad%3Fe%23f%20g"),
        ("100%", "100%25"),
        ("a%40b", "a%40b"),
        ("plain-._~!$&'()*+,;=", "plain-._~!$&'()*+,;="),
    ],
    ids=["reserved", "bare percent", "encoded already", "allowed as it is"],
)
def test_a_password_from_a_variable_may_hold_any_characters(
    value: str, expanded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PW", value)

    assert Connection("postgresql://u:${PW}@h/db").expanded() == f"postgresql://u:{expanded}@h/db"


def test_variables_elsewhere_are_filled_in_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@h/db?sslmode=require")
    monkeypatch.setenv("FOLDER", "/data/x y")

    assert Connection("${DATABASE_URL}").expanded() == "postgresql://u:p@h/db?sslmode=require"
    assert Connection("sqlite:///${FOLDER}/a.db").sqlite_path() == "/data/x y/a.db"


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PW", raising=False)

    with pytest.raises(ConnectionRefused, match="environment variable PW is not set"):
        Connection("postgresql://u:${PW}@h/db").open()


def test_what_is_no_uri_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "hunter2")

    with pytest.raises(ConnectionRefused, match=r"\$\{DATABASE_URL\}: this is not a URI") as refused:
        Connection("${DATABASE_URL}").open()
    assert "hunter2" not in str(refused.value)


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(ConnectionRefused, match="scheme 'mysql' is not known"):
        _ = Connection("mysql://u:p@h/db").dialect


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("postgresql://u:hunter2@h/db", "no route for postgresql://u:hunter2@h/db"),
        ("postgresql://u:hunter2@h/db", "password hunter2 is wrong"),
        ("postgresql://u:hun%2Fter2@h/db", "password hun/ter2 is wrong"),
        ("postgresql://h/db?password=hunter2", "password hunter2 is wrong"),
        ("postgresql://u:x@hunter2@h/db", 'could not translate host name "hunter2@h"'),
        ("postgresql://u:${PW}@h/db", "password hun@ter2 is wrong"),
        ("postgresql://u:hun%20%20ter2@h/db", "password hun  ter2 is wrong"),
        ("postgresql://u:hun\tter2@h/db", "password hun\tter2 is wrong"),
    ],
)
def test_a_drivers_message_is_freed_of_secrets(template: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "hun@ter2")

    assert "ter2" not in Connection(template).mask(message)


def test_a_wrong_password_is_refused_without_repeating_it(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = postgres.role(database, password="right")
    monkeypatch.setenv("PW", "hunter2/@wrong")

    with pytest.raises(ConnectionRefused, match=r"^connection .*password authentication failed") as refused:
        Connection(uri.replace(":right@", ":${PW}@")).open()
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_password_with_odd_characters_lets_us_in(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = postgres.role(database, password="a/b@c:d?e#f%41")
    user = uri.partition("://")[2].partition(":")[0]
    monkeypatch.setenv("PW", "a/b@c:d?e#f%41")
    template = f"postgresql://{user}:${{PW}}@{uri.rpartition('@')[2]}"

    with Connection(template).open() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user::text")
        assert cursor.fetchall() == [(user,)]


def test_a_server_that_is_not_there_is_named(unused_port: int) -> None:
    with pytest.raises(
        ConnectionRefused, match=f"postgresql://u:\\*+@127.0.0.1:{unused_port}/db: .*Connection refused"
    ):
        Connection(f"postgresql://u:hunter2@127.0.0.1:{unused_port}/db").open()


def test_a_missing_sqlite_file_is_named_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConnectionRefused, match=r"there is no file .*missing\.db"):
        Connection(f"sqlite:///{tmp_path}/missing.db").open(read_only=True)
    assert not (tmp_path / "missing.db").exists()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(params=["postgres", "sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/a.db"
    uri: str = request.getfixturevalue("database")
    return uri


def _run(uri: str, sql: str) -> list[tuple[object, ...]]:
    with Connection(uri).open(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def test_what_is_committed_stays_and_what_is_rolled_back_goes(uri: str) -> None:
    _run(uri, "CREATE TABLE t (i BIGINT)")

    with Connection(uri).open() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (1)")
        connection.commit()
        cursor.execute("INSERT INTO t VALUES (2)")
        connection.rollback()

    assert _run(uri, "SELECT i FROM t") == [(1,)]


def test_a_read_only_connection_cannot_write(uri: str) -> None:
    _run(uri, "CREATE TABLE t (i BIGINT)")

    with (
        Connection(uri).open(read_only=True) as connection,
        connection.cursor() as cursor,
        pytest.raises(dbapi.Error, match=r"read.?only"),
    ):
        cursor.execute("INSERT INTO t VALUES (1)")


def test_a_sqlite_writer_waits_for_the_one_before(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/a.db"
    _run(uri, "CREATE TABLE t (i BIGINT)")
    started = threading.Event()

    def write() -> None:
        started.set()
        _run(uri, "INSERT INTO t VALUES (2)")

    writer = threading.Thread(target=write)
    # Not Python's sqlite3: two SQLite libraries in one process do not see each other's locks.
    with Connection(uri).open() as other, other.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (1)")
        writer.start()
        started.wait(60)
        writer.join(0.2)
        waited = writer.is_alive()
        other.commit()
    writer.join(60)

    assert waited
    assert _run(uri, "SELECT i FROM t") == [(1,), (2,)]


def test_text_arrives_as_utf8_from_a_database_in_another_encoding(postgres: Postgres) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")

    assert _run(f"{postgres.uri.rpartition('/')[0]}/latin", "SELECT chr(233)") == [("é",)]


def test_our_name_is_shown_to_the_servers_administrator(database: str) -> None:
    assert _run(database, "SELECT current_setting('application_name')") == [("penstock",)]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "INVALID_ARGUMENT: [libpq] Failed to execute query: could not begin COPY: ERROR:  syntax error at or near "
            '";"\nLINE 1: COPY (select 1; ) TO STDOUT\n                      ^\n\nQuery was: COPY (select 1; ). '
            "SQLSTATE: 42601",
            'syntax error at or near ";"',
        ),
        ("INVALID_ARGUMENT: [SQLite] Failed to prepare query: no such table: t\nquery: SELECT 1", "no such table: t"),
        ("IO: Failed to step query: database is locked", "database is locked"),
        (
            'IO: [libpq] Failed to connect: connection to server at "h" failed: FATAL:  role "u" does not exist\n',
            'role "u" does not exist',
        ),
        ("ERROR:  no\nDETAIL:  because\nHINT:  ask. SQLSTATE: 42601", "no DETAIL: because HINT: ask"),
    ],
    ids=["postgres", "sqlite", "sqlite step", "connect", "detail and hint"],
)
def test_a_reason_is_what_the_database_said(message: str, reason: str) -> None:
    error = dbapi.ProgrammingError(message, status_code=5)

    assert Connection("postgresql://u@h/db").reason(error) == reason


class TestPinned:
    """A SQLite database whose path was looked at: another file that takes its name is not read, nor written."""

    @pytest.fixture(autouse=True)
    def databases(self, tmp_path: Path) -> Iterator[None]:
        """A tenant's database, and one of the same name that another has open, both with a log (WAL)."""
        self.own, self.other = tmp_path / "own", tmp_path / "other"
        self.connection = Connection(f"sqlite:///{self.own}/data.db", pinned=True)
        for folder in (self.own, self.other):
            folder.mkdir()
            made = sqlite3.connect(folder / "data.db", isolation_level=None)
            made.execute("PRAGMA journal_mode = WAL")
            made.execute("CREATE TABLE t (x)")
            made.execute("INSERT INTO t VALUES (?)", (folder.name,))
            if folder == self.own:
                made.close()
        with closing(sqlite3.connect(self.other / "named.db")) as database:
            database.execute("CREATE TABLE t (x)")
        with closing(made):
            yield

    def rows(self, **options: Any) -> list[tuple[Any, ...]]:
        with self.connection.open(**options) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT x FROM t")
            return list(cursor.fetchall())

    def link_file(self) -> None:
        (self.own / "data.db").unlink()
        (self.own / "data.db").symlink_to(self.other / "data.db")

    def link_to_another_name(self) -> None:
        (self.own / "data.db").unlink()
        (self.own / "data.db").symlink_to(self.other / "named.db")

    def link_folder(self) -> None:
        self.own.rename(self.own.parent / "aside")
        self.own.symlink_to(self.other)

    @pytest.mark.parametrize("read_only", [True, False])
    @pytest.mark.parametrize("autocommit", [True, False])
    def test_the_file_at_that_place_is_opened(self, read_only: bool, autocommit: bool) -> None:
        assert self.rows(read_only=read_only, autocommit=autocommit) == [("own",)]

    def test_one_that_is_not_there_yet_is_made(self) -> None:
        connection = Connection(f"sqlite:///{self.own}/new.db", pinned=True)
        with connection.open(autocommit=True) as opened, opened.cursor() as cursor:
            cursor.execute("CREATE TABLE t (x)")

        assert (self.own / "new.db").stat().st_size

    @pytest.mark.parametrize("exchange", [link_file, link_to_another_name, link_folder], ids=["file", "name", "folder"])
    def test_a_link_that_came_before_is_refused(self, exchange: Callable[["TestPinned"], None]) -> None:
        exchange(self)

        with pytest.raises(ConnectionRefused, match="leads elsewhere"):
            self.rows()

    @pytest.mark.parametrize("when", ["before it is opened", "before its log is opened"])
    @pytest.mark.parametrize("exchange", [link_file, link_to_another_name, link_folder], ids=["file", "name", "folder"])
    def test_a_link_that_comes_in_the_middle_is_refused_or_does_nothing(
        self, exchange: Callable[["TestPinned"], None], when: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect = adbc_driver_sqlite.dbapi.connect
        before = {path.name: path.read_bytes() for path in self.other.iterdir()}

        def exchange_and_connect(*args: Any, **named: Any) -> dbapi.Connection:
            if when == "before it is opened":
                exchange(self)
                return connect(*args, **named)
            connection = connect(*args, **named)
            exchange(self)
            return connection

        monkeypatch.setattr(adbc_driver_sqlite.dbapi, "connect", exchange_and_connect)
        is_harmless = exchange is not TestPinned.link_folder and when == "before its log is opened"

        if is_harmless:
            # What was opened is the tenant's own file, and its log has its name.
            assert self.rows() == [("own",)]
        else:
            with pytest.raises(ConnectionRefused, match="leads elsewhere"):
                self.rows()
        assert {path.name: path.read_bytes() for path in self.other.iterdir() if path.name in before} == before

    def test_a_writer_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connect, tries = adbc_driver_sqlite.dbapi.connect, itertools.count(1)
        # By the same library, or closing the file would let go of its lock.
        with self.connection.open(autocommit=True) as connection, connection.cursor() as writer:
            writer.execute("PRAGMA journal_mode = DELETE")
            writer.execute("BEGIN EXCLUSIVE")
            writer.execute("INSERT INTO t VALUES ('more')")

            def connect_anew(*args: Any, **named: Any) -> dbapi.Connection:
                if next(tries) == 2:
                    writer.execute("COMMIT")
                return connect(*args, **named)

            monkeypatch.setattr(adbc_driver_sqlite.dbapi, "connect", connect_anew)

            assert self.rows() == [("own",), ("more",)]
        assert next(tries) == 3

    def test_so_it_is_where_the_service_counts_and_shows_rows(self) -> None:
        self.link_to_another_name()

        for read in (
            lambda: count_soon(self.connection, "SELECT x FROM t", 60),
            lambda: read_as_arrow(asdict(self.connection), "t", "job_1", 0, 1),
        ):
            with pytest.raises(ConnectionRefused, match="leads elsewhere"):
                read()

    def write_journal(self, names: Path | None) -> None:
        """Leave what a program leaves that was killed before it committed: https://sqlite.org/fileformat2.html."""
        magic = bytes.fromhex("d9d505f920a163d7")
        # No page is to be undone, of a database of 2 pages of 4096 bytes, on a disk of sectors of 512.
        journal = (magic + struct.pack(">5I", 0, 1, 2, 512, 4096)).ljust(512, b"\0")
        if names is not None:
            name = os.fsencode(names)
            # Behind the page that no database has, which is at 1 GiB.
            journal += struct.pack(">I", 2**30 // 4096 + 1) + name
            journal += struct.pack(">2I", len(name), sum(name)) + magic
        with self.connection.open(autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = DELETE")
        (self.own / "data.db-journal").write_bytes(journal)

    @pytest.mark.parametrize("read_only", [True, False])
    def test_a_journal_does_not_have_another_file_removed(self, read_only: bool) -> None:
        victim = self.other / "victim"
        victim.write_text("precious")
        self.write_journal(victim)

        with pytest.raises(ConnectionRefused, match="open the file once" if read_only else "names another file"):
            self.rows(read_only=read_only)
        assert victim.exists()

    def test_a_journal_that_names_none_is_undone_by_who_may_write(self) -> None:
        self.write_journal(None)

        with pytest.raises(ConnectionRefused, match="open the file once, as with sqlite3"):
            self.rows(read_only=True)
        assert self.rows() == [("own",)]
        assert self.rows(read_only=True) == [("own",)]

    def test_what_is_no_database_is_refused(self) -> None:
        (self.own / "data.db").write_text("no database" * 1000)

        with pytest.raises(ConnectionRefused, match="not a database"):
            self.rows()
