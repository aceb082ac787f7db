"""Models for jobs of a service. They find their orders in files beside them, and leave there what they saw.

Each test has a folder of models of its own, and this file is copied into it.
"""

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pyarrow as pa

from predictors.errors import RowsRejected, Transient
from predictors.pressure import PRESSURE

_HERE = Path(__file__).parent
# Longer than any test waits.
_FOREVER_S = 3600.0


def _note(name: str, **values: Any) -> None:
    """Add a line, whole, whoever else writes."""
    with open(_HERE / name, "ab", buffering=0) as file:
        file.write(json.dumps(values).encode() + b"\n")


def _processes() -> list[int]:
    """Those of this job that have loaded a model, in order."""
    file = _HERE / "processes"
    told = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [each["pid"] for each in told if each["job"] == os.environ["PENSTOCK_JOB_ID"]]


def _await(name: str, patience_s: float = _FOREVER_S) -> None:
    deadline = time.monotonic() + patience_s
    while not (_HERE / name).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


class Recorded:
    """Twice the value. Records each call: the job, the process, the rows, and how many threads were in here at once.

    With a file `together`, calls wait for as many of them as it says.
    """

    thread_safe: ClassVar[bool] = True
    output_schema: ClassVar[pa.Schema] = pa.schema([("score", pa.float64())])

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = self._most = 0
        self._all_inside = threading.Event()

    def load(self) -> None:
        if os.getpid() not in _processes():
            _note("processes", job=os.environ["PENSTOCK_JOB_ID"], pid=os.getpid())

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        together = _HERE / "together"
        wanted = int(together.read_text()) if together.exists() else 1
        with self._lock:
            self._inside += 1
            self._most = max(self._most, self._inside)
            if self._inside >= wanted:
                self._all_inside.set()
        self._all_inside.wait(30)
        if wanted > 1:
            # One more than there should be would have come by then.
            time.sleep(0.1)
        with self._lock:
            self._inside -= 1
        self.before(rows)
        ids = rows.column("id").to_pylist()
        _note("calls", pid=os.getpid(), ids=ids, threads=self._most, pressed=PRESSURE.is_high)
        return pa.record_batch([pa.array([2.0 * value for value in rows.column("value").to_pylist()])], ["score"])

    def before(self, rows: pa.RecordBatch) -> None:
        """What a model does beyond the arithmetic."""

    @staticmethod
    def attempt() -> int:
        """How many processes of this job have loaded the model so far, this one included."""
        return _processes().index(os.getpid()) + 1


class Slow(Recorded):
    """Takes a while over each call, always the same."""

    def before(self, rows: pa.RecordBatch) -> None:
        time.sleep(0.1)


class Held(Recorded):
    """Does not return from a call before there is a file `go`, save from as many as `free` says.

    Meanwhile it has a helper, as a model may have that is a program of its own.
    """

    def before(self, rows: pa.RecordBatch) -> None:
        free = _HERE / "free"
        calls = _HERE / "calls"
        done = len(calls.read_text().splitlines()) if calls.exists() else 0
        if (_HERE / "go").exists() or (free.exists() and done < int(free.read_text())):
            return
        with subprocess.Popen(["sleep", str(_FOREVER_S)], start_new_session=True) as helper:
            _note("held", helper=helper.pid)
            self.hold()
            helper.kill()

    def hold(self) -> None:
        _await("go")


class Deaf(Held):
    """As `Held`, but without letting any other thread run: as a library does that computes in one piece."""

    def hold(self) -> None:
        sum(range(10**12))


