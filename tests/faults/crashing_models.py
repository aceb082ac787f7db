"""Models that end their process. In a module of their own: each child process imports it anew."""

import ctypes
import os
import signal
import threading
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

SCORES = pa.schema([pa.field("score", pa.float64())])


class Crashing:
    """Twice the value. Files name the rows over which its process ends, or stays until there is a file `go`."""

    input_schema: ClassVar[pa.Schema] = pa.schema([pa.field("value", pa.float64())])
    output_schema: ClassVar[pa.Schema] = SCORES

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        values = set(rows.column("value").to_pylist())
        if values & _rows("segfaults"):
            ctypes.string_at(0)
        if values & _rows("exits"):
            os._exit(3)
        if values & _rows("out-of-memory"):
            os.kill(os.getpid(), signal.SIGKILL)
        if Path("always").exists():
            os.abort()
        if values & _rows("stays") and not Path("go").exists():
            Path("there").touch()
            threading.Event().wait(600)
        if values & _rows("refused"):
            raise ValueError("a value is refused")
        return pa.RecordBatch.from_arrays([pa.array(rows.column("value").to_numpy() * 2)], schema=SCORES)


class Undeclared(Crashing):
    """Does not say what it answers."""

    output_schema: ClassVar[pa.Schema | None] = None  # type: ignore[assignment]


def _rows(name: str) -> set[float]:
    file = Path(name)
    return set(map(float, file.read_text().split())) if file.exists() else set()
