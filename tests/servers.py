"""Real servers for tests: started on free loopback ports in folders of their own, and gone with the tests."""

import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import adbc_driver_postgresql.dbapi

# initdb and a start take 2 s on an idle machine; a loaded one gets this long.
START_S = 60


class ServerMissing(Exception):
    """This machine cannot run the server."""


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server of our own on a loopback port, where everyone is let in without a password.

    Exceptions to that are the roles that `role` makes: they must give theirs.
    """

    port: int
    pid: int

    @property
    def uri(self) -> str:
        """The maintenance database, as superuser; for `CREATE DATABASE` and `CREATE ROLE`, not for tables."""
        return self._uri("postgres")

    def database(self) -> str:
        """Make a fresh, empty database and return its URI, as superuser."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self._uri(name)

    def role(self, uri: str, password: str | None = None) -> str:
        """Make a fresh role without any rights and return `uri` with it as the user.

        Args:
            uri: a database's URI, as from `database`.
            password: what the role must give from now on; none is asked when None.
        """
        name = f"role_{uuid.uuid4().hex[:12]}"
        member = "" if password is None else f" PASSWORD '{password}' IN ROLE with_password"
        self.execute(f"CREATE ROLE {name} LOGIN{member}")
        return uri.replace("postgres@", f"{name}@" if password is None else f"{name}:{quote(password, safe='')}@")

    def execute(self, sql: str, uri: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement by itself and return its rows, if it has any."""
        with (
            adbc_driver_postgresql.dbapi.connect(uri or self.uri, autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def _uri(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Run a PostgreSQL server from Debian's binaries, or those on the path, until the block ends.

    Should this process be killed, the kernel stops the server, too.

    Raises:
        ServerMissing: PostgreSQL is not installed, or may not run under any user we can become.
    """
    binaries = _postgres_binaries()
    user = _postgres_user()
    # Not below pytest's folder: that is closed to the user the server runs as.
    folder = Path(tempfile.mkdtemp(prefix=f"penstock-postgres-{os.getpid()}-", dir=_quick_folder()))
    try:
        shutil.chown(folder, user)
        data = folder / "data"
        initdb = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-A",
            "trust",
            "-N",
        ]
        _checked(_as_user(user, initdb))
        hba = data / "pg_hba.conf"
        hba.write_text("host all +with_password 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
        log = folder / "log"
        with open(log, "wb") as output:
            port = _free_port()
            process = subprocess.Popen(
                _as_user(user, [binaries / "postgres", "-D", data, *_settings(port)]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            server = Postgres(port, process.pid)
            _await_postgres(server, process, log)
            server.execute("CREATE ROLE with_password")
            yield server
        finally:
            _stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _quick_folder() -> str | None:
    """A folder in memory where there is plenty, for each database is 300 files; None is the usual one."""
    memory = Path("/dev/shm")
    for left in memory.glob("penstock-postgres-*-*"):
        # Of a process that was killed, and could not remove it.
        if not Path("/proc", left.name.split("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    plenty = 4 * 1024**3
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > plenty else None


def _settings(port: int) -> list[str]:
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": 100,
        # A test's data need not outlive a power cut.
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "max_wal_size": "1GB",
        "shared_buffers": "256MB",
    }
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _postgres_binaries() -> Path:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = str(versions[-1]) if versions else shutil.which("initdb")
    if found is None:
        raise ServerMissing("PostgreSQL is not installed: no initdb below /usr/lib/postgresql or on the path")
    return Path(found).parent


def _postgres_user() -> str:
    """Who the server runs as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return getpass.getuser()
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise ServerMissing("PostgreSQL does not run as root, and there is no user postgres") from None


def _as_user(user: str, command: list[Any]) -> list[str]:
    """`command` under `user`, stopped by the kernel when the thread that started it ends."""
    switch = ["--reuid", user, "--regid", user, "--clear-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *switch, "--pdeathsig", "INT", "--", *map(str, command)]


def _checked(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=START_S, cwd="/")
    if done.returncode != 0:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_postgres(server: Postgres, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            server.execute("SELECT 1")
            return
        except adbc_driver_postgresql.dbapi.Error as error:
            refused = error
        try:
            # Polls, and notices at once when the server has given up.
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            if time.monotonic() < deadline:
                continue
        raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}") from refused


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Tell the server to go at once, without a checkpoint: nobody will open its data again."""
    process.send_signal(signal.SIGQUIT)
    try:
        process.wait(timeout=START_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
