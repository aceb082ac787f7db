"""How far a living job is: counters that its workers leave in files, added up. They may lag by a second."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.state.job import Job
from transforms.counts import Counts

# A snapshot calls back for each batch; people look less often than that.
_EVERY_S = 0.5


@dataclass(frozen=True)
class Live:
    """Counters of one attempt, over all its workers.

    Args:
        rows_read, scored, rejected, skipped: rows.
        staged: rows that are durable: they will not be read again.
        read_s, score_s, write_s: seconds of all threads together.
    """

    rows_read: int = 0
    scored: int = 0
    rejected: int = 0
    skipped: int = 0
    staged: int = 0
    read_s: float = 0.0
    score_s: float = 0.0
    write_s: float = 0.0

    @property
    def counts(self) -> Counts:
        """Rows that have been through the model."""
        return Counts(self.scored, self.rejected, self.skipped)


@dataclass(frozen=True)
class Snapshot:
    """Rows of a query copied so far, and about how many there are, where the database could say."""

    rows: int
    total: int | None


def read_live(folder: Path, attempt: int) -> Live:
    """Add up what the workers of one attempt say. Files that are no counters are passed over."""
    told = [values for path in folder.glob("*.json") if (values := _read(path)).get("attempt") == attempt]

    def total(name: str) -> float:
        return sum(values.get(name, 0) for values in told)

    rows_read, scored, rejected, skipped, staged = (
        int(total(name)) for name in ("rows_read", "scored", "rejected", "skipped", "staged")
    )
    return Live(rows_read, scored, rejected, skipped, staged, total("read_s"), total("score_s"), total("write_s"))


def read_snapshot(path: Path, attempt: int) -> Snapshot | None:
    """How far an attempt's snapshot is; None when it makes none."""
    values = _read(path)
    return Snapshot(values["rows"], values["total"]) if values.get("attempt") == attempt else None


def counts_of(job: Job, live: Live) -> Counts:
    """Rows accounted for, earlier attempts included; never more than the job has."""
    if job.counts is not None:
        return job.counts
    counts = job.already + live.counts
    # A span that is scored twice, as after a failed bundle, is counted twice by its workers.
    if job.total_rows is not None and counts.total > job.total_rows:
        return Counts(max(0, job.total_rows - counts.rejected - counts.skipped), counts.rejected, counts.skipped)
    return counts


def kept_rows(job: Job, live: Live) -> int:
    """Rows that are staged and will not be scored again."""
    kept = job.already.total + live.staged
    return kept if job.total_rows is None else min(kept, job.total_rows)


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
