"""The pulse of an attempt: what it tells, what it hears, and what it does while the store is away."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import StoreUnavailable
from launcher.state.job import Job
from launcher.state.sql import SqlJobStore
from launcher.worker.progress import SnapshotProgress
from launcher.worker.pulse import Pulse
from tests.unit.launcher_parts import PATIENCE_S, Parts, parts, until
from transforms.counts import Counts
from transforms.telemetry import Telemetry


@dataclass
class Beating:
    """A pulse, and what it has called."""

    parts: Parts
    job: Job
    beats: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    away: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)
    fenced: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        folder = self.parts.home.job(self.job.id)
        self.pulse = Pulse(
            self,  # type: ignore[arg-type]
            folder.progress,
            folder.preparing,
            self.current,
            30.0,
            self.cancelled.set,
            self.fenced.set,
        )

    def current(self) -> Job:
        self.asked += 1
        return self.job

    @property
    def store(self) -> SqlJobStore:
        return self.parts.store

    def beat(self, job_id: str, attempt: int, lease_s: float, **changes: Any) -> bool:
        """The store's, while that is there."""
        self.beats.append(changes)
        if self.away:
            raise StoreUnavailable("the store is away")
        return self.store.beat(job_id, attempt, lease_s, **changes)

    def move(self, to: Any, **changes: Any) -> None:
        self.job = self.store.move(self.job.id, self.job.status, to, "test", attempt=self.job.attempt, **changes)

    def count(self, **amounts: float) -> None:
        progress = self.parts.home.job(self.job.id).progress
        Telemetry(str(progress), self.job.attempt).counters().add(**amounts)


@pytest.fixture
def beating(tmp_path: Path) -> Iterator[Beating]:
    with parts(tmp_path) as made:
        beating = Beating(made, made.claimed())
        yield beating
        # Its thread goes on until the process ends, and has nothing more to tell.
        beating.job = replace(beating.job, status="failed")


def test_a_beat_renews_the_lease_and_tells_how_far_the_copy_is(beating: Beating) -> None:
    before = beating.store.get("batch-1").lease_until
    SnapshotProgress(beating.parts.home.job("batch-1").preparing, 1)(250, 1000)
    beating.parts.clock.advance(7)
    beating.pulse.start()
    told = until(lambda: (job := beating.store.get("batch-1")).snapshot_rows and job)

    assert told.snapshot_rows == 250
    assert before is not None
    assert told.lease_until is not None
    assert (told.lease_until - before).total_seconds() == 7
    assert told.live_at == beating.parts.clock.now


def test_rows_are_told_with_those_of_earlier_attempts(beating: Beating) -> None:
    beating.move("running", total_rows=1000, already=Counts(100))
    beating.count(scored=40, rejected=2, staged=42)
    beating.pulse.start()
    told = until(lambda: (job := beating.store.get("batch-1")).live.scored and job)

    assert told.shown == Counts(140, 2, 0)
    assert told.live.staged == 42
    assert told.speed is not None
    assert (told.speed.attempt, told.speed.done, told.speed.rows) == (1, 42, 42)


def test_the_first_row_is_told_before_the_next_beat_is_due(beating: Beating) -> None:
    beating.move("running", total_rows=1000)
    beating.pulse.start()
    until(lambda: beating.beats)
    beating.count(scored=1)
    before = len(beating.beats)
    until(lambda: beating.store.get("batch-1").live.scored)
    said = [changes["live"].scored for changes in beating.beats[before:]]

    # But for a beat that was on its way.
    assert said.count(0) <= 1


def test_counters_that_cannot_be_written_are_no_reason_to_beat_all_the_time(beating: Beating) -> None:
    beating.move("running", total_rows=1000)
    progress = beating.parts.home.job("batch-1").progress
    # A folder is in the way.
    (progress / f"{os.getpid()}.json").mkdir()
    beating.count(scored=5)
    beating.pulse.start()
    until(lambda: beating.beats)
    began, before = time.monotonic(), len(beating.beats)
    until(lambda: time.monotonic() - began > 1.5)

    assert len(beating.beats) - before <= 3


def test_a_wish_to_stop_is_heard(beating: Beating) -> None:
    beating.store.request_cancel("batch-1", "enough")
    beating.pulse.start()

    assert beating.cancelled.wait(PATIENCE_S)
    assert not beating.fenced.is_set()


def test_an_attempt_that_another_has_followed_leaves_at_once(
    beating: Beating, caplog: pytest.LogCaptureFixture
) -> None:
    beating.store.move("batch-1", "preparing", "submitted", "its lease ran out")
    with caplog.at_level(logging.ERROR, "launcher"):
        beating.pulse.start()

        assert beating.fenced.wait(PATIENCE_S)
    assert "batch-1 is submitted, not " in caplog.text
    assert caplog.text.rstrip().endswith("; this attempt ends")


def test_an_attempt_of_a_job_that_is_deleted_leaves_at_once(beating: Beating) -> None:
    beating.store.delete("batch-1", ["preparing"])
    beating.pulse.start()

    assert beating.fenced.wait(PATIENCE_S)


def test_the_last_move_of_the_attempt_itself_is_no_reason_to_leave(beating: Beating) -> None:
    """The beat was on its way when the job ended."""

    def ends_meanwhile(job_id: str, attempt: int, lease_s: float, **changes: Any) -> bool:
        beating.move("failed", error="no")
        beating.beats.append(changes)
        return beating.store.beat(job_id, attempt, lease_s, **changes)

    beating.beat = ends_meanwhile  # type: ignore[method-assign]
    beating.pulse.start()
    until(lambda: beating.beats)

    assert not beating.fenced.wait(0.2)


def test_a_store_that_is_away_for_a_while_is_told_of_once(beating: Beating, caplog: pytest.LogCaptureFixture) -> None:
    beating.move("running", total_rows=1000)
    beating.count(scored=3)
    beating.away = True
    with caplog.at_level(logging.WARNING, "launcher"):
        beating.pulse.start()
        until(lambda: len(beating.beats) >= 3)
        beating.away = False
        until(lambda: beating.store.get("batch-1").live.scored == 3)

    assert [record.getMessage() for record in caplog.records if record.name == "launcher"] == [
        "batch-1 cannot be told of: the store is away"
    ]
    assert not beating.fenced.is_set()


@pytest.mark.parametrize("status", ["submitted", "failed"])
def test_nothing_is_told_of_a_job_that_waits_or_is_over(beating: Beating, status: Any) -> None:
    beating.job = replace(beating.job, status=status)
    beating.pulse.start()
    asked = beating.asked
    until(lambda: beating.asked >= asked + 5)

    assert beating.beats == []
