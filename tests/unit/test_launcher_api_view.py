"""A job as it is told of: never backwards, adding up, steady."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.api.models import JobAnswer
from launcher.api.view import JOBS_PATH, job_object, stamp
from launcher.state.job import Job, Live, Seconds, Status, moved, shown_counts
from launcher.state.speed import sped
from pipelines.spec import JobSpec, ParquetInput, ParquetOutput, Rejects, SqlInput, TableOutput
from predictors.base import ModelSpec
from transforms.counts import Counts

BEGAN = datetime(2025, 3, 15, 10, 0, tzinfo=UTC)
TOTAL = 500_000
SPEC = JobSpec(
    ModelSpec("churn.onnx", "onnx"),
    SqlInput("warehouse", "SELECT 1"),
    TableOutput("warehouse", "predictions.churn_scores", "overwrite"),
)


def after(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def job(**changes: Any) -> Job:
    made = Job("batch-0123456789", SPEC, "/jobs/batch-0123456789", BEGAN, managed=True, times={"submitted": BEGAN})
    return replace(made, **changes)


def go(job: Job, to: Status, at_s: float, **changes: Any) -> Job:
    return moved(job, to, "", after(at_s), **changes)[0]


def beat(job: Job, seconds: float, live: Live) -> Job:
    """As a job's process tells the store of itself."""
    told = replace(job, live=live, live_at=after(seconds))
    if job.status == "running" and job.running_at is not None:
        told = replace(told, speed=sped(job.speed, job.attempt, job.running_at, live.counts.total, after(seconds)))
    return replace(told, shown=shown_counts(told))


def running(total: int | None = TOTAL, at: float = 2.0) -> Job:
    return go(go(job(total_rows=total), "preparing", 1), "running", at, total_rows=total)


def told(job: Job) -> dict[str, Any]:
    """The object, which is of the model that documents it, and adds up."""
    made = job_object(job, Path("/jobs"))
    answer = JobAnswer.model_validate_json(json.dumps(made))
    assert sum(answer.counts.model_dump().values()) == answer.progress.processed_rows
    if answer.progress.total_rows is not None:
        assert answer.progress.processed_rows <= answer.progress.total_rows
    return made


def test_the_job_of_the_documentation() -> None:
    # 325,000 of 500,000 rows in 468 s: the other 175,000 take 252 s.
    now = beat(running(), 2 + 468, Live(scored=325_000))

    assert told(now)["progress"] == {"total_rows": 500_000, "processed_rows": 325_000, "percentage": 65}
    assert told(now)["started_at"] == "2025-03-15T10:00:01Z"
    assert told(now)["estimated_completion"] == "2025-03-15T10:12:02Z"
    assert told(now)["rows_per_second"] == 694.4
    assert told(now)["estimated_duration_minutes"] == 13
    assert told(now)["estimated_duration_seconds"] == 721


def test_a_job_that_waits_knows_little() -> None:
    made = told(job())

    assert made["progress"] == {"total_rows": None, "processed_rows": 0, "percentage": None}
    for name in ("started_at", "estimated_completion", "rows_per_second", "estimated_duration_seconds", "finished_at"):
        assert made[name] is None
    assert made["output"] == {"destination": "table", "location": "predictions.churn_scores"}
    assert made["links"]["self"] == f"{JOBS_PATH}/batch-0123456789"


def test_the_same_job_is_told_of_in_the_same_way_whenever_it_is_looked_at() -> None:
    now = beat(running(), 50, Live(scored=1000))

    assert told(now) == told(now)


def test_what_was_estimated_at_first_stays() -> None:
    made = told(beat(replace(running(), estimated_seconds=870.04), 50, Live(scored=1000)))

    assert (made["estimated_duration_minutes"], made["estimated_duration_seconds"]) == (15, 870.0)


def test_a_job_that_is_done_says_how_long_it_took() -> None:
    now = beat(running(), 100, Live(scored=TOTAL, staged=TOTAL))
    done = go(go(now, "completing", 101), "completed", 130, counts=Counts(TOTAL), seconds=Seconds(1, 99, 29))

    made = told(done)

    assert (made["estimated_duration_minutes"], made["estimated_completion"]) == (3, None)
    assert made["rows_per_second"] == round(TOTAL / 99, 1)
    assert made["kept_rows"] == TOTAL
    assert made["finished_at"] == stamp(after(130))


