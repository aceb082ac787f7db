"""What a failure means for the job, told of errors that real databases give."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import adbc_driver_postgresql.dbapi
import adbc_driver_sqlite.dbapi
import pytest

from launcher.errors import Conflict, HostUnknown, StoreUnavailable
from launcher.state.sql import SqlJobStore
from launcher.worker.failures import LONGEST_WAIT_S, Unexpected, is_passing, outcome_of, wait_s
from predictors.answers import Unfit
from predictors.errors import ModelNotLoadable, OutOfMemory, SchemaMismatch, Transient, WrongAnswer
from tests.conftest import lacking
from tests.servers import Postgres, ServerMissing, postgres_server
from transforms.connection import Connection
from transforms.errors import ConnectionRefused, InputError, OutputError, TooManyRejects


def caught(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing failed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def opened(uri: str) -> Exception:
    return caught(lambda: Connection(uri).open())


def run(uri: str, *statements: str) -> Exception:
    def statements_of() -> None:
        with adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    return caught(statements_of)


# --- connecting --------------------------------------------------------------------------------------------------


def test_a_wrong_password_will_be_wrong_again(postgres: Postgres, database: str) -> None:
    wrong = postgres.role(database, "right").replace(":right@", ":wrong@")
    error = opened(wrong)

    assert isinstance(error, ConnectionRefused)
    assert not is_passing(error)
    assert not is_passing(caught(lambda: _raise(OutputError("cannot be written"), error)))


def test_a_wrong_password_stays_one_though_another_address_was_not_there(postgres: Postgres, database: str) -> None:
    wrong = postgres.role(database, "right").replace(":right@", f":wrong@127.0.0.1:{free_port()},")
    error = opened(wrong)

    assert "Connection refused" in str(error.__cause__)
    assert "password authentication failed" in str(error)
    assert not is_passing(error)


def test_a_database_that_is_not_there_will_not_come_by_itself(database: str) -> None:
    assert not is_passing(opened(database + "_not"))


def test_who_is_not_there_may_come_back() -> None:
    assert is_passing(opened(f"postgresql://postgres@127.0.0.1:{free_port()}/db"))


def test_a_host_without_an_address_may_get_one() -> None:
    assert is_passing(opened("postgresql://postgres@db.invalid/db"))
    assert is_passing(caught(lambda: _raise(HostUnknown("db"), socket.gaierror(-3, "Temporary failure"))))


def test_too_many_connections_become_fewer(postgres: Postgres, database: str) -> None:
    role = postgres.role(database)
    postgres.execute(f"ALTER ROLE {role.split('//')[1].split('@')[0]} CONNECTION LIMIT 0")
    error = opened(role)

    assert "too many connections" in str(error)
    assert is_passing(error)


def test_a_file_that_is_not_there_stays_away(tmp_path: Path) -> None:
    assert not is_passing(caught(lambda: Connection(f"sqlite:///{tmp_path}/no.db").open(read_only=True)))


# --- statements --------------------------------------------------------------------------------------------------


def test_a_connection_that_was_cut_off_passes(postgres: Postgres, database: str) -> None:
    error = run(database, "SELECT pg_terminate_backend(pg_backend_pid())", "SELECT 1")

    assert is_passing(error)
    assert is_passing(caught(lambda: _raise(OutputError("the table cannot be written"), error)))


def test_a_lock_that_is_not_to_be_had_passes(database: str) -> None:
    with adbc_driver_postgresql.dbapi.connect(database) as holder, holder.cursor() as cursor:
        cursor.execute("CREATE TABLE held (a int)")
        holder.commit()
        cursor.execute("LOCK TABLE held")

        assert is_passing(run(database, "SET lock_timeout = '10ms'", "INSERT INTO held VALUES (1)"))


def test_a_transaction_that_lost_to_another_passes(postgres: Postgres, database: str) -> None:
    postgres.execute("CREATE TABLE rows (a int)", database)
    postgres.execute("INSERT INTO rows VALUES (1)", database)
    with adbc_driver_postgresql.dbapi.connect(database) as late, late.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        cursor.execute("SELECT * FROM rows")
        cursor.fetchall()
        postgres.execute("UPDATE rows SET a = 2", database)

        assert is_passing(caught(lambda: cursor.execute("UPDATE rows SET a = 3")))


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("SELECT * FROM nothing", id="no such table"),
        pytest.param("SELECT 1 +", id="no SQL"),
        pytest.param("SELECT 1 / 0", id="no such number"),
        pytest.param("DO $$ BEGIN RAISE EXCEPTION 'connection refused'; END $$", id="words of another"),
    ],
)
def test_what_a_statement_has_wrong_stays_wrong(database: str, statement: str) -> None:
    error = run(database, statement)

    assert not is_passing(error)
    assert not is_passing(caught(lambda: _raise(InputError("input.query fails"), error)))


def test_another_writer_of_sqlite_ends_some_time(tmp_path: Path) -> None:
    path = str(tmp_path / "rows.db")
    connect = adbc_driver_sqlite.dbapi.connect
    with (
        connect(path, autocommit=True) as one,
        one.cursor() as writer,
        connect(path, autocommit=True) as other,
        other.cursor() as reader,
    ):
        writer.execute("CREATE TABLE rows (a)")
        writer.execute("BEGIN EXCLUSIVE")
        locked = caught(lambda: reader.execute("SELECT * FROM rows").fetchall())
        writer.execute("ROLLBACK")
        missing = caught(lambda: reader.execute("SELECT * FROM other").fetchall())

    assert "locked" in str(locked)
    assert is_passing(locked)
    assert not is_passing(missing)


def test_a_server_that_stops_may_start_again(tmp_path: Path) -> None:
    try:
        with postgres_server() as server:
            uri = server.database()
            store = SqlJobStore.named(uri, tmp_path / "unused.db")
            connection = Connection(uri).open(autocommit=True)
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                # A fast shutdown: whoever is connected is told, and cut off.
                os.kill(server.pid, signal.SIGINT)
                during = caught(lambda: [cursor.execute("SELECT pg_sleep(0.01)") for _ in range(10_000)])
            connection.close()
            asked = caught(lambda: store.jobs())
            after = opened(uri)
            store.close()
    except ServerMissing as missing:
        lacking(str(missing))

    assert is_passing(during), during
    assert is_passing(after), after
    assert isinstance(asked, StoreUnavailable)
    assert is_passing(asked)


# --- errors without a database -------------------------------------------------------------------------------------


def _raise(error: Exception, cause: Exception) -> None:
    raise error from cause


def while_handling(error: Exception, raised: Exception) -> Exception:
    def call() -> None:
        try:
            raise error
        except Exception:
            raise raised  # noqa: B904

    return caught(call)


def instead_of(error: Exception, raised: Exception) -> Exception:
    def call() -> None:
        try:
            raise error
        except Exception:
            raise raised from None

    return caught(call)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        pytest.param(StoreUnavailable("away"), True, id="store"),
        pytest.param(Transient("busy"), True, id="transient"),
        pytest.param(ConnectionResetError(), True, id="reset"),
        pytest.param(TimeoutError(), True, id="timeout"),
        pytest.param(OutputError("no"), False, id="output"),
        pytest.param(SchemaMismatch("no"), False, id="schema"),
        pytest.param(ModelNotLoadable("no"), False, id="model"),
        pytest.param(Conflict("batch-1", "failed", ("running",)), False, id="conflict"),
        pytest.param(ValueError("connection refused"), False, id="words of a row"),
        pytest.param(MemoryError(), False, id="memory"),
        pytest.param(SystemExit(3), False, id="exit"),
        pytest.param(caught(lambda: _raise(OutputError("no"), ConnectionResetError())), True, id="caused by a reset"),
        pytest.param(
            caught(lambda: _raise(TooManyRejects("2 of 3"), ConnectionResetError())), False, id="too many rejects"
        ),
        pytest.param(while_handling(TimeoutError(), OutputError("no")), True, id="while handling a timeout"),
        pytest.param(instead_of(TimeoutError(), OutputError("no")), False, id="said to have nothing to do with it"),
    ],
)
def test_another_attempt_is_made_of_what_may_pass(error: BaseException, passes: bool) -> None:
    assert is_passing(error) is passes


def test_a_circle_of_causes_is_walked_once() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first

    assert not is_passing(first)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TooManyRejects("2 of 3"), "too_many_rejects"),
        (MemoryError(), "out_of_memory"),
        (OutOfMemory("no room"), "out_of_memory"),
        (caught(lambda: _raise(OutputError("no"), MemoryError())), "out_of_memory"),
        (OutputError("no"), "error"),
        (KeyError("x"), "error"),
    ],
)
def test_the_end_is_called_by_what_it_came_of(error: BaseException, outcome: str) -> None:
    assert outcome_of(error) == outcome


@pytest.mark.parametrize(
    ("retries", "first_s", "least", "most"),
    [
        pytest.param(0, 1.0, 0.5, 1.0, id="first"),
        pytest.param(1, 1.0, 1.0, 2.0, id="second"),
        pytest.param(5, 1.0, 16.0, 32.0, id="sixth"),
        pytest.param(6, 1.0, 30.0, 60.0, id="longest"),
        pytest.param(100_000, 1.0, 30.0, 60.0, id="very many"),
        pytest.param(3, 0.0, 0.0, 0.0, id="no wait"),
        pytest.param(0, 100.0, 50.0, 100.0, id="longer than the longest"),
        pytest.param(9, 100.0, 50.0, 100.0, id="stays as long"),
    ],
)
def test_waits_double_up_to_the_longest(retries: int, first_s: float, least: float, most: float) -> None:
    assert wait_s(retries, first_s, random_unit=0.0) == least
    assert wait_s(retries, first_s, random_unit=1.0) == most
    assert least <= wait_s(retries, first_s) <= most
    assert most <= max(LONGEST_WAIT_S, first_s)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("text", ["Error\nTraceback (most …)", None], ids=["in the text", "beside it"])
@pytest.mark.parametrize(
    ("name", "error", "is_told"),
    [
        ("apache_beam.runners.worker.sdk_worker", TooManyRejects("9 of 10 rows were rejected"), False),
        ("apache_beam.runners.worker.sdk_worker", ValueError("a bug"), True),
        ("launcher", TooManyRejects("9 of 10 rows were rejected"), True),
        ("apache_beam.runners.common", caused(WrongAnswer("y holds 1.5"), Unfit("1.5", 0)), False),
        ("apache_beam.runners.common", caused(WrongAnswer("y holds 1.5"), ValueError("a bug")), True),
        ("apache_beam.io.mongodbio", ValueError("no bson"), False),
    ],
    ids=["expected", "unexpected", "our own", "an answer", "of a bug", "noise"],
)
def test_an_expected_error_has_no_traceback_in_the_log(
    name: str, error: Exception, is_told: bool, text: str | None
) -> None:
    try:
        raise error
    except Exception:
        beside = None if text else sys.exc_info()
        record = logging.LogRecord(name, logging.ERROR, "", 0, text or "Error", None, beside)

        assert Unexpected().filter(record) is is_told
