"""A PostgreSQL of our own in a temporary folder, gone when the benchmark ends."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A server refuses to run as root; Debian's package makes this user.
SERVER_USER = "postgres"
START_TIMEOUT_S = 60
# Durability as installed. Checkpoints and autovacuum, which would hit one program or another by chance, are kept out
# of the runs: there is room for the log of a whole run, and each run starts behind a checkpoint.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
}


class PostgresMissing(Exception):
    """No PostgreSQL server is installed here."""


def server_programs() -> Path:
    """The folder of the newest installed `postgres` and `initdb`.

    Raises:
        PostgresMissing: there is none, neither in Debian's place nor on the PATH.
    """
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    on_path = shutil.which("initdb")
    if installed:
        return installed[-1].parent
    if on_path:
        return Path(on_path).resolve().parent
    raise PostgresMissing("no initdb in /usr/lib/postgresql/*/bin or on the PATH")


@contextmanager
def postgres_server() -> Iterator[str]:
    """Yield the URI of a database of its own server, whom everyone on this machine may enter.

    Raises:
        PostgresMissing: no server is installed.
    """
    programs = server_programs()
    user = SERVER_USER if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-postgres-"))
    if user:
        shutil.chown(folder, user, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    role = user or getpass.getuser()
    data = folder / "data"
    try:
        subprocess.run(
            [programs / "initdb", "--auth=trust", "--encoding=UTF8", "--no-locale", f"--username={role}", data],
            check=True,
            stdout=subprocess.DEVNULL,
            user=user,
            group=user,
            cwd=folder,
        )
        settings = SETTINGS | {"port": str(port), "unix_socket_directories": str(folder)}
        with (
            (folder / "server.log").open("w") as log,
            subprocess.Popen(
                [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in settings.items())],
                stdout=log,
                stderr=subprocess.STDOUT,
                user=user,
                group=user,
                cwd=folder,
                start_new_session=True,  # Ctrl-C is for us; we then stop the server
            ) as server,
        ):
            try:
                _wait_until_ready([str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)], server)
                yield f"postgresql://{role}@127.0.0.1:{port}/postgres"
            finally:
                server.send_signal(signal.SIGINT)  # "fast shutdown"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(probe: list[str], server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while subprocess.run(probe).returncode != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"PostgreSQL did not start within {START_TIMEOUT_S} s")
        time.sleep(0.1)
