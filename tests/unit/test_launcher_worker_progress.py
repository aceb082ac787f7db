"""Live counters, memory, and what is told of them."""

import io
import json
import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.report import (
    Reason,
    aligned,
    clock,
    job_json,
    percentage,
    plan_json,
    plan_lines,
    progress_line,
    summary,
    title,
)
from launcher.rows.rejects import NoRejects, first_rejects, top_reasons
from launcher.screen import Lines, Pace, print_summary
from launcher.state.job import Job, Seconds
from launcher.worker.memory import GB, bound_memory, host_memory, resident_bytes
from launcher.worker.progress import (
    Live,
    Snapshot,
    SnapshotProgress,
    counts_of,
    kept_rows,
    read_live,
    read_snapshot,
)
from pipelines.spec import Rejects
from tests.contract.job_store import T0, job
from transforms.counts import Counts
from transforms.telemetry import CALL_BUCKETS_S, Telemetry


def running(**changes: Any) -> Job:
    return replace(job("batch-1"), status="running", total_rows=1000, started_at=T0, **changes)


# --- counters ----------------------------------------------------------------------------------------------------


def test_counters_of_all_workers_of_an_attempt_are_added(tmp_path: Path) -> None:
    telemetry = Telemetry(str(tmp_path), 2).counters()
    telemetry.add(rows_read=10, scored=7, rejected=1, staged=5, read_s=0.5, score_s=0.25, write_s=0.125)
    telemetry.flush()
    (tmp_path / "1.json").write_text(json.dumps({"attempt": 2, "scored": 100, "skipped": 3, "score_s": 1}))
    (tmp_path / "2.json").write_text(json.dumps({"attempt": 1, "scored": 5000}))
    (tmp_path / "3.json").write_text("{")
    (tmp_path / "4.json").write_text("[]")

    assert read_live(tmp_path, 2) == Live(10, 107, 1, 3, 5, 0.5, 1.25, 0.125, call_buckets=(0,) * 16)
    assert read_live(tmp_path, 2).counts == Counts(107, 1, 3)
    assert read_live(tmp_path / "none", 2) == Live()


def test_model_calls_of_all_workers_are_added_bucket_by_bucket(tmp_path: Path) -> None:
    here = Telemetry(str(tmp_path), 3).counters()
    for seconds in (0.0, 0.001, 0.0011, 0.0625, 59.5, 60.0, 3600.0):
        here.observe_call(seconds)
    here.flush()
    elsewhere = {"buckets": [1000, *([0] * 14), 1], "sum_s": 100.5, "count": 1001}
    (tmp_path / "1.json").write_text(json.dumps({"attempt": 3, "calls": elsewhere}))
    (tmp_path / "2.json").write_text(json.dumps({"attempt": 3, "scored": 1}))
    live = read_live(tmp_path, 3)

    assert len(live.call_buckets) == len(CALL_BUCKETS_S) + 1
    assert live.call_buckets == (1002, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 2)
    assert live.calls == 1008
    assert live.call_s == pytest.approx(3820.0646)
    assert json.loads((tmp_path / f"{os.getpid()}.json").read_text())["calls"]["count"] == 7


def test_bounds_of_model_calls_go_from_a_millisecond_to_a_minute() -> None:
    assert (CALL_BUCKETS_S[0], CALL_BUCKETS_S[-1]) == (0.001, 60)
    assert list(CALL_BUCKETS_S) == sorted(set(CALL_BUCKETS_S))


