"""Live counters of a worker: small files that whoever watches the job adds up. The ledger stays the truth."""

import json
import os
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Watchers are promised news once a second, and no more often than that is anything written.
_EVERY_S = 1.0
# Upper bounds, in seconds, of the histogram of model calls, each included; longer calls are in one more bucket. Three a
# decade tell a change of pace well enough. Below the first, the model is not what a job waits for; a minute is as long
# as most model services let a request take.
CALL_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True)
class Telemetry:
    """Where the workers of one attempt leave their counters. Picklable; the counters themselves are per process.

    Args:
        folder: one file per worker is written there; None: the counters are kept, but never written.
        attempt: goes into the file, so that an earlier attempt's counters are told from this one's.
    """

    folder: str | None = None
    attempt: int = 1

    def counters(self) -> "Counters":
        """This process's counters, the same object for equal telemetries."""
        with _LOCK:
            if self not in _COUNTERS:
                _COUNTERS[self] = Counters(self)
            return _COUNTERS[self]


class Counters:
    """Rows and seconds of one worker. Any thread may add.

    `rows_read`, `scored`, `rejected`, `staged` are rows; `read_s`, `score_s` and `write_s` are seconds that threads
    spent reading, in the model, and writing; several threads may spend them at once. Model calls are counted by how
    long each took.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._lock = threading.Lock()
        self._telemetry = telemetry
        self._written_at = 0.0
        self._values: dict[str, float] = dict.fromkeys(
            ("rows_read", "scored", "rejected", "staged", "read_s", "score_s", "write_s"), 0
        )
        self._call_buckets = [0] * (len(CALL_BUCKETS_S) + 1)
        self._call_s = 0.0

    def add(self, **amounts: float) -> None:
        """Add to the counters; writes them at most once a second."""
        with self._lock:
            for name, amount in amounts.items():
                self._values[name] += amount
            now = time.monotonic()
            if now - self._written_at < _EVERY_S:
                return
            self._written_at = now
        self.flush()

    def observe_call(self, seconds: float) -> None:
        """Count a model call. Writes nothing: the rows of the call are added right after it, and a fast model is called
        thousands of times a second."""
        bucket = bisect_left(CALL_BUCKETS_S, seconds)
        with self._lock:
            self._call_buckets[bucket] += 1
            self._call_s += seconds

    def values(self) -> dict[str, float]:
        """The counters so far."""
        with self._lock:
            return dict(self._values)

    def calls(self) -> dict[str, Any]:
        """The model calls so far: `buckets`, how many took up to each of `CALL_BUCKETS_S` and more than the one before,
        the last longer than all; `count`, how many altogether; `sum_s`, how long altogether."""
        with self._lock:
            return {
                "buckets": list(self._call_buckets),
                "sum_s": self._call_s,
                "count": sum(self._call_buckets),
            }

    def flush(self) -> None:
        """Write the counters now. A file is replaced whole, so that no reader sees half of one."""
        if self._telemetry.folder is None:
            return
        folder = Path(self._telemetry.folder)
        name = f"{os.getpid()}.json"
        draft = folder / f".{name}.{threading.get_ident()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps({**self.values(), "calls": self.calls(), "attempt": self._telemetry.attempt}))
            os.replace(draft, folder / name)
        except OSError:
            # Counters are a courtesy: a full disk must fail where rows are at stake, with a better message.
            draft.unlink(missing_ok=True)


_LOCK = threading.Lock()
_COUNTERS: dict[Telemetry, Counters] = {}
