"""Jobs in their own processes: started, followed, stopped, killed and resumed, with an attempt that can be held."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.errors import JobAlive
from launcher.home import Home
from launcher.state.job import Job
from launcher.state.sql import SqlJobStore
from launcher.supervisor import StartedJob, Supervisor
from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput, Rejects, TableOutput
from predictors.base import ModelSpec
from transforms.counts import Counts

ROOT = Path(__file__).parents[2]
FAKE = "tests.unit.launcher_fakes"
PENSTOCK = f"import sys; from launcher.cli import main; sys.exit(main(sys.argv[1:], {FAKE!r}))"
# A loaded machine takes seconds to start Python.
PATIENCE_S = 60.0


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, with a home of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder


@pytest.fixture
def supervisor(work: Path) -> Iterator[Supervisor]:
    home = Home.from_environment()
    home.create()
    store = SqlJobStore.at(home.store)
    yield Supervisor(home, store, FAKE)
    for job in store.jobs():
        # Whatever a failed test has left running.
        for process in psutil.process_iter(["cmdline"]):
            if job.id in (process.info["cmdline"] or ()):
                process.kill()
    store.close()


def spec(*steps: str, ratio: float = 0.0, **config: Any) -> JobSpec:
    return JobSpec(
        ModelSpec("fake:Model", "python", steps),
        ParquetInput(("in.parquet",)),
        ParquetOutput("out"),
        Rejects(max_reject_ratio=ratio),
        Config(**config),
    )


def spec_file(*steps: str, **config: Any) -> str:
    request = {
        "model": {"uri": "fake:Model", "features": list(steps)},
        "input": {"source": "parquet", "path": "in.parquet"},
        "output": {"destination": "parquet", "path": "out"},
        "config": config,
    }
    Path("spec.json").write_text(json.dumps(request))
    return "spec.json"


def penstock(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PENSTOCK, *words], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def started(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PENSTOCK, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until(reached: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := reached()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return answer


def pid_at(name: str) -> int:
    """Wait until the attempt holds at `name`; its pid."""
    return int(until(lambda: (path := Path(f"at-{name}")).exists() and path.read_text()))


def finished(supervisor: Supervisor, begun: StartedJob) -> Job:
    assert begun.wait(PATIENCE_S)
    return supervisor.job(begun.job.id)


def only_job(supervisor: Supervisor) -> Job:
    (job,) = supervisor.jobs()
    return job


# --- a job's way -------------------------------------------------------------------------------------------------


def test_a_job_goes_through_its_states_to_completed(supervisor: Supervisor) -> None:
    job = finished(supervisor, supervisor.submit(spec("run stage 1000"), Path.cwd()))

    assert (job.status, job.outcome, job.error, job.attempt) == ("completed", "clean", None, 1)
    assert [move.to for move in supervisor.moves(job.id)] == [
        "submitted",
        "preparing",
        "running",
        "completing",
        "completed",
    ]
    assert job.counts is not None
    assert job.counts.total == job.total_rows == 1000
    assert (job.seconds.read, job.seconds.score, job.seconds.write) == (0.25, 0.5, 0.125)
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.created_at <= job.started_at <= job.finished_at
    assert Path("result").read_text() == job.id
    folder = supervisor.folder(job.id)
    assert (folder.path / "dropped").exists()
    assert not folder.is_alive()


def test_nobody_finds_a_job_without_a_process_while_it_starts(supervisor: Supervisor) -> None:
    over = threading.Event()
    seen: list[str] = []

    def look() -> None:
        while not over.is_set():
            seen.extend(job.status for job in supervisor.jobs())

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    jobs = [finished(supervisor, supervisor.submit(spec("run stage 1000"), Path.cwd())) for _ in range(3)]
    over.set()
    for looker in lookers:
        looker.join()

    assert [job.status for job in jobs] == ["completed"] * 3
    assert "failed" not in seen


def test_folders_named_like_ours_where_the_user_works_do_not_get_in_the_way(supervisor: Supervisor) -> None:
    for name in ("launcher", "transforms", "tests"):
        Path(name).mkdir()
        Path(name, "__init__.py").write_text("raise SystemExit('shadowed')")
    Path("queue.py").write_text("raise SystemExit('shadowed')")
    job = finished(supervisor, supervisor.submit(spec("run stage 1000"), Path.cwd()))

    assert job.status == "completed"


def test_what_the_attempt_says_is_in_the_log(supervisor: Supervisor) -> None:
    job = finished(supervisor, supervisor.submit(spec("run print hello", "run stage 1000"), Path.cwd()))

    log = supervisor.folder(job.id).log.read_text()
    assert "hello\n" in log
    assert f"{job.id} is completed: published" in log


# --- failures ----------------------------------------------------------------------------------------------------


def test_an_expected_failure_is_the_one_line_it_says(supervisor: Supervisor) -> None:
    job = finished(supervisor, supervisor.submit(spec("prepare input in.parquet is not\nthere"), Path.cwd()))

    assert (job.status, job.error) == ("failed", "in.parquet is not there")
    assert "Traceback" not in supervisor.folder(job.id).log.read_text()


@pytest.mark.parametrize(
    ("step", "error"),
    [("run other it broke", "ValueError: it broke"), ("run other", "ValueError"), ("run exit 3", "SystemExit: 3")],
    ids=["exception", "without-words", "exit"],
)
def test_an_unexpected_failure_has_its_type_and_its_traceback_in_the_log(
    supervisor: Supervisor, step: str, error: str
) -> None:
    job = finished(supervisor, supervisor.submit(spec(step), Path.cwd()))

    log = supervisor.folder(job.id).log
    assert (job.status, job.error) == ("failed", error)
    assert "Traceback (most recent call last)" in log.read_text()


def test_of_a_failure_of_many_words_a_page_is_kept_and_all_of_it_logged(supervisor: Supervisor) -> None:
    words = f"columns {'x' * 50_000} are missing; name others"
    job = finished(supervisor, supervisor.submit(spec(f"run input {words}"), Path.cwd()))

    assert job.error is not None
    assert len(job.error) < 5000
    assert job.error.startswith("columns xxx")
    assert job.error.endswith("x are missing; name others")
    assert words in supervisor.folder(job.id).log.read_text()


def test_a_password_in_an_unexpected_failure_is_masked(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.spec import SqlInput

    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    uri = "postgresql://me:${DB_PASSWORD}@host/db"
    asked = JobSpec(
        ModelSpec("fake:Model", "python", ("run other cannot log in to postgresql://me:hunter2@host/db, hunter2",)),
        SqlInput(uri, "SELECT 1"),
        ParquetOutput("out"),
    )
    job = finished(supervisor, supervisor.submit(asked, Path.cwd()))

    assert job.error == "ValueError: cannot log in to postgresql://me:*****@host/db, *****"
    assert "hunter2" not in supervisor.folder(job.id).log.read_text()


def test_a_password_in_the_cause_of_an_error_that_a_library_logs_is_masked(supervisor: Supervisor) -> None:
    asked = JobSpec(
        ModelSpec("fake:Model", "python", ("run log cannot log in:  hunter2", "run stage 1000")),
        ParquetInput(("in.parquet",)),
        TableOutput("postgresql://me:hunter2@host/db", "scores"),
    )
    job = finished(supervisor, supervisor.submit(asked, Path.cwd()))

    log = supervisor.folder(job.id).log.read_text()
    assert "hunter2" not in log
    assert "ERROR apache_beam.runners.common: the step failed\nTraceback (most recent call last):\n  File " in log
    assert "ValueError: cannot log in: *****" in log
    assert "transforms.errors.OutputError: the destination refuses" in log


def test_an_attempt_that_cannot_be_imported_is_a_failure(supervisor: Supervisor, work: Path) -> None:
    home = Home.from_environment()
    store = SqlJobStore.at(home.store)
    job = finished(supervisor, Supervisor(home, store, "no.such.module").submit(spec(), work))

    assert (job.status, job.error) == ("failed", "ModuleNotFoundError: No module named 'no'")


def test_a_working_folder_that_is_gone_is_one_line(supervisor: Supervisor, work: Path) -> None:
    gone = work / "gone"
    gone.mkdir()
    os.chdir(gone)
    job = finished(supervisor, supervisor.submit(spec("run input no"), gone))
    os.chdir(work)
    gone.rmdir()
    done = penstock("resume", job.id)

    assert done.returncode == 2
    assert done.stderr == f"error: {job.id} was run in {gone}, which is gone; run the job anew\n"


# --- time and memory ---------------------------------------------------------------------------------------------


def test_a_job_that_takes_too_long_is_ended_and_says_what_is_kept(supervisor: Supervisor) -> None:
    asked = spec("run stage 400", "run hold on", timeout_minutes=0.1)
    begun = supervisor.submit(asked, Path.cwd())
    job = finished(supervisor, begun)

    assert (job.status, job.error) == (
        "failed",
        f"timed out after config.timeout_minutes 0.1; 400 rows are kept, `penstock resume {job.id}` goes on",
    )
    assert job.counts is not None
    assert job.counts.scored == 400


def test_a_job_that_takes_too_much_memory_is_ended_and_says_how_much(supervisor: Supervisor) -> None:
    job = finished(supervisor, supervisor.submit(spec("run take 700", max_memory_gb=0.5), Path.cwd()))

    assert job.status == "failed"
    assert re.fullmatch(
        r"out of memory: 0\.[7-9]\d GB are in use, and config.max_memory_gb is 0.5; lower config.parallelism or "
        rf"config.batch_size, or raise config.max_memory_gb; 0 rows are kept, `penstock resume {job.id}` goes on",
        job.error or "",
    )


# --- killed, resumed ---------------------------------------------------------------------------------------------


def test_the_lock_dies_with_its_process_and_the_job_is_settled_by_whoever_looks(supervisor: Supervisor) -> None:
    begun = supervisor.submit(spec("run stage 300", "run hold on"), Path.cwd())
    pid = pid_at("on")
    folder = supervisor.folder(begun.job.id)
    alive_before = folder.is_alive()
    os.kill(pid, signal.SIGKILL)
    begun.wait(PATIENCE_S)
    job = only_job(supervisor)

    assert alive_before
    assert not folder.is_alive()
    assert (job.status, job.error) == (
        "failed",
        f"its process (pid {pid}) died; 300 rows are kept, `penstock resume {job.id}` goes on",
    )


def test_a_killed_job_goes_on_where_it_was(supervisor: Supervisor) -> None:
    begun = supervisor.submit(spec("run stage 300", "run hold on", "run stage 1000"), Path.cwd())
    os.kill(pid_at("on"), signal.SIGKILL)
    begun.wait(PATIENCE_S)
    Path("go-on").touch()
    job = finished(supervisor, supervisor.resume(begun.job.id))

    assert (job.status, job.attempt, job.error) == ("completed", 2, None)
    assert job.already.total == 300
    assert [move.reason for move in supervisor.moves(job.id) if move.to in ("submitted", "running")] == [
        "penstock run",
        "1,000 rows, 0 of them staged before",
        "penstock resume",
        "1,000 rows, 300 of them staged before",
    ]


def test_a_resume_that_is_stopped_early_does_not_forget_what_was_staged(supervisor: Supervisor) -> None:
    begun = supervisor.submit(spec("run stage 300", "run die"), Path.cwd())
    begun.wait(PATIENCE_S)
    held = spec("prepare hold again", "run stage 1000")
    # The same job, held while it prepares again.
    store = SqlJobStore.at(Home.from_environment().store)
    died = supervisor.job(begun.job.id)
    store.move(died.id, "failed", "submitted", "test", spec=held)
    store.move(died.id, "submitted", "failed", "test")
    again = supervisor.resume(died.id)
    pid_at("again")
    again.cancel()
    job = finished(supervisor, again)

    assert (job.status, job.counts) == ("cancelled", Counts(300))
    assert supervisor.moves(job.id)[-1].reason == (
        f"cancelled by SIGTERM while preparing; what was staged before is kept, `penstock resume {job.id}` goes on"
    )
    Path("go-again").touch()
    assert finished(supervisor, supervisor.resume(job.id)).already.total == 300


def test_a_living_job_is_neither_resumed_nor_deleted(supervisor: Supervisor) -> None:
    begun = supervisor.submit(spec("run hold on", "run stage 1000"), Path.cwd())
    pid = pid_at("on")
    with pytest.raises(JobAlive, match=rf"{begun.job.id} is still running \(pid {pid}\)"):
        supervisor.resume(begun.job.id)
    refused = penstock("resume", begun.job.id), penstock("jobs", "delete", begun.job.id)
    Path("go-on").touch()
    job = finished(supervisor, begun)

    for done in refused:
        assert (done.returncode, done.stderr) == (2, f"error: {begun.job.id} is still running (pid {pid})\n")
    assert job.status == "completed"


def test_of_many_that_resume_a_job_one_does(supervisor: Supervisor, work: Path) -> None:
    job = finished(supervisor, supervisor.submit(spec("run die"), work))
    won: list[StartedJob] = []
    lost: list[str] = []
    start = threading.Barrier(6)

    def resume() -> None:
        start.wait()
        try:
            won.append(supervisor.resume(job.id))
        except JobAlive as error:
            lost.append(str(error))

    threads = [threading.Thread(target=resume) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for begun in won:
        begun.wait(PATIENCE_S)

    assert len(won) + len(lost) == 6
    attempts = [move.attempt for move in supervisor.moves(job.id) if move.to == "preparing"]
    assert attempts == list(range(1, len(won) + 2))


def test_a_job_killed_while_publishing_is_not_called_cancelled_and_a_resume_settles_it(supervisor: Supervisor) -> None:
    begun = supervisor.submit(spec("run stage 1000", "publish hold out"), Path.cwd())
    os.kill(pid_at("out"), signal.SIGKILL)
    begun.wait(PATIENCE_S)
    job = only_job(supervisor)
    # The publish got through, and only the record of it was lost.
    Path("result").write_text(job.id)
    done = finished(supervisor, supervisor.resume(job.id))

    assert job.status == "failed"
    assert job.error == (
        f"its process (pid {job.pid}) died after publishing had begun; whether the result is visible is not known, "
        f"`penstock resume {job.id}` settles it"
    )
    assert done.status == "completed"
    assert [move.reason for move in supervisor.moves(job.id)][-2] == "the result was published by an earlier attempt"


def test_an_attempt_after_publishing_has_begun_is_never_called_cancelled(supervisor: Supervisor) -> None:
    begun = supervisor.submit(spec("run stage 1000", "run hold on", "publish die"), Path.cwd())
    pid_at("on")
    Path("go-on").touch()
    begun.wait(PATIENCE_S)
    Path("go-on").unlink()
    Path("at-on").unlink()
    again = supervisor.resume(begun.job.id)
    pid_at("on")
    again.cancel()
    job = finished(supervisor, again)

    assert (job.status, job.error) == (
        "failed",
        "cancelled by SIGTERM after publishing had begun; whether the result is visible is not known, "
        f"`penstock resume {job.id}` settles it",
    )


# --- the command line --------------------------------------------------------------------------------------------


def test_run_tells_how_a_job_went(supervisor: Supervisor) -> None:
    done = penstock("run", spec_file("run stage 1000"))
    job = only_job(supervisor)

    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert re.fullmatch(rf"{job.id} completed in \d+\.\d s", lines[0])
    assert lines[1] == "  rows    1,000 = 1,000 scored + 0 rejected + 0 skipped"
    assert re.fullmatch(r"  speed   [\d,]+ rows/s", lines[2])
    assert re.fullmatch(r"  time    prepare \d+\.\d s, run \d+\.\d s, complete \d+\.\d s", lines[3])
    assert lines[4:] == [
        "          read 0.2 s, score 0.5 s, write 0.1 s (all threads together)",
        "  output  result",
    ]
    assert done.stderr.splitlines()[0] == f"{job.id} submitted"


def test_run_json_prints_one_object(supervisor: Supervisor) -> None:
    done = penstock("run", "--json", spec_file("run stage 1000"))
    told = json.loads(done.stdout)
    listed = json.loads(penstock("jobs", "list", "--json").stdout)
    shown = json.loads(penstock("jobs", "show", told["job_id"], "--json").stdout)

    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    seconds, started_at, finished_at = told.pop("seconds"), told.pop("started_at"), told.pop("finished_at")
    assert told.pop("estimated_duration_minutes") == 1
    assert told.pop("estimated_duration_seconds") > 0
    assert told == {
        "job_id": only_job(supervisor).id,
        "name": None,
        "model_id": None,
        "model_version": None,
        "model_uri": "fake:Model",
        "status": "completed",
        "outcome": "clean",
        "progress": {"total_rows": 1000, "processed_rows": 1000, "percentage": 100},
        "counts": {"total_rows": 1000, "scored_rows": 1000, "rejected_rows": 0, "skipped_rows": 0},
        "output": "result",
        "rejects": "rejects",
        "error": None,
        "notices": [],
    }
    assert list(seconds) == ["prepare", "run", "complete", "read", "score", "write"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at) for at in (started_at, finished_at))
    assert listed == {"jobs": [shown]}
    assert shown["job_id"] == told["job_id"]


def test_a_failed_run_ends_with_1_and_its_line(supervisor: Supervisor) -> None:
    done = penstock("run", spec_file("run input in.parquet is missing"))
    as_json = penstock("run", "--json", spec_file("run input in.parquet is missing"))
    job = supervisor.jobs()[-1]

    assert done.returncode == as_json.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: {job.id} failed: in.parquet is missing"
    assert f"  next    penstock resume {job.id}\n  log     {supervisor.folder(job.id).log}\n" in done.stdout
    assert "  error   in.parquet is missing\n" in penstock("jobs", "show", job.id).stdout
    assert json.loads(as_json.stdout)["error"] == "in.parquet is missing"


def test_a_job_that_would_fail_again_is_not_to_be_resumed(supervisor: Supervisor) -> None:
    done = penstock("run", spec_file("run input in.parquet changed; run the job anew"))

    assert done.returncode == 1
    assert "  next    run the job anew\n" in done.stdout
    assert "resume" not in done.stdout + done.stderr


def test_a_request_that_is_found_wrong_while_preparing_makes_no_job(supervisor: Supervisor, work: Path) -> None:
    done = penstock("run", spec_file("prepare input in.parquet is missing"))
    as_json = penstock("run", "--json", spec_file("prepare input in.parquet is missing"))
    broken = penstock("run", spec_file("prepare other we are at fault"))

    assert (done.returncode, done.stdout) == (as_json.returncode, as_json.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "error: in.parquet is missing"
    assert "resume" not in done.stderr
    # What had been made for it is removed by its own process.
    assert Path("discarded").exists()
    # An error of ours is no mistake of the user's: the job and its log are kept.
    assert broken.returncode == 1
    (job,) = supervisor.jobs()
    assert (job.status, job.outcome) == ("failed", "error")
    assert [path.name for path in (work.parent / "home" / "jobs").iterdir()] == [job.id]


def test_a_job_that_a_resume_finds_wrong_stays_and_is_not_to_be_resumed(supervisor: Supervisor) -> None:
    begun = supervisor.submit(spec("prepare hold here", "prepare input none"), Path.cwd())
    pid_at("here")
    begun.kill()
    begun.wait(PATIENCE_S)
    (supervisor.folder(begun.job.id).path / "plan.json").unlink()
    Path("go-here").touch()
    resumed = penstock("resume", begun.job.id)

    assert resumed.returncode == 1
    assert supervisor.job(begun.job.id).outcome == "request_wrong"
    assert "  next  correct the request and run it again\n" in resumed.stdout
    assert "penstock resume" not in resumed.stdout


def test_the_log_of_a_job_of_this_machine_is_printed_as_text(supervisor: Supervisor) -> None:
    job = finished(supervisor, supervisor.submit(spec("run print hello", "run stage 1000"), Path.cwd()))
    whole, last = penstock("logs", job.id), penstock("logs", job.id, "--tail", "1", "--follow")
    as_json = penstock("logs", job.id, "--json")
    results, retry = penstock("jobs", "results", job.id), penstock("retry", job.id)

    assert (whole.returncode, whole.stderr) == (0, "")
    assert "hello\n" in whole.stdout
    assert whole.stdout.endswith(f" INFO launcher: {job.id} is completed: published\n")
    assert last.stdout == whole.stdout.splitlines(keepends=True)[-1]
    assert json.loads(as_json.stdout)["lines"] == whole.stdout.splitlines()
    here = f"error: {job.id} was run on this machine by `penstock run`; "
    assert (results.returncode, results.stderr) == (2, f"{here}its result is at result\n")
    assert (retry.returncode, retry.stderr) == (2, f"{here}it is completed\n")


def test_a_spec_is_changed_by_set_and_its_templates_are_filled_in(supervisor: Supervisor) -> None:
    file = spec_file("run stage 1000")
    words = ["--set", "output.path=out/{{ scheduled_date - 1d }}/{{ job_id }}", "--set", "config.batch_size=10"]
    done = penstock("run", file, *words, "--scheduled-at", "2025-03-01")
    job = only_job(supervisor)

    assert done.returncode == 0, done.stderr
    assert job.spec.output == ParquetOutput(f"out/2025-02-28/{job.id}")
    assert job.spec.config.batch_size == 10


def test_too_many_rejects_come_with_both_remedies_and_a_resume_publishes(supervisor: Supervisor) -> None:
    done = penstock("run", spec_file("run stage 970"))
    job = only_job(supervisor)
    resumed = penstock("resume", job.id, "--max-reject-ratio", "0.03")

    assert done.returncode == 1
    assert "  rows    1,000 = 970 scored + 30 rejected + 0 skipped" in done.stdout
    assert "  next    mend the rows and run the job again, or publish without them:" in done.stdout
    assert f"          penstock resume {job.id} --max-reject-ratio 0.03" in done.stdout
    assert done.stderr.splitlines()[-1] == f"error: {job.id} failed: 30 of 1000 rows were rejected"
    assert resumed.returncode == 0
    assert f"{job.id} completed with rejects in" in resumed.stdout
    assert "970 of them by earlier attempts" in resumed.stdout
    assert f"  look     penstock jobs rejects {job.id}" in resumed.stdout
    assert supervisor.job(job.id).spec.rejects.max_reject_ratio == 0.03


def test_a_completed_job_is_not_resumed_and_that_is_no_failure(supervisor: Supervisor) -> None:
    job = finished(supervisor, supervisor.submit(spec("run stage 1000"), Path.cwd()))
    done = penstock("resume", job.id, "--json")

    assert done.returncode == 0
    assert done.stderr == f"{job.id} is completed already; there is nothing to resume\n"
    assert json.loads(done.stdout)["status"] == "completed"
    assert supervisor.job(job.id).attempt == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_interrupted_run_is_cancelled_and_says_what_is_kept(supervisor: Supervisor, number: signal.Signals) -> None:
    run = started("run", spec_file("run child", "run stage 250", "run hold on", "run stage 1000"))
    pid = pid_at("on")
    child = int(Path("child").read_text())
    run.send_signal(number)
    sent_at = time.monotonic()
    stdout, _ = run.communicate(timeout=PATIENCE_S)
    took_s = time.monotonic() - sent_at
    job = only_job(supervisor)

    assert run.returncode == 130
    assert (job.status, job.error, took_s < 5) == ("cancelled", None, True)
    assert "  rows    1,000, of which 250 = 250 scored + 0 rejected + 0 skipped; 250 are kept" in stdout
    assert f"  next    penstock resume {job.id}" in stdout
    assert supervisor.moves(job.id)[-1].reason == (
        f"cancelled by SIGTERM; 250 rows are kept, `penstock resume {job.id}` goes on"
    )
    assert not psutil.pid_exists(pid)
    until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    assert not Path("result").exists()
    Path("go-on").touch()
    assert penstock("resume", job.id).returncode == 0


def test_a_job_that_does_not_answer_is_killed_and_still_cancelled(supervisor: Supervisor) -> None:
    run = started("run", "--json", spec_file("run stage 250", "run hold on"))
    os.kill(pid_at("on"), signal.SIGSTOP)
    run.send_signal(signal.SIGINT)
    sent_at = time.monotonic()
    stdout, _ = run.communicate(timeout=PATIENCE_S)

    took_s = time.monotonic() - sent_at
    moves = supervisor.moves(only_job(supervisor).id)

    assert run.returncode == 130
    assert json.loads(stdout)["status"] == "cancelled"
    assert moves[-1].reason.startswith("cancelled; 250 rows are kept")
    # Five, and what the command itself takes to end.
    assert 5 < took_s < 8


def test_a_second_ctrl_c_does_not_wait(supervisor: Supervisor) -> None:
    run = started("run", "--json", spec_file("run stage 250", "run hold on"))
    os.kill(pid_at("on"), signal.SIGSTOP)
    sent_at = time.monotonic()
    run.send_signal(signal.SIGINT)
    until(lambda: time.monotonic() > sent_at + 0.3)
    run.send_signal(signal.SIGINT)
    stdout, _ = run.communicate(timeout=PATIENCE_S)

    assert run.returncode == 130
    assert json.loads(stdout)["status"] == "cancelled"
    assert time.monotonic() - sent_at < 5


def test_a_publish_that_ends_soon_after_ctrl_c_is_completed(supervisor: Supervisor) -> None:
    run = started("run", spec_file("run stage 1000", "publish hold out"))
    pid_at("out")
    run.send_signal(signal.SIGINT)
    job_id = only_job(supervisor).id
    # The job knows by now that it should stop, and waits for the publish.
    time_to_notice = time.monotonic() + 0.5
    until(lambda: time.monotonic() > time_to_notice)
    Path("go-out").touch()
    stdout, _ = run.communicate(timeout=PATIENCE_S)

    assert run.returncode == 0
    assert f"{job_id} completed" in stdout
    assert only_job(supervisor).status == "completed"


def test_a_publish_that_does_not_end_after_ctrl_c_is_never_called_cancelled(supervisor: Supervisor) -> None:
    run = started("run", spec_file("run stage 1000", "publish hold out"))
    pid = pid_at("out")
    sent_at = time.monotonic()
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=PATIENCE_S)
    took_s = time.monotonic() - sent_at
    job = only_job(supervisor)

    assert run.returncode == 130
    assert job.status == "failed"
    assert "after publishing had begun; whether the result is visible is not known" in stderr
    assert not psutil.pid_exists(pid)
    assert took_s < 6


def test_a_job_outlives_the_command_that_started_it(supervisor: Supervisor) -> None:
    run = started("run", spec_file("run hold on", "run stage 1000"))
    pid_at("on")
    run.kill()
    run.communicate()
    job_id = only_job(supervisor).id
    while_alone = penstock("jobs", "show", job_id).stdout
    Path("go-on").touch()
    until(lambda: only_job(supervisor).is_over)

    assert f"{job_id} running\n  now     running: 0 of 1,000 rows (0%), 0 rejected\n" in while_alone
    assert only_job(supervisor).status == "completed"


def test_a_job_that_died_is_told_with_its_log(supervisor: Supervisor) -> None:
    done = penstock("run", spec_file("run stage 100", "run die"))
    job = only_job(supervisor)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"error: {job.id} failed: its process died (killed by SIGKILL; see {supervisor.folder(job.id).log}); "
        f"100 rows are kept, `penstock resume {job.id}` goes on"
    )


def test_a_terminal_shows_a_bar_and_a_frame(supervisor: Supervisor) -> None:
    spec_file("prepare hold first", "run stage 500", "run hold on", "run stage 1000")
    leader, follower = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-c", PENSTOCK, "run", "spec.json"],
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    )
    os.close(follower)
    seen = b""

    def read_until(text: str) -> None:
        nonlocal seen
        deadline = time.monotonic() + PATIENCE_S
        while text not in _bare(seen):
            assert time.monotonic() < deadline, _bare(seen)
            try:
                seen += os.read(leader, 65536)
            except OSError:
                assert text in _bare(seen)
                return

    read_until("preparing")
    read_until("250 rows copied")
    Path("go-first").touch()
    read_until("500 of 1,000 rows")
    Path("go-on").touch()
    run.wait(PATIENCE_S)
    read_until("╰")
    os.close(leader)

    assert run.returncode == 0
    assert f"╭─ {only_job(supervisor).id} completed in" in _bare(seen)
    assert "rows    1,000 = 1,000 scored + 0 rejected + 0 skipped" in _bare(seen)


def _bare(output: bytes) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode(errors="replace"))


def test_jobs_are_listed_newest_first_and_by_state(supervisor: Supervisor) -> None:
    none = penstock("jobs", "list")
    first = finished(supervisor, supervisor.submit(spec("run stage 1000"), Path.cwd()))
    Path("result").unlink()
    second = finished(supervisor, supervisor.submit(spec("run input no"), Path.cwd()))
    listed = penstock("jobs", "list").stdout.splitlines()
    completed = json.loads(penstock("jobs", "list", "--json", "--status", "completed").stdout)
    wrong = penstock("jobs", "list", "--status", "done")
    cancelled = penstock("jobs", "list", "--status", "cancelled")

    assert none.stdout == "no jobs; `penstock run SPEC` starts one\n"
    assert listed[0].split() == ["job", "name", "model", "status", "created", "rows", "done", "rejected", "output"]
    assert [line.split()[:3] for line in listed[1:]] == [
        [second.id, "fake:Model", "failed"],
        [first.id, "fake:Model", "completed"],
    ]
    assert [job["job_id"] for job in completed["jobs"]] == [first.id]
    assert cancelled.stdout == "no jobs that are cancelled\n"
    assert wrong.returncode == 2
    assert wrong.stderr == (
        "error: --status 'done' is no state; use one of submitted, preparing, running, completing, "
        "completed, failed, cancelled\n"
    )


def test_a_deleted_job_is_gone_with_all_it_staged(supervisor: Supervisor) -> None:
    job = finished(supervisor, supervisor.submit(spec("run stage 5", "run input no"), Path.cwd()))
    done = penstock("jobs", "delete", job.id)
    again = penstock("jobs", "delete", job.id)

    assert (done.returncode, done.stdout) == (0, f"{job.id} is deleted\n")
    assert Path("discarded").read_text() == job.id
    assert not supervisor.folder(job.id).path.exists()
    assert supervisor.jobs() == []
    assert (again.returncode, again.stderr) == (
        2,
        f"error: there is no job '{job.id}'; `penstock jobs list` shows all\n",
    )


def in_a_small_home(size: str, first: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run penstock with a home on a disk of its own, after a shell command that finds it as $PENSTOCK_HOME."""
    home = Path("small").absolute()
    home.mkdir()
    script = f'mount -t tmpfs -o size={size} tmpfs $PENSTOCK_HOME && {first} && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", PENSTOCK, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PENSTOCK_HOME": str(home)},
        timeout=PATIENCE_S,
        check=False,
    )
    if "permission denied" in done.stderr.lower() or "not permitted" in done.stderr.lower():
        pytest.skip("mount namespaces are not allowed here")
    return done


def test_a_full_disk_does_not_keep_a_job_from_saying_so(work: Path) -> None:
    """The job store lies on the disk that the job fills."""
    done = in_a_small_home("4m", "true", "run", "--json", spec_file("run fill"))
    told = json.loads(done.stdout)

    assert done.returncode == 1
    assert (told["status"], told["error"]) == ("failed", "no room is left for the result")


def test_a_full_home_is_one_line(work: Path) -> None:
    fill = "{ dd if=/dev/zero of=$PENSTOCK_HOME/filler bs=4k 2>/dev/null || true; }"
    done = in_a_small_home("1m", fill, "run", spec_file("run stage 1000"))

    assert done.returncode == 2
    assert re.fullmatch(
        r"error: (the job store /\S+/small/penstock.db cannot be written: the disk is full; free some space|"
        r"the disk of /\S+/small is full; free some space or set PENSTOCK_HOME elsewhere)\n",
        done.stderr,
    )