@pytest.mark.parametrize(
    "told",
    [
        {"scored": "many", "rejected": None, "staged": [1], "rows_read": True, "score_s": {}},
        {"scored": -5, "rejected": -1.5, "score_s": float("nan"), "read_s": float("inf")},
        {"calls": 7},
        {"calls": {"buckets": [1, 2, 3], "sum_s": 1, "count": 6}},
        {"calls": {"buckets": 3, "sum_s": 1}},
        {"calls": {"buckets": ["a"] * 16, "sum_s": "long"}},
    ],
    ids=["no numbers", "no amounts", "no calls", "other buckets", "no buckets", "buckets of text"],
)
def test_what_is_no_counter_spoils_nothing(tmp_path: Path, told: dict[str, Any]) -> None:
    (tmp_path / "1.json").write_text(json.dumps({"attempt": 1, **told}))
    whole = {"attempt": 1, "scored": 5, "rejected": 1, "calls": {"buckets": [2, *([0] * 15)], "sum_s": 1, "count": 2}}
    (tmp_path / "2.json").write_text(json.dumps(whole))
    live = read_live(tmp_path, 1)

    assert live == Live(scored=5, rejected=1, calls=2, call_s=1, call_buckets=(2, *([0] * 15)))
    assert live.counts == Counts(5, 1)


def test_counting_model_calls_costs_next_to_nothing() -> None:
    counters = Telemetry(None, 4).counters()
    began = time.process_time()
    for _ in range(9000):
        counters.observe_call(0.0001)

    # So many a second are made by two cores. They take some 10 ms, but this machine may be busy.
    assert time.process_time() - began < 0.1


def test_rows_of_earlier_attempts_count_and_none_counts_twice() -> None:
    resumed = running(already=Counts(300, 10))

    assert counts_of(resumed, Live(scored=100, rejected=2)) == Counts(400, 12)
    # A span was scored again after its bundle failed.
    assert counts_of(resumed, Live(scored=990, rejected=2)) == Counts(988, 12)
    assert counts_of(replace(resumed, counts=Counts(1)), Live(scored=5)) == Counts(1)
    assert kept_rows(resumed, Live(staged=100)) == 410
    assert kept_rows(resumed, Live(staged=5000)) == 1000


def test_a_snapshot_tells_how_far_it_is_at_most_twice_a_second(tmp_path: Path) -> None:
    path = tmp_path / "preparing.json"
    tell = SnapshotProgress(path, 3)
    tell(100, None)
    tell(200, None)

    assert read_snapshot(path, 3) == Snapshot(100, None)
    assert read_snapshot(path, 4) is None
    assert read_snapshot(tmp_path / "none", 3) is None
    # A courtesy that fails quietly.
    SnapshotProgress(tmp_path / "none" / "preparing.json", 3)(1, 2)


# --- memory ------------------------------------------------------------------------------------------------------


def test_memory_is_bound_by_the_job_or_by_the_machine() -> None:
    assert bound_memory(4, 16 * GB).bytes == 4 * GB
    assert bound_memory(4, 16 * GB).reason == "config.max_memory_gb is 4"
    assert bound_memory(16, 16 * GB).bytes == int(14.4 * GB)
    assert bound_memory(16, 16 * GB).reason == "nine tenths of this machine's memory are 14.4 GB"


@pytest.mark.parametrize(
    ("line", "file", "expected"),
    [
        ("0::/user/job", "user/memory.max", GB),
        ("0::/user/job", "memory.max", GB),
        ("4:memory:/docker/x", "memory/memory.limit_in_bytes", GB),
        ("2:cpu:/x", "memory.max", None),
        ("0::/other", "user/memory.max", None),
    ],
    ids=["v2-above", "v2-root", "v1", "other-controller", "other-group"],
)
def test_a_control_group_bounds_the_machine(tmp_path: Path, line: str, file: str, expected: int | None) -> None:
    (tmp_path / "cgroup").write_text(f"{line}\n")
    limit = tmp_path / "mount" / file
    limit.parent.mkdir(parents=True)
    limit.write_text(f"{GB}\n")
    (tmp_path / "mount" / "user").mkdir(exist_ok=True)
    (tmp_path / "mount" / "user" / "memory.low").write_text("max")

    machine = psutil.virtual_memory().total
    assert host_memory(tmp_path / "cgroup", tmp_path / "mount") == (expected or machine)
    assert host_memory(tmp_path / "none", tmp_path / "mount") == machine


