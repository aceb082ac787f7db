"""`penstock serve` as a process: where it listens, what it says, how it stops."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from launcher import serve
from launcher.cli import main
from launcher.cli.exits import DONE, WRONG
from launcher.home import Home
from launcher.state.database import Database
from launcher.state.keys import KeyStore
from tests.api import BATCH, wait_for

# A fork server that imports no Beam is warm at once.
PROGRAM = """
import sys
from launcher.serve import serve
serve(sys.argv[1], int(sys.argv[2]), preload=("launcher.worker.jobprocess", "tests.unit.launcher_fakes"),
      attempt_module="tests.unit.launcher_fakes")
print("apache_beam" in sys.modules)
"""
# What is in flight is given five seconds.
STOPS_WITHIN_S = 15


@dataclass
class Serving:
    process: "subprocess.Popen[str]"
    url: str
    errors: Path

    def logged(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.errors.read_text().splitlines()]

    def stop(self, by: signal.Signals = signal.SIGTERM) -> str:
        """Stop it; returns what else it said on its standard output."""
        self.process.send_signal(by)
        said, _ = self.process.communicate(timeout=STOPS_WITHIN_S)
        return said


@contextlib.contextmanager
def serving(tmp_path: Path, host: str = "127.0.0.1", port: int = 0) -> Iterator[Serving]:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    errors = tmp_path / "errors"
    environment = {
        **os.environ,
        "PENSTOCK_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PENSTOCK_JOB_ENVIRONMENT": "PYTHONPATH",
    }
    with open(errors, "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, host, str(port)],
            cwd=work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Penstock listens on http://"), errors.read_text()
        yield Serving(process, line.split()[-1], errors)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def made_key(tmp_path: Path, tenant: str) -> str:
    home = Home(tmp_path / "home")
    home.create()
    database = Database.named(None, home.store)
    _, token = KeyStore(database).create(tenant, "viewer")
    database.close()
    return token


def test_without_keys_this_machine_alone_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path, "0.0.0.0") as served:
        alive = httpx.get(f"{served.url}/healthz")
        wait_for(lambda: httpx.get(f"{served.url}/readyz").status_code == 200)
        missing = httpx.get(f"{served.url}{BATCH}/batch-0123456789", headers={"X-Request-ID": "request-0001"})
        said = served.stop()

    assert served.url.startswith("http://127.0.0.1:")
    assert alive.json() == {"status": "ok"}
    assert missing.status_code == 404
    # It never imports Beam.
    assert said.split() == ["False"]
    assert served.process.returncode == 0
    told = served.logged()
    (warning,) = [line for line in told if line["level"] == "WARNING"]
    assert "there is no API key" in str(warning["message"])
    assert "not on 0.0.0.0" in str(warning["message"])
    (access,) = [line for line in told if line.get("request_id") == "request-0001"]
    assert (access["job_id"], access["tenant"], access["status_code"]) == ("batch-0123456789", "default", 404)
    assert "no job is at work" in str(told[-1]["message"])


def test_with_a_key_the_host_that_was_asked_for_is_listened_on(tmp_path: Path) -> None:
    token = made_key(tmp_path, "acme")

    with serving(tmp_path, "0.0.0.0") as served:
        url = served.url.replace("0.0.0.0", "127.0.0.1")
        refused = httpx.get(f"{url}{BATCH}")
        answered = httpx.get(f"{url}{BATCH}", headers={"Authorization": f"Bearer {token}", "Host": "batch.example"})
        served.stop(signal.SIGINT)

    assert served.url.startswith("http://0.0.0.0:")
    assert (refused.status_code, answered.status_code) == (401, 200)
    assert served.process.returncode == 0
    assert token not in served.errors.read_text()


def test_tenants_that_share_their_folders_are_told_of_at_once(tmp_path: Path) -> None:
    for tenant in ("acme", "globex"):
        made_key(tmp_path, tenant)

    with serving(tmp_path) as served:
        served.stop()

    (warning,) = [line for line in served.logged() if line["level"] == "WARNING"]
    assert str(warning["message"]) == (
        "2 tenants (acme, globex) share folders, and each may read and replace what is another's: "
        "PENSTOCK_ALLOWED_PATHS is not set; set it as in PENSTOCK_ALLOWED_PATHS=/data/{tenant} for the service"
    )


def test_a_head_that_never_ends_is_refused(tmp_path: Path) -> None:
    # What else a connection bears is in test_api_protocol.py.
    with serving(tmp_path) as served:
        port = int(served.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=STOPS_WITHIN_S) as connection:
            connection.sendall(b"GET /healthz?" + b"a" * 65536)
            refused = connection.recv(65536)
        alive = httpx.get(f"{served.url}/healthz")
        served.stop()

    assert refused.startswith(b"HTTP/1.1 431 ")
    assert alive.json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [(resource.RLIM_INFINITY, 1000), (20_000, 1000), (1024, 774), (256, 50)],
    ids=["any", "many", "by default", "few"],
)
def test_connections_leave_descriptors_for_all_else(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (descriptors, descriptors))

    assert serve._connections() == connections


def test_jobs_go_on_when_it_stops_and_streams_end(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        wait_for(lambda: httpx.get(f"{served.url}/readyz").status_code == 200)
        (tmp_path / "work" / "churn.onnx").write_bytes(b"")
        (tmp_path / "work" / "in").mkdir()
        model = {"model_id": "m", "uri": "churn.onnx", "features": ["run stage 10", "run hold here"]}
        assert httpx.post(f"{served.url}/api/v1/models", json=model).status_code == 201
        job = {"model_id": "m", "input": {"source": "parquet", "path": "in/*.parquet"}}
        (tmp_path / "work" / "in" / "a.parquet").write_bytes(parquet())
        submitted = httpx.post(f"{served.url}{BATCH}", json=job)
        assert submitted.status_code == 202, submitted.text
        job_id = submitted.json()["job_id"]
        folder = tmp_path / "home" / "jobs" / job_id
        wait_for((folder / "at-here").exists)
        lines: list[str] = []
        followed, over = threading.Event(), threading.Event()

        def follow() -> None:
            with httpx.stream("GET", f"{served.url}{BATCH}/{job_id}/events", timeout=60) as stream:
                for line in stream.iter_lines():
                    lines.append(line)
                    followed.set()
            over.set()

        threading.Thread(target=follow).start()
        assert followed.wait(20)
        began = time.monotonic()
        served.stop()
        took_s = time.monotonic() - began

    try:
        assert over.wait(5)
        assert took_s < 6
        assert "1 job goes on" in str(served.logged()[-1]["message"])
        # Its process is there, and nobody's child.
        os.kill(int((folder / "at-here").read_text()), 0)
        assert '"status":"running"' in "".join(lines)
    finally:
        (folder / "go-here").touch()


def parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1.0]}), sink)
    return sink.getvalue().to_pybytes()


def test_a_port_that_is_taken_is_told_in_a_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from launcher.cli import main; raise SystemExit(main())",
                "serve",
                "--port",
                str(port),
            ],
            env={**os.environ, "PENSTOCK_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == WRONG
    assert done.stderr.splitlines()[-1] == (
        f"error: nobody can listen on 127.0.0.1 port {port}: Address already in use; choose others by --host, --port"
    )


class TestKeys:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
        return tmp_path / "home"

    def test_are_made_listed_and_revoked(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        made = main(["keys", "create", "--tenant", "acme", "--role", "submitter", "--name", "nightly"])
        token, said = capsys.readouterr()
        main(["keys", "list"])
        listed = capsys.readouterr().out
        key_id = token.split("_")[1]
        revoked = main(["keys", "revoke", key_id])
        capsys.readouterr()
        main(["keys", "list", "--json"])
        keys = json.loads(capsys.readouterr().out)["keys"]

        assert (made, revoked) == (DONE, DONE)
        assert token.count("\n") == 1
        assert token.startswith("psk_")
        assert key_id in said
        secret = token.strip().split("_", 2)[2]
        assert secret not in said
        assert secret not in listed
        assert [key_id, "acme", "submitter", "nightly"] == listed.splitlines()[1].split()[:4]
        assert keys[0]["revoked_at"] is not None
        # Of the token nothing but a hash is kept.
        assert secret.encode() not in b"".join(each.read_bytes() for each in home.glob("penstock.db*"))

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["create", "--tenant", "A B", "--role", "viewer"], "the tenant name 'A B' cannot be used"),
            (["create", "--tenant", "a", "--role", "root"], "root"),
            (["revoke", "01234567"], "there is no API key '01234567'"),
        ],
    )
    def test_that_cannot_be_are_told_in_a_line(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
    ) -> None:
        assert main(["keys", *arguments]) == WRONG
        assert line in capsys.readouterr().err

    def test_of_an_admin_are_told_to_open_everything(self, capsys: pytest.CaptureFixture[str]) -> None:
        said = {}
        for tenant, role in (("default", "admin"), ("default", "submitter"), ("acme", "submitter"), ("acme", "admin")):
            main(["keys", "create", "--tenant", tenant, "--role", role])
            said[tenant, role] = capsys.readouterr().err

        warned = [of for of, err in said.items() if "opens the whole service" in err]
        assert warned == [("acme", "admin")]
        assert said["acme", "admin"].splitlines()[0] == (
            "warning: an admin key opens the whole service, not only tenant acme: Python models that it registers "
            "run as the service's user; give it to those alone who may see everything"
        )

    def test_of_a_second_tenant_are_told_to_share_folders(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = {}
        for n, tenant in enumerate(("acme", "acme", "globex", "globex", "initech")):
            if tenant == "initech":
                monkeypatch.setenv("PENSTOCK_ALLOWED_PATHS", "/data/{tenant}")
            main(["keys", "create", "--tenant", tenant, "--role", "viewer", "--json"])
            out, said[n] = capsys.readouterr()
            assert json.loads(out)["tenant"] == tenant

        assert [n for n, err in said.items() if "warning" in err] == [2]
        assert said[2].startswith("warning: 2 tenants (acme, globex) share folders")

    def test_of_a_store_elsewhere_are_made_there(
        self, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PENSTOCK_STORE", database)
        main(["keys", "create", "--tenant", "acme", "--role", "admin", "--json"])
        made = json.loads(capsys.readouterr().out)
        store = Database.named(database, Path("unused"))

        key = KeyStore(store).check(made["token"])

        store.close()
        assert key is not None
        assert (key.tenant, key.role, key.id) == ("acme", "admin", made["key_id"])
