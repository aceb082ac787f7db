"""How far a living job is: counters that its workers leave in files, added up. They may lag by a second."""

import contextlib
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from launcher.state.job import Job, Live, Move, Seconds, shown_counts
from transforms.counts import Counts
from transforms.telemetry import CALL_BUCKETS_S

__all__ = [
    "Live",
    "Snapshot",
    "SnapshotProgress",
    "counts_of",
    "kept_rows",
    "read_live",
    "read_snapshot",
    "seconds_of",
    "seconds_of_dead",
]

# A snapshot calls back for each batch; people look less often than that.
_EVERY_S = 0.5


@dataclass(frozen=True)
class Snapshot:
    """Rows of a query copied so far, and about how many there are, where the database could say."""

    rows: int
    total: int | None


def read_live(folder: Path, attempt: int) -> Live:
    """Add up what the workers of one attempt say. What is no counter is passed over, a file or a single value."""
    told = [values for path in folder.glob("*.json") if (values := _read(path)).get("attempt") == attempt]
    calls = [counted for values in told if (counted := _calls(values.get("calls"))) is not None]
    buckets = [sum(counts) for counts in zip(*(each.buckets for each in calls), strict=True)]

    def total(name: str) -> float:
        return sum(_amount(values.get(name)) for values in told)

    return Live(
        rows_read=int(total("rows_read")),
        scored=int(total("scored")),
        rejected=int(total("rejected")),
        skipped=int(total("skipped")),
        staged=int(total("staged")),
        read_s=total("read_s"),
        score_s=total("score_s"),
        write_s=total("write_s"),
        calls=sum(buckets),
        call_s=sum(each.sum_s for each in calls),
        call_buckets=tuple(buckets),
    )


def _amount(value: Any) -> float:
    """A counter; 0 for what cannot be one."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) and value > 0 else 0


class _Calls(NamedTuple):
    """The model calls of one worker: how many in each bucket, and how long altogether."""

    buckets: list[int]
    sum_s: float


def _calls(value: Any) -> _Calls | None:
    """A worker's histogram; None where its buckets are not ours."""
    buckets = value.get("buckets") if isinstance(value, dict) else None
    if not isinstance(buckets, list) or len(buckets) != len(CALL_BUCKETS_S) + 1:
        return None
    return _Calls([int(_amount(count)) for count in buckets], _amount(value.get("sum_s")))


def read_snapshot(path: Path, attempt: int) -> Snapshot | None:
    """How far an attempt's snapshot is; None when it makes none."""
    values = _read(path)
    return Snapshot(values["rows"], values["total"]) if values.get("attempt") == attempt else None


def counts_of(job: Job, live: Live) -> Counts:
    """Rows accounted for, as they are shown: earlier attempts included, never fewer than before, never too many."""
    return shown_counts(replace(job, live=live))


def kept_rows(job: Job, live: Live) -> int:
    """Rows that are staged and will not be scored again."""
    kept = job.already.total + live.staged
    return kept if job.total_rows is None else min(kept, job.total_rows)


def seconds_of(moves: Sequence[Move], now: datetime, live: Live) -> Seconds:
    """Where the time of one attempt went.

    Args:
        moves: of that attempt, in order.
        now: the end of the state it is in.
        live: what its workers counted.
    """
    spent = {"preparing": 0.0, "running": 0.0, "completing": 0.0}
    for move, end in zip(moves, [*(move.at for move in moves[1:]), now], strict=True):
        if move.to in spent:
            spent[move.to] += max(0.0, (end - move.at).total_seconds())
    prepare, run, complete = spent.values()
    return Seconds(prepare, run, complete, live.read_s, live.score_s, live.write_s)


def seconds_of_dead(job: Job, moves: Sequence[Move], folder: Path, live: Live) -> Seconds:
    """Where the time of an attempt went whose process died, up to the last that was heard of it.

    Args:
        moves: of the job.
        folder: of its live counters.
    """
    own = [move for move in moves if move.attempt == job.attempt]
    heard = [move.at for move in own] + ([job.live_at] if job.live_at is not None else [])
    for file in folder.glob("*.json"):
        with contextlib.suppress(OSError):
            heard.append(datetime.fromtimestamp(file.stat().st_mtime, UTC))
    return seconds_of(own, max(heard), live) if heard else Seconds()


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


class SnapshotProgress:
    """Tells, at most twice a second, how far a snapshot is. Called from one thread."""

    def __init__(self, path: Path, attempt: int) -> None:
        self._path = path
        self._attempt = attempt
        self._told_at = -_EVERY_S

    def __call__(self, rows: int, total: int | None) -> None:
        """Note that `rows` of about `total` are copied."""
        now = time.monotonic()
        if now - self._told_at < _EVERY_S:
            return
        self._told_at = now
        draft = self._path.with_name(f".{self._path.name}")
        try:
            draft.write_text(json.dumps({"attempt": self._attempt, "rows": rows, "total": total}))
            os.replace(draft, self._path)
        except OSError:
            # A courtesy: a full disk fails where rows are at stake, with a better message.
            draft.unlink(missing_ok=True)