def test_an_unbounded_control_group_leaves_the_machine(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "memory.max").write_text("max\n")

    assert host_memory(tmp_path / "cgroup", tmp_path) == psutil.virtual_memory().total


def test_our_own_memory_is_seen() -> None:
    assert 0.01 * GB < resident_bytes(psutil.Process(os.getpid())) < 20 * GB


# --- what is told ------------------------------------------------------------------------------------------------


def test_a_living_job_as_json() -> None:
    told = job_json(running(already=Counts(100), output="out"), Live(scored=550, rejected=5, score_s=1.23456))

    assert told == {
        "job_id": "batch-1",
        "name": None,
        "model_id": None,
        "model_version": None,
        "model_uri": job("batch-1").spec.model.uri,
        "status": "running",
        "outcome": None,
        "progress": {"total_rows": 1000, "processed_rows": 655, "percentage": 65},
        "counts": {"total_rows": 1000, "scored_rows": 650, "rejected_rows": 5, "skipped_rows": 0},
        "output": "out",
        "rejects": None,
        "seconds": {"prepare": 0, "run": 0, "complete": 0, "read": 0, "score": 1.235, "write": 0},
        "estimated_duration_minutes": None,
        "estimated_duration_seconds": None,
        "started_at": "2025-03-15T10:00:00.250Z",
        "finished_at": None,
        "error": None,
        "notices": [],
    }


def test_percentages() -> None:
    empty = replace(running(), total_rows=0)

    assert percentage(replace(running(), total_rows=None), Counts()) is None
    assert percentage(running(), Counts(999)) == 99
    assert percentage(empty, Counts()) == 0
    assert percentage(replace(empty, status="completed"), Counts()) == 100


@pytest.mark.parametrize(
    ("status", "snapshot", "rows_per_s", "line"),
    [
        ("submitted", None, None, "submitted"),
        ("preparing", None, None, "preparing"),
        ("preparing", Snapshot(1500, None), None, "preparing: 1,500 rows copied"),
        ("preparing", Snapshot(1500, 2000), None, "preparing: 1,500 of about 2,000 rows copied"),
        ("running", None, None, "running: 405 of 1,000 rows (40%), 5 rejected"),
        ("running", None, 100.0, "running: 405 of 1,000 rows (40%), 100 rows/s, 0:06 left, 5 rejected"),
        ("completing", None, None, "completing: publishing the result"),
    ],
)
def test_progress_in_a_line(status: Any, snapshot: Snapshot | None, rows_per_s: float | None, line: str) -> None:
    assert progress_line(replace(running(), status=status), Live(scored=400, rejected=5), snapshot, rows_per_s) == line


def test_time_left() -> None:
    assert [clock(seconds) for seconds in (0, 7, 61, 3723)] == ["0:00", "0:07", "1:01", "1:02:03"]


def test_lines_come_at_each_change_and_now_and_then() -> None:
    now = 0.0
    out = io.StringIO()
    lines = Lines(out, lambda: now)
    lines.show(replace(running(), status="preparing"), Live(), None)
    for step in range(12):
        now = float(step)
        lines.show(running(), Live(scored=step * 10), None)
    lines.show(replace(running(), status="completed"), Live(), None)
    lines.close()

    assert out.getvalue().splitlines() == [
        "batch-1 preparing",
        "batch-1 running: 0 of 1,000 rows (0%), 0 rejected",
        "batch-1 running: 50 of 1,000 rows (5%), 10 rows/s, 1:35 left, 0 rejected",
        "batch-1 running: 100 of 1,000 rows (10%), 10 rows/s, 1:30 left, 0 rejected",
    ]


def test_the_pace_is_that_of_this_attempt() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    resumed = running(already=Counts(500))
    rates = [pace.rows_per_s(resumed, Live(scored=100))]
    now = 0.5
    rates.append(pace.rows_per_s(resumed, Live(scored=100)))
    now = 10.0
    rates.append(pace.rows_per_s(resumed, Live(scored=300)))

    assert rates == [None, None, 20.0]
    assert pace.rows_per_s(replace(resumed, status="completing"), Live()) is None


