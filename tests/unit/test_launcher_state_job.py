"""The states of a job and what a stopped one says."""

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from launcher.errors import MoveForbidden
from launcher.state.job import (
    ACTIVE,
    MOVES,
    STATUSES,
    TERMINAL,
    Move,
    Seconds,
    Status,
    has_begun_to_publish,
    moved,
    new_id,
    stopped_as,
)
from launcher.worker.progress import Live, seconds_of, seconds_of_dead
from tests.contract.job_store import T0, job
from transforms.counts import Counts

ALLOWED = {
    ("submitted", "preparing"),
    ("preparing", "running"),
    ("running", "completing"),
    ("completing", "completed"),
    *((status, "failed") for status in ("submitted", "preparing", "running", "completing")),
    *((status, "cancelled") for status in ("submitted", "preparing", "running")),
    *((status, "submitted") for status in ("failed", "cancelled")),
    # The launcher tries again.
    *((status, "submitted") for status in ("preparing", "running", "completing")),
}


@pytest.mark.parametrize("source", STATUSES)
@pytest.mark.parametrize("to", STATUSES)
def test_the_table_of_moves_is_what_it_is(source: Status, to: Status) -> None:
    before = replace(job(), status=source)
    if (source, to) in ALLOWED:
        after, move = moved(before, to, "why", T0)
        assert (after.status, move) == (to, Move(source, to, T0, "why", after.attempt))
    else:
        with pytest.raises(MoveForbidden):
            moved(before, to, "why", T0)


def test_every_state_is_in_the_table_and_active_or_over() -> None:
    assert set(get_args(Status)) == set(MOVES) == ACTIVE | TERMINAL
    assert not ACTIVE & TERMINAL


def test_a_resume_starts_afresh_and_keeps_what_is_known_of_the_job() -> None:
    failed: dict[str, Any] = {
        "status": "failed",
        "error": "no",
        "started_at": T0,
        "finished_at": T0,
        "counts": Counts(1, 2, 3),
        "already": Counts(1),
        "seconds": Seconds(1, 2, 3),
        "pid": 7,
        "pid_started": 7.5,
        "total_rows": 10,
        "output": "out",
        "rejects": "rejects",
    }
    before = replace(job(), **failed)
    after, move = moved(before, "submitted", "resume", T0 + timedelta(seconds=9))
    again, _ = moved(after, "preparing", "again", T0 + timedelta(seconds=10))

    # What was shown once goes on being shown, until the next attempt has come as far.
    known: dict[str, Any] = {"started_at": T0, "total_rows": 10, "output": "out", "rejects": "rejects"}
    since = {"queued_at": move.at, "times": {"submitted": move.at}}
    assert after == replace(job(before.id), **known, **since, attempt=2, shown=Counts(1, 2, 3))
    assert again.started_at == T0


def test_ids_are_short_and_differ() -> None:
    ids = {new_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(len(each) == 16 and each.startswith("batch-") for each in ids)


@pytest.mark.parametrize(
    ("status", "attempt", "visible", "expected"),
    [
        ("preparing", 1, False, "stopped before the first row; `penstock resume batch-1` starts again"),
        (
            "preparing",
            2,
            False,
            "stopped while preparing; what was staged before is kept, `penstock resume batch-1` goes on",
        ),
        ("running", 1, False, "stopped; 1,234 rows are kept, `penstock resume batch-1` goes on"),
        (
            "running",
            2,
            True,
            "stopped after publishing had begun; whether the result is visible is not known, "
            "`penstock resume batch-1` settles it",
        ),
    ],
    ids=["preparing", "preparing-again", "running", "publishing"],
)
def test_a_stopped_job_says_what_is_kept(status: Status, attempt: int, visible: bool, expected: str) -> None:
    stopped = replace(job("batch-1"), status=status, attempt=attempt, total_rows=5000)

    assert stopped_as(stopped, "cancelled", "stopped", visible, 1234) == (
        "failed" if visible else "cancelled",
        expected,
    )


def test_publishing_has_begun_with_the_first_attempt_that_came_so_far() -> None:
    moves = [Move("submitted", "preparing", T0, "", 1), Move("running", "completing", T0, "", 1)]

    assert not has_begun_to_publish(moves[:1])
    assert has_begun_to_publish([*moves, Move("completing", "failed", T0, "", 1)])


def test_the_time_of_an_attempt_is_read_off_its_moves() -> None:
    times = {"submitted": 0.0, "preparing": 1.0, "running": 3.0, "completing": 7.0}
    moves = [Move(None, to, T0 + timedelta(seconds=at), "", 1) for to, at in times.items()]  # type: ignore[arg-type]
    live = Live(read_s=1, score_s=2, write_s=3)

    assert seconds_of(moves, T0 + timedelta(seconds=7.5), live) == Seconds(2, 4, 0.5, 1, 2, 3)
    assert seconds_of(moves[:2], T0 + timedelta(seconds=2), Live()) == Seconds(1)
    # A clock that was set back.
    assert seconds_of(moves[:2], T0, Live()) == Seconds(0)


def test_the_time_of_an_attempt_that_died_is_counted_to_the_last_that_was_heard_of_it(tmp_path: Path) -> None:
    earlier = Move("preparing", "running", T0 - timedelta(hours=1), "", 1)
    moves = [
        earlier,
        Move("submitted", "preparing", T0, "", 2),
        Move("preparing", "running", T0 + timedelta(seconds=2), "", 2),
    ]
    died = replace(job("batch-1"), status="running", attempt=2, live_at=T0 + timedelta(seconds=4))
    by_its_beat = seconds_of_dead(died, moves, tmp_path, Live(score_s=3))
    (tmp_path / "7.json").touch()
    os.utime(tmp_path / "7.json", (T0.timestamp() + 9, T0.timestamp() + 9))
    by_its_counters = seconds_of_dead(died, moves, tmp_path, Live(score_s=3))

    assert by_its_beat == Seconds(2, 2, 0, score=3)
    assert by_its_counters == Seconds(2, 7, 0, score=3)