class Stubborn(Held):
    """Is held, having done what makes its processes hard to find and to end."""

    def hold(self) -> None:
        with self._lock:
            # One from a shell that has ended, one that has left the session and keeps the job's lock.
            shell = subprocess.run("sleep 3600 >/dev/null 2>&1 & echo $!", shell=True, capture_output=True, check=True)
            _note("held", helper=int(shell.stdout))
            _note("held", helper=self._daemon())
            sys.stdout.close()
        super().hold()

    @staticmethod
    def _daemon() -> int:
        told, tells = os.pipe()
        middle = os.fork()
        if not middle:
            os.setsid()
            if not os.fork():
                os.write(tells, str(os.getpid()).encode())
                time.sleep(_FOREVER_S)
            os._exit(0)
        os.waitpid(middle, 0)
        return int(os.read(told, 20))


class Flaky(Held):
    """Is held, and fails in passing, each time."""

    def before(self, rows: pa.RecordBatch) -> None:
        super().before(rows)
        raise Transient("lost the connection")


class Dying(Held):
    """Kills its own process in the first attempt, and is held in the next."""

    def before(self, rows: pa.RecordBatch) -> None:
        if self.attempt() == 1:
            os.kill(os.getpid(), 9)
        super().before(rows)


class Crashing(Recorded):
    """Ends its process, as a native library may, over the rows in `killing`."""

    def before(self, rows: pa.RecordBatch) -> None:
        if set(rows.column("id").to_pylist()) & set(json.loads((_HERE / "killing").read_text())):
            ctypes.string_at(0)


class Greedy(Recorded):
    """Takes so many more MB as `take_mb` says, once there is a file `go-<attempt>`."""

    def before(self, rows: pa.RecordBatch) -> None:
        _await(f"go-{self.attempt()}")
        with self._lock:
            self.taken = b"x" * (int((_HERE / "take_mb").read_text()) * 2**20)
        _await("go")


class Filling(Recorded):
    """Fills its process up to the bytes in `up_to`, whatever else lies in it, and goes on."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def before(self, rows: pa.RecordBatch) -> None:
        up_to = int((_HERE / "up_to").read_text())
        with self._lock:
            while psutil.Process().memory_info().rss < up_to:
                self._pieces.append(b"x" * 2**21)
        time.sleep(0.05)


class Away(Recorded):
    """A service that does not answer."""

    def before(self, rows: pa.RecordBatch) -> None:
        _note("asked", pid=os.getpid())
        if not (_HERE / "back").exists():
            raise Transient("the scoring service at 10.1.2.3 does not answer")


class Choosy(Recorded):
    """Refuses the rows in `refused`, until there is a file `mended`; then it still refuses those in `hopeless`."""

    def before(self, rows: pa.RecordBatch) -> None:
        ids = rows.column("id").to_pylist()
        bad = set(json.loads((_HERE / "hopeless").read_text()))
        if not (_HERE / "mended").exists():
            bad |= set(json.loads((_HERE / "refused").read_text()))
        indices = [n for n, id_ in enumerate(ids) if id_ in bad]
        if indices:
            raise RowsRejected(indices, "no such customer")


class Exchanging(Recorded):
    """Once it is loaded, links have come in the place of files: `exchange` says where, and whereto they lead.

    So does somebody who can write in a tenant's folder, and has a model that takes its time.
    """

    def load(self) -> None:
        super().load()
        for path, target in json.loads((_HERE / "exchange").read_text()):
            if os.path.lexists(path):
                os.rename(path, f"{path}.aside")
            os.symlink(target, path)
        _note("exchanged")


class Curious(Recorded):
    """Writes down what it finds of the service's secrets."""

    def before(self, rows: pa.RecordBatch) -> None:
        def read(path: str) -> str:
            return Path(path).read_bytes().decode(errors="replace").replace("\0", "\n")

        parent = os.getppid()
        seen = {
            "os.environ": dict(os.environ),
            "sys.argv": sys.argv,
            **{f"own {name}": read(f"/proc/self/{name}") for name in ("environ", "cmdline")},
            **{f"parent's {name}": read(f"/proc/{parent}/{name}") for name in ("environ", "cmdline", "comm")},
        }
        (_HERE / "seen.json").write_text(json.dumps(seen))