def test_what_the_service_keeps_is_told_as_a_path_of_the_api() -> None:
    spec = replace(SPEC, output=ParquetOutput("/jobs/batch-0123456789/results"))
    kept = job(spec=spec, keeps_result=True, output="/jobs/batch-0123456789/results", total_rows=1)
    rejecting = replace(kept, rejects="/jobs/batch-0123456789/rejects")
    done = go(go(go(go(rejecting, "preparing", 1), "running", 2), "completing", 3), "completed", 4, counts=Counts(1))

    assert told(kept)["output"] == {"destination": "parquet", "location": None}
    assert told(kept)["rejects_location"] is None
    assert told(done)["output"]["location"] == f"{JOBS_PATH}/batch-0123456789/results"
    assert told(done)["rejects_location"] == f"{JOBS_PATH}/batch-0123456789/rejects"
    again = replace(done, id="batch-9876543210", retry_of=done.id, keeps_result=False)
    assert told(again)["output"]["location"] == f"{JOBS_PATH}/batch-9876543210/results"
    assert told(replace(again, status="submitted", output=None))["output"]["location"] is None
    theirs = replace(done, rejects="/data/rejects", spec=replace(spec, rejects=Rejects("/data/rejects")))
    assert told(theirs)["rejects_location"] == "/data/rejects"


def test_times_are_utc_and_no_finer_than_milliseconds() -> None:
    assert stamp(after(0)) == "2025-03-15T10:00:00Z"
    assert stamp(after(0.5)) == "2025-03-15T10:00:00.500Z"
    assert stamp(after(0.0004)) == "2025-03-15T10:00:00Z"
    assert stamp(datetime.fromisoformat("2025-03-15T11:00:00+01:00")) == "2025-03-15T10:00:00Z"
    assert stamp(None) is None


def test_an_empty_input_is_no_trouble() -> None:
    now = beat(running(0), 10, Live())

    assert told(now)["progress"] == {"total_rows": 0, "processed_rows": 0, "percentage": 0}
    done = go(go(now, "completing", 11), "completed", 12, counts=Counts())
    assert told(done)["progress"]["percentage"] == 100


@pytest.mark.parametrize("live_at", [None, after(-5), after(2), after(1e9)])
def test_clocks_that_differ_are_no_trouble(live_at: datetime | None) -> None:
    told(replace(running(), live=Live(scored=1), live_at=live_at))


def test_a_job_that_hardly_moves_ends_within_the_calendar() -> None:
    stuck = beat(running(10**15), 1_000_000, Live(scored=1))

    assert told(stuck)["estimated_completion"] is None


def test_rows_that_are_staged_are_kept() -> None:
    now = beat(running(), 50, Live(scored=1000, staged=800))
    failed = go(now, "failed", 51, counts=Counts(1000))
    again = go(failed, "submitted", 60)
    third = go(go(again, "preparing", 61), "running", 62, already=Counts(800))
    expired = replace(failed, expired_at=after(1000))

    assert [told(each)["kept_rows"] for each in (now, failed, again, third, expired)] == [800, 800, None, 800, 0]


def test_a_span_that_was_scored_twice_is_not_counted_twice() -> None:
    now = beat(running(100), 50, Live(scored=130, rejected=5))

    assert told(now)["progress"]["percentage"] == 100


