import pickle
import threading
from pathlib import Path

import pytest
from adbc_driver_manager import dbapi

from tests.servers import Postgres
from transforms.connection import Connection, ConnectionRefused


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