DONE = replace(
    running(already=Counts(200)),
    status="completed",
    outcome="with_rejects",
    counts=Counts(980, 20),
    seconds=Seconds(1, 4, 0.5, 0.1, 2, 0.3),
    output="out/scores",
    rejects="out/rejects",
    finished_at=T0 + timedelta(seconds=5),
)


def test_the_summary_of_a_completed_job() -> None:
    lines = summary(DONE, Live(), [Reason("NullFeature", "column x is null", 20)], Path("/log"))

    assert title(DONE) == "batch-1 completed with rejects in 5.5 s"
    assert lines == [
        ("rows", "1,000 = 980 scored + 20 rejected + 0 skipped"),
        ("", "200 of them by earlier attempts"),
        ("speed", "200 rows/s"),
        ("time", "prepare 1.0 s, run 4.0 s, complete 0.5 s"),
        ("", "read 0.1 s, score 2.0 s, write 0.3 s (all threads together)"),
        ("output", "out/scores"),
        ("rejects", "out/rejects"),
        ("", "20 × NullFeature: column x is null"),
        ("look", "penstock jobs rejects batch-1"),
    ]


def test_the_summary_of_a_job_over_its_ratio_has_both_remedies() -> None:
    failed = replace(DONE, status="failed", error="too many", outcome=None)
    failed = replace(failed, spec=replace(failed.spec, rejects=Rejects()))

    assert title(failed) == "batch-1 failed after 5.5 s"
    assert summary(failed, Live(), [Reason("NullFeature", "null", 20)], Path("/log"))[-6:] == [
        ("output", "out/scores (not published)"),
        ("rejects", "out/rejects"),
        ("", "20 × NullFeature: null"),
        ("look", "penstock jobs rejects batch-1"),
        ("next", "mend the rows and run the job again, or publish without them:"),
        ("", "penstock resume batch-1 --max-reject-ratio 0.02"),
    ]
    assert summary(failed, Live(), [], Path("/log"))[-1] == ("", "penstock resume batch-1 --max-reject-ratio 0.02")


def test_a_job_within_its_ratio_failed_of_something_else() -> None:
    failed = replace(DONE, status="failed", error="boom")
    failed = replace(failed, spec=replace(failed.spec, rejects=Rejects(max_reject_ratio=0.5)))

    assert summary(failed, Live(), [], Path("/log"))[-2:] == [("next", "penstock resume batch-1"), ("log", "/log")]


def test_text_in_brackets_is_shown_as_it_is() -> None:
    out = io.StringIO()
    print_summary("batch-1 failed", [("error", "[red]no[/red]"), ("", "more")], "failed", out)

    assert out.getvalue() == "batch-1 failed\n  error  [red]no[/red]\n         more\n"


def test_tables_are_aligned_and_cells_cut() -> None:
    rows = [["a", 1, 0.123456789, None], ["long\nname", 1000, 2.0, "x" * 50]]

    assert aligned(rows, ["name", "n", "score", "text"]) == [
        "name          n     score  text",
        "a             1  0.123457",
        f"long name  1000         2  {'x' * 39}…",
    ]
    assert aligned([], ["name"]) == ["name"]


