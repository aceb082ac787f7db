"""The commands that ask a service, against a server that plays it: what is sent, what people and machines are told."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from tests.unit.playing import Reply, Stage, playing, problem, sent, stream

BATCH = "/api/v1/inference/batch"
JOB = f"{BATCH}/batch-1"
SECRET = "postgresql://scorer:hunter2@db/warehouse"
ACCEPTED = Reply(
    202, {"job_id": "batch-1", "status": "submitted", "estimated_duration_seconds": 900.0, "input_row_count": 500_000}
)


def job(status: str = "completed", **further: Any) -> dict[str, Any]:
    return {
        "job_id": "batch-1",
        "status": status,
        "outcome": "with_rejects" if status == "completed" else None,
        "progress": {"total_rows": 1000, "processed_rows": 1000, "percentage": 100},
        "counts": {"scored_rows": 980, "rejected_rows": 20, "skipped_rows": 0},
        "kept_rows": 1000,
        "created_at": "2025-03-15T09:59:59.250Z",
        "rows_per_second": 2500.0,
        "seconds": {"prepare": 1.0, "run": 2.0, "complete": 0.5, "read": 0.5, "score": 1.0, "write": 0.5},
        "output": {"destination": "table", "location": "predictions.scores"},
        "rejects_location": f"{JOB}/rejects",
        "timestamps": {"completed": "2025-03-15T10:00:03Z", "submitted": "2025-03-15T09:59:59.250Z"},
        **further,
    }


REJECTS = Reply(
    200,
    {
        "rows": [{"position": f"in:{n}", "error_type": "NullFeature", "error": "column x is null"} for n in range(3)],
        "next_cursor": None,
    },
)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PENSTOCK_API_KEY", raising=False)
    (tmp_path / "job.yaml").write_text("model_id: churn\ninput: {source: sql, query: SELECT 1}\n")
    with playing() as stage:
        monkeypatch.setenv("PENSTOCK_SERVER", stage.url)
        yield stage


Captured = pytest.CaptureFixture[str]


def test_a_submission_is_told_with_what_to_do_next(service: Stage, capsys: Captured) -> None:
    service.on("POST", BATCH, ACCEPTED)
    code = main(["submit", "job.yaml", "--idempotency-key", "mine"])

    assert code == 0
    assert capsys.readouterr().out.splitlines() == [
        "batch-1 submitted",
        "  rows  500,000",
        "  time  about 15 min",
        "  look  penstock jobs show batch-1",
    ]
    assert service.asked[0].body == {"model_id": "churn", "input": {"source": "sql", "query": "SELECT 1"}}
    assert service.asked[0].headers["idempotency-key"] == "mine"


def test_waiting_tells_how_the_job_ended(service: Stage, capsys: Captured) -> None:
    service.on("POST", BATCH, ACCEPTED)
    service.on("GET", JOB, Reply(200, job("preparing")))
    service.on("GET", f"{JOB}/events", stream(sent("progress", job())))
    service.on("GET", f"{JOB}/rejects", REJECTS)
    code = main(["submit", "job.yaml", "--wait"])
    printed = capsys.readouterr()

    assert code == 0
    assert printed.err == "batch-1 preparing\n"
    assert printed.out.splitlines() == [
        "batch-1 completed with rejects in 3.5 s",
        "  rows     1,000 = 980 scored + 20 rejected + 0 skipped",
        "  speed    2,500 rows/s",
        "  time     prepare 1.0 s, run 2.0 s, complete 0.5 s",
        "           read 0.5 s, score 1.0 s, write 0.5 s (all threads together)",
        "  output   predictions.scores",
        "  look     penstock jobs results batch-1",
        "  rejects  kept by the service",
        "           3 × NullFeature: column x is null",
        "  look     penstock jobs rejects batch-1",
    ]


@pytest.mark.parametrize(
    ("status", "further", "code", "out", "err"),
    [
        ("cancelled", {}, 130, "next     penstock retry batch-1", ""),
        ("failed", {"outcome": "error", "error": "no memory"}, 1, "log      penstock logs batch-1", "no memory"),
        (
            "failed",
            {"outcome": "error", "error": "m.onnx changed; run the job anew"},
            1,
            "next     submit the job anew",
            "m.onnx changed; run the job anew",
        ),
        (
            "failed",
            {"outcome": "too_many_rejects", "error": "20 of 1,000"},
            1,
            "penstock retry batch-1 --max-reject-ratio 0.02",
            "20 of 1,000",
        ),
    ],
)
def test_a_job_that_did_not_end_well_says_how_to_go_on(
    service: Stage, capsys: Captured, status: str, further: dict[str, Any], code: int, out: str, err: str
) -> None:
    service.on("POST", f"{JOB}/retry", Reply(202, job("submitted")))
    service.on("GET", JOB, Reply(200, job(status, **further)))
    service.on("GET", f"{JOB}/rejects", REJECTS)
    found = main(["retry", "batch-1", "--wait"])
    printed = capsys.readouterr()

    assert found == code
    assert out in printed.out
    assert printed.err == (f"error: batch-1 failed: {err}\n" if err else "")


def test_a_job_with_a_schedule_is_scheduled(service: Stage, capsys: Captured) -> None:
    told = {"job_id": None, "status": "scheduled", "schedule_id": "s-1", "next_runs": ["2025-03-16T02:00:00Z"]}
    service.on("POST", BATCH, Reply(202, told))
    Path("daily.json").write_text(json.dumps({"model_id": "churn", "schedule": {"cron": "0 2 * * *"}}))
    codes = [main(["submit", "daily.json"]), main(["submit", "daily.json", "--wait"])]
    printed = capsys.readouterr()

    assert codes == [0, 2]
    assert printed.out.startswith("s-1 scheduled\n  next  2025-03-16T02:00:00Z\n")
    assert printed.err == "error: daily.json has a schedule, so it has no end; leave out --wait\n"


@pytest.mark.parametrize(
    ("reply", "code", "lines"),
    [
        (
            problem(
                422,
                "invalid-request",
                "the request is wrong",
                errors=[{"field": "a", "message": "is 1; use 2"}, {"field": "b.c", "message": "is missing; write one"}],
            ),
            2,
            ["a is 1; use 2", "b.c is missing; write one"],
        ),
        (
            problem(401, "unauthorized", "no"),
            2,
            ["the service wants an API key that it knows; set PENSTOCK_API_KEY, or name a file by --api-key-file"],
        ),
        (problem(403, "forbidden", "a viewer key may not do this", remedy="Use another key."), 2, None),
        (problem(409, "idempotency-key-reused", "the key came with another request"), 2, None),
        (problem(500, "internal", "the service failed"), 1, ["the service failed"]),
        (Reply(202, b"<html>hello</html>"), 1, None),
    ],
)
def test_refusals_are_lines_and_say_by_their_code_whose_fault_it_is(
    service: Stage, capsys: Captured, reply: Reply, code: int, lines: list[str] | None
) -> None:
    service.on("POST", BATCH, reply)
    found = main(["submit", "job.yaml"])
    printed = capsys.readouterr()

    assert found == code
    assert printed.out == ""
    assert [line for line in printed.err.splitlines() if not line.startswith("error: ")] == []
    assert lines is None or printed.err.splitlines() == [f"error: {line}" for line in lines]


def test_nobody_there_is_no_fault_of_the_request(service: Stage, capsys: Captured) -> None:
    with playing() as gone:
        pass
    code = main(["cancel", "batch-1", "--server", gone.url])

    assert code == 1
    assert capsys.readouterr().err.startswith(f"error: {gone.url} cannot be reached")


def test_a_spec_that_cannot_be_read_asks_nobody(service: Stage, capsys: Captured) -> None:
    Path("bad.yaml").write_text("a: [")
    codes = [main(["submit", "none.yaml"]), main(["submit", "bad.yaml"]), main(["estimate", "none.yaml"])]

    assert codes == [2, 2, 2]
    assert service.asked == []
    assert capsys.readouterr().err.splitlines()[0].startswith("error: none.yaml: there is no such file")


def test_the_key_is_read_from_a_file(service: Stage, capsys: Captured) -> None:
    Path("key").write_text("psk_secret\n")
    service.on("GET", BATCH, Reply(200, {"jobs": []}))
    codes = [main(["jobs", "list", "--api-key-file", "key"]), main(["jobs", "list", "--api-key-file", "none"])]
    printed = capsys.readouterr()

    assert codes == [0, 2]
    assert service.asked[0].headers["authorization"] == "Bearer psk_secret"
    assert printed.out == "no jobs\n"
    assert printed.err == "error: --api-key-file none cannot be read: No such file or directory\n"


def test_without_a_server_jobs_are_those_of_this_machine(
    service: Stage, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENSTOCK_SERVER")
    codes = [main(["jobs", "list"]), main(["jobs", "show", "batch-1"]), main(["jobs", "list", "--model", "m"])]
    printed = capsys.readouterr()

    assert codes == [0, 2, 2]
    assert printed.out == "no jobs; `penstock run SPEC` starts one\n"
    assert "there is no job 'batch-1'" in printed.err
    assert service.asked == []


def test_jobs_are_listed_as_a_table_or_as_the_service_tells_them(service: Stage, capsys: Captured) -> None:
    named = {"name": "all", "model_id": "churn", "model_version": 3, "model_uri": "/models/churn.onnx"}
    service.on("GET", BATCH, Reply(200, {"jobs": [job(new="key", **named), job(job_id="batch-2")], "next_cursor": "c"}))
    code = main(["jobs", "list", "--limit", "1", "--status", "completed", "--since", "2025-03-15"])
    table = capsys.readouterr()
    main(["jobs", "list", "--limit", "1", "--json"])
    told = json.loads(capsys.readouterr().out)

    assert code == 0
    assert table.out.splitlines() == [
        "job      name  model     status               created                rows  done  rejected  output",
        "batch-1  all   churn v3  completed (rejects)  2025-03-15T09:59:59Z  1,000  100%        20  predictions.scores",
    ]
    assert table.err == "and more; --limit 2 shows some of them\n"
    assert service.asked[0].query["since"] == ["2025-03-15T00:00:00+00:00"]
    assert told == {"jobs": [job(new="key", **named)]}


def test_a_job_is_shown_with_its_moves(service: Stage, capsys: Captured) -> None:
    service.on("GET", JOB, Reply(200, job("running", model_id="churn", model_version=2, rows_per_second=10)))
    main(["jobs", "show", "batch-1", "--server", service.url])
    lines = capsys.readouterr().out.splitlines()

    assert lines[:3] == [
        "batch-1 running",
        "  now     running: 1,000 of 1,000 rows (100%), 10 rows/s, 0:00 left, 20 rejected",
        "  model   churn version 2",
    ]
    assert lines[-2:] == ["2025-03-15T09:59:59.250Z  submitted", "2025-03-15T10:00:03.000Z  completed"]


def test_rows_logs_and_events_are_printed(service: Stage, capsys: Captured) -> None:
    service.on("GET", f"{JOB}/results", Reply(200, {"rows": [{"id": 1, "p": 0.5}], "next_cursor": "more"}))
    service.on("GET", f"{JOB}/logs", Reply(200, {"lines": ["one", "two"], "next_offset": 8, "complete": True}))
    moved = {"job_id": "batch-1", "status": "running", "reason": "1,000 rows", "at": "2025-03-15T10:00:00Z"}
    service.on("GET", f"{JOB}/events", stream(sent("state", moved, "1"), sent("later", {})))
    for words in (["jobs", "results", "batch-1", "--limit", "1"], ["logs", "batch-1"], ["jobs", "events", "batch-1"]):
        main(words)

    assert capsys.readouterr().out.splitlines() == [
        "id    p",
        " 1  0.5",
        "one",
        "two",
        "2025-03-15T10:00:00Z running: 1,000 rows",
    ]
    assert service.asked[0].query == {"limit": ["1"]}


def test_a_connections_uri_is_never_an_argument_and_never_printed(
    service: Stage, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = {"name": "db", "uri": "postgresql://*****@db/warehouse"}
    service.on("POST", "/api/v1/connections", Reply(201, masked))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{SECRET}\n"))
    read = main(["connections", "set", "db"])
    monkeypatch.setenv("CRM_URI", SECRET)
    named = main(["connections", "set", "db", "--uri-env", "CRM_URI"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    empty = main(["connections", "set", "db"])
    unset = main(["connections", "set", "db", "--uri-env", "NONE"])
    given = main(["connections", "set", "db", SECRET])
    printed = capsys.readouterr()

    assert (read, named, empty, unset, given) == (0, 0, 2, 2, 2)
    assert [each.body for each in service.asked] == [{"name": "db", "uri": SECRET}] * 2
    assert "uri  postgresql://*****@db/warehouse" in printed.out
    assert "hunter2" not in printed.out


def test_a_job_of_a_service_is_deleted_there(service: Stage, capsys: Captured) -> None:
    running = "batch-2 is running; cancel it first, and purge it once it is over"
    service.on("DELETE", "/api/v1/inference/batch/batch-1", Reply(204))
    service.on("DELETE", "/api/v1/inference/batch/batch-2", problem(409, "conflict", running))
    codes = [main(["jobs", "delete", job_id, "--server", service.url]) for job_id in ("batch-1", "batch-2")]
    printed = capsys.readouterr()

    assert codes == [0, 2]
    assert [each.query for each in service.asked] == [{"purge": ["true"]}] * 2
    assert (printed.out, printed.err) == ("batch-1 is deleted\n", f"error: {running}\n")


def test_models_and_schedules_have_their_commands(service: Stage, capsys: Captured) -> None:
    model = {"model_id": "churn", "version": 2, "uri": "/m.onnx", "flavor": "onnx", "features": ["a", "b"]}
    schedule = {
        "schedule_id": "s-1",
        "schedule": {"cron": "0 2 * * *", "timezone": "UTC", "enabled": True},
        "job": {"model_id": "churn"},
        "enabled": True,
        "next_runs": ["2025-03-16T02:00:00Z"],
    }
    service.on("POST", "/api/v1/models", Reply(201, model))
    service.on("GET", "/api/v1/models", Reply(200, {"models": [model]}))
    service.on("DELETE", "/api/v1/models/churn", problem(409, "conflict", "it is used by s-1; delete that first"))
    service.on("POST", "/api/v1/schedules", Reply(201, schedule))
    service.on("GET", "/api/v1/schedules", Reply(200, {"schedules": [schedule]}))
    service.on("POST", "/api/v1/schedules/s-1/run", ACCEPTED)
    service.on("DELETE", "/api/v1/schedules/s-1", Reply(204))
    codes = [
        main(words)
        for words in (
            ["models", "register", "churn", "/m.onnx", "--features", "a, b"],
            ["models", "list"],
            ["models", "delete", "churn"],
            ["schedules", "create", "job.yaml", "--cron", "0 2 * * *", "--overlap", "skip"],
            ["schedules", "create", "job.yaml"],
            ["schedules", "list"],
            ["schedules", "run", "s-1"],
            ["schedules", "delete", "s-1"],
        )
    ]
    printed = capsys.readouterr()

    assert codes == [0, 0, 2, 0, 2, 0, 0, 0]
    assert service.asked[0].body == {"model_id": "churn", "uri": "/m.onnx", "features": ["a", "b"]}
    assert service.asked[3].body == {
        "schedule": {"cron": "0 2 * * *", "overlap": "skip"},
        "job": {"model_id": "churn", "input": {"source": "sql", "query": "SELECT 1"}},
    }
    assert "churn        2  onnx    /m.onnx" in printed.out
    assert "s-1 is deleted" in printed.out
    assert printed.err.splitlines() == [
        "error: it is used by s-1; delete that first",
        "error: job.yaml needs schedule and job; for a job alone, give --cron",
    ]