class Steady:
    """A job that scores at one speed, in attempts that die, as its watchers see it.

    Args:
        rate: rows a second.
        start_s: what an attempt takes before its first row.
        deaths: at how many rows of the job each attempt dies, and how many of them are staged then.
        step: rows come in such pieces.
    """

    def __init__(self, rate: float, start_s: float, deaths: list[tuple[int, int]], step: int = 1) -> None:
        self.rate, self.start_s, self.deaths, self.step = rate, start_s, deaths, step

    def seen(self) -> Iterator[tuple[float, dict[str, Any]]]:
        """(seconds, the job) twice a second."""
        now = 0.0
        at = job(total_rows=TOTAL)
        staged = 0
        for death in [*self.deaths, None]:
            yield now, told(at)
            now += 1
            at = go(at, "preparing", now)
            yield now, told(at)
            now += 1
            at = go(at, "running", now, already=Counts(staged))
            began = now
            while True:
                now += 0.5
                scored = int(max(0.0, now - began - self.start_s) * self.rate) // self.step * self.step
                scored = min(scored, TOTAL - staged)
                # Told once a second, looked at twice.
                if (now - began) % 1 == 0:
                    at = beat(at, now, Live(scored=scored, staged=scored // 2))
                yield now, told(at)
                if death is not None and staged + scored >= death[0]:
                    staged = death[1]
                    at = go(at, "submitted", now)
                    break
                if staged + scored >= TOTAL and (now - began) % 1 == 0:
                    at = go(at, "completing", now)
                    yield now, told(at)
                    yield now, told(go(at, "completed", now + 1, counts=Counts(TOTAL)))
                    return


STEADY = {
    "fast": Steady(40_000, 0.5, []),
    "slow": Steady(300, 2, []),
    "in pieces": Steady(5000, 1, [], step=65_536 // 8),
    "dies": Steady(5000, 0.7, [(300_000, 250_000)]),
    "dies with nothing": Steady(5000, 0.7, [(300_000, 0)]),
    "dies and dies": Steady(8000, 1, [(100_000, 90_000), (400_000, 100_000), (450_000, 440_000)]),
}


@pytest.mark.parametrize("steady", STEADY.values(), ids=STEADY)
def test_progress_never_goes_backwards(steady: Steady) -> None:
    seen = [each["progress"] for _, each in steady.seen()]

    for name in ("processed_rows", "percentage"):
        values = [each[name] for each in seen]
        assert values == sorted(values)
    assert seen[-1]["percentage"] == 100


@pytest.mark.parametrize("steady", STEADY.values(), ids=STEADY)
def test_the_time_left_of_a_steady_job_does_not_jump(steady: Steady) -> None:
    before: tuple[int, float] | None = None
    jumps = []
    for now, each in steady.seen():
        if each["estimated_completion"] is None or each["progress"]["percentage"] < 10:
            continue
        left_s = (datetime.fromisoformat(each["estimated_completion"]) - after(now)).total_seconds()
        # What is nearly over may be over a poll sooner or later.
        if before is not None and before[0] == each["attempt"] and min(before[1], left_s) > 3:
            jumps.append(max(left_s / before[1], before[1] / left_s))
        # Lost rows are scored again: from one attempt to the next there may be more left, but no more than was lost.
        before = (each["attempt"], left_s)

    assert jumps
    assert max(jumps) < 2


def test_the_time_left_does_not_jump_between_attempts_that_lose_little() -> None:
    steady = Steady(5000, 0.7, [(200_000, 198_000), (300_000, 297_000)])
    left = [
        (datetime.fromisoformat(each["estimated_completion"]) - after(now)).total_seconds()
        for now, each in steady.seen()
        if each["estimated_completion"] is not None and each["progress"]["percentage"] >= 10
    ]
    long = [seconds for seconds in left if seconds > 3]

    assert max(max(a / b, b / a) for a, b in itertools.pairwise(long)) < 2


@pytest.mark.parametrize("name", ["dies", "dies with nothing", "dies and dies"])
def test_the_end_is_told_from_the_first_moment_of_a_further_attempt(name: str) -> None:
    again = [each for _, each in STEADY[name].seen() if each["attempt"] > 1 and each["status"] == "running"]

    assert again
    assert all(each["estimated_completion"] is not None for each in again)


@st.composite
def lives(draw: st.DrawFn) -> list[Job]:
    """What may become of a job: beats with any counters, attempts that end anyhow."""
    total = draw(st.none() | st.integers(0, 1000))
    now = job(total_rows=draw(st.none() | st.just(total)))
    seen = [now]
    seconds = 1.0
    for _ in range(draw(st.integers(1, 4))):
        now = go(now, "preparing", seconds)
        seen.append(now)
        most = 1000 if total is None else total
        already = Counts(draw(st.integers(0, most)))
        now = go(now, "running", seconds + 1, total_rows=total, already=already)
        seen.append(now)
        scored = rejected = 0
        for _ in range(draw(st.integers(0, 4))):
            seconds += draw(st.floats(0, 100))
            scored += draw(st.integers(0, 500))
            rejected += draw(st.integers(0, 50))
            staged = draw(st.integers(0, scored + rejected))
            now = beat(now, seconds, Live(scored=scored, rejected=rejected, staged=staged))
            seen.append(now)
        seconds += 1
        if draw(st.booleans()):
            now = go(now, "failed", seconds, counts=shown_counts(now), error="no", outcome="error")
            seen.append(now)
        now = go(now, "submitted", seconds)
        seen.append(now)
    return seen


@given(lives())
def test_whatever_becomes_of_a_job_it_is_told_of_soundly(seen: list[Job]) -> None:
    processed = [told(each)["progress"]["processed_rows"] for each in seen]

    assert processed == sorted(processed)


def test_files_that_a_user_named_are_told_as_they_are() -> None:
    spec = replace(SPEC, input=ParquetInput(("/data/in",)), output=ParquetOutput("/data/scores"))

    assert told(job(spec=spec))["output"] == {"destination": "parquet", "location": "/data/scores"}