def test_a_plan_for_people() -> None:
    from launcher.estimate.look import Feature, PlanReport

    report = PlanReport(
        rows=1_234_567,
        splits=1,
        features=[Feature("x", "double", "float")],
        output=[("id", "int64"), ("score", "float")],
        predictions=pa.table({"id": [1, 2], "score": [0.5, 0.25]}),
        refused=["in.parquet:7 NullFeature: column x is null"],
        sample_rows=1000,
        seconds=(130.0, 400.0),
        likely_s=200.0,
        memory_bytes=3 * GB // 2,
        assumptions=["1,000 rows were timed", "a new process imports Beam"],
    )

    assert plan_lines(report) == [
        "rows    1,234,567 in 1 split",
        "time    2 to 7 min, likely 3 min (from a sample of 1,000 rows)",
        "memory  about 1.5 GB",
        "",
        "feature  is      fed as",
        "x        double  float",
        "",
        "output  type",
        "id      int64",
        "score   float",
        "",
        "first predictions",
        "",
        "id  score",
        " 1    0.5",
        " 2   0.25",
        "",
        "of the first rows, these would be rejected",
        "",
        "in.parquet:7 NullFeature: column x is null",
        "",
        "this rests on",
        "",
        "1,000 rows were timed",
        "a new process imports Beam",
    ]
    told = plan_json(report)
    assert told["seconds"] == {"low": 130.0, "likely": 200.0, "high": 400.0}
    assert told["memory_bytes"] == 3 * GB // 2
    assert told["assumptions"] == ["1,000 rows were timed", "a new process imports Beam"]


# --- rejects -----------------------------------------------------------------------------------------------------


def publish_rejects(folder: Path, columns: dict[str, list[Any]], owner: str = "batch-1") -> None:
    folder.mkdir()
    (folder / "_manifest.json").write_text(
        json.dumps({"job_id": owner, "counts": {}, "files": [{"name": f"part-0000{n}.parquet"} for n in range(2)]})
    )
    table = pa.table(columns)
    pq.write_table(table.slice(0, 2), folder / "part-00000.parquet")
    pq.write_table(table.slice(2), folder / "part-00001.parquet")


COLUMNS: dict[str, list[Any]] = {
    "x": [None, None, 3.0],
    "position": ["f:1", "f:5", "f:9"],
    "error_type": ["NullFeature", "NullFeature", "ValueError"],
    "error": ["x is null", "x is null", "negative"],
}


def test_rejects_are_shown_with_their_reason_first(tmp_path: Path) -> None:
    publish_rejects(tmp_path / "rejects", COLUMNS)
    asked = replace(DONE, working_dir=str(tmp_path), rejects="rejects")

    assert first_rejects(asked, 10).schema.names == ["position", "error_type", "error", "x"]
    assert first_rejects(asked, 10).column("position").to_pylist() == ["f:1", "f:5", "f:9"]
    assert first_rejects(asked, 1).num_rows == 1
    assert top_reasons(asked) == [Reason("NullFeature", "x is null", 2), Reason("ValueError", "negative", 1)]
    assert top_reasons(asked, 1) == [Reason("NullFeature", "x is null", 2)]


def test_columns_of_the_input_may_be_called_like_ours(tmp_path: Path) -> None:
    given = {"error": ["a", "b", "c"], **{name: COLUMNS[name] for name in ("position", "error_type")}}
    publish_rejects(tmp_path / "rejects", {**given, "penstock_error": COLUMNS["error"]})
    asked = replace(DONE, rejects=str(tmp_path / "rejects"))

    assert first_rejects(asked, 1).schema.names == ["position", "error_type", "penstock_error", "error"]
    assert top_reasons(asked, 1) == [Reason("NullFeature", "x is null", 2)]


def test_no_rejects_and_those_of_another_job_are_said_to_be(tmp_path: Path) -> None:
    publish_rejects(tmp_path / "rejects", COLUMNS, "batch-2")
    asked = replace(DONE, working_dir=str(tmp_path), rejects="rejects")

    with pytest.raises(NoRejects, match=r"rejects holds the rejects of batch-2, which ran after batch-1"):
        first_rejects(asked, 1)
    with pytest.raises(NoRejects, match=r"batch-1 has published no rejects; there is nothing of it in .*/none"):
        first_rejects(replace(asked, rejects="none"), 1)
    with pytest.raises(NoRejects, match="batch-1 ended before it rejected a row"):
        first_rejects(replace(asked, rejects=None), 1)
    assert top_reasons(asked) == []
