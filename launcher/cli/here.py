"""What the commands do, once they are parsed. Each returns the exit code.

Reading a spec (pydantic), looking at data (pyarrow) and making an attempt (Beam) are imported by those who need them.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

from launcher import ATTEMPT
from launcher.cli.exits import DONE, FAILED, INTERRUPTED
from launcher.errors import JobUnknown, NotNow, Problem, RequestError, StatusUnknown
from launcher.follow import Interrupts, follow
from launcher.home import Home
from launcher.joblog import is_written
from launcher.limits import LocalSettings, too_many_rows
from launcher.loglines import lines_of
from launcher.reach.tenant import operators_uri
from launcher.report import (
    LISTED,
    Reason,
    aligned,
    dumped,
    job_json,
    listed,
    model_words,
    plan_json,
    plan_lines,
    progress_line,
    summary,
    timestamp,
    title,
)
from launcher.screen import display_for, print_summary
from launcher.state.job import STATUSES, Job, Status, new_id
from launcher.state.registry import Connections
from launcher.state.sql import SqlJobStore
from launcher.supervisor import StartedJob, Supervisor
from launcher.worker.progress import Live
from pipelines.spec import JobSpec
from transforms.errors import PipelineError


@dataclass(frozen=True)
class Given:
    """A local spec as it was named, with what is changed in it; see `launcher.request.local`."""

    spec: str
    settings: Sequence[str] = ()
    scheduled_at: datetime | None = None

    def read(self, job_id: str, parallelism: int | None) -> JobSpec:
        """What is asked for.

        Args:
            parallelism: of a job that does not say.

        Raises:
            RequestError: it is wrong.
        """
        from launcher.request.local import read_local
        from launcher.request.spec import check_names_free

        asked = read_local(self.spec, self.settings, job_id, self.scheduled_at, parallelism)
        check_names_free(asked, Path.cwd())
        return asked


def run(given: Given, as_json: bool, attempt_module: str, debug: bool = False) -> int:
    """Run a job and wait for its end.

    Args:
        debug: show the log of a job that is not kept.

    Raises:
        RequestError: the request is wrong; no job is kept.
    """
    settings, job_id = LocalSettings.from_environment(), new_id()
    asked = given.read(job_id, settings.default_parallelism)
    if settings.max_input_rows is not None:
        _check_rows(asked, settings.max_input_rows)
    with _supervisor(attempt_module) as supervisor, Interrupts() as interrupts:
        started = supervisor.submit(asked, Path.cwd(), job_id=job_id)
        job = follow(supervisor, started, display_for(sys.stderr, plain=as_json), interrupts)
        log = supervisor.folder(job.id).log.read_text("utf-8", "replace") if debug else ""
        wrong = supervisor.withdraw(job)
        if wrong is not None:
            sys.stderr.write(log)
            raise wrong
        return _finish(supervisor, job, as_json, interrupted=interrupts.count > 0)


def plan(given: Given, as_json: bool) -> int:
    """Show what a job would do.

    Raises:
        RequestError: the request is wrong, as `run` would find.
    """
    from launcher.request.messages import refused

    settings = LocalSettings.from_environment()
    asked = given.read(new_id(), settings.default_parallelism)
    # The modules of a Python model, behind ours.
    sys.path.append(str(Path.cwd()))
    from launcher.estimate.look import look
    from launcher.worker.failures import is_wrong_request
    from predictors.errors import PredictorError

    try:
        report = look(asked)
    except (PipelineError, PredictorError) as error:
        if not is_wrong_request(error, managed=False):
            raise
        raise refused(" ".join(str(error).split())) from error
    if settings.max_input_rows is not None and report.rows > settings.max_input_rows:
        raise RequestError([Problem("input", too_many_rows(report.rows, settings.max_input_rows))])
    print(dumped(plan_json(report)) if as_json else "\n".join(plan_lines(report)))
    return DONE


def resume(job_id: str, max_reject_ratio: float | None, as_json: bool, attempt_module: str) -> int:
    """Go on with a job; one that is completed is shown as it is."""
    with _supervisor(attempt_module) as supervisor:
        job = supervisor.job(job_id)
        if job.status == "completed":
            print(f"{job_id} is completed already; there is nothing to resume", file=sys.stderr)
            return _finish(supervisor, job, as_json, interrupted=False)
        return _follow(supervisor, lambda: supervisor.resume(job_id, max_reject_ratio), as_json)


def list_jobs(asked: Sequence[str], as_json: bool, limit: int | None = None) -> int:
    """List jobs, the newest first; at most `limit`."""
    statuses = _statuses(asked)
    with _supervisor() as supervisor:
        jobs = supervisor.jobs(statuses or None)[:limit]
        told = [job_json(job, Live() if job.counts else supervisor.live(job)) for job in jobs]
    if as_json:
        print(dumped({"jobs": told}))
    elif not jobs:
        print(f"no jobs that are {' or '.join(statuses)}" if statuses else "no jobs; `penstock run SPEC` starts one")
    else:
        print("\n".join(aligned((_listed(job, seen) for job, seen in zip(jobs, told, strict=True)), LISTED)))
    return DONE


def show_job(job_id: str, as_json: bool) -> int:
    """Show where a job stands and how it came there."""
    with _supervisor() as supervisor:
        job = supervisor.job(job_id)
        live = supervisor.live(job)
        if as_json:
            print(dumped(job_json(job, live)))
            return DONE
        lines = summary(job, live, _reasons(job), supervisor.folder(job_id).log)
        if job.error:
            lines.insert(0, ("error", job.error))
        if not job.is_over:
            lines.insert(0, ("now", progress_line(job, live, supervisor.snapshot(job), None)))
        moves = supervisor.moves(job_id)
    print_summary(title(job), lines, job.status)
    print()
    rows = ([timestamp(move.at), move.attempt, move.to, move.reason] for move in moves)
    print("\n".join(aligned(rows, ["at", "attempt", "state", "reason"], cell_chars=None)))
    return DONE


def has(job_id: str) -> bool:
    """Whether it is a job of `penstock run` on this machine."""
    home = Home.from_environment()
    if not home.store.exists():
        return False
    with _supervisor() as supervisor:
        try:
            return not supervisor.peek(job_id).managed
        except JobUnknown:
            return False


def refuse(job_id: str, wanted: Literal["result", "events", "cancel", "retry"]) -> NoReturn:
    """Say what to do instead of what a service alone does for its jobs.

    Raises:
        NotNow: always.
    """
    with _supervisor() as supervisor:
        job = supervisor.job(job_id)
    ways = {
        "result": f"its result is at {job.output}" if job.output else "it has no result",
        "events": f"`penstock jobs show {job_id}` shows what happened to it",
        "cancel": f"it is {job.status}" if job.is_over else f"end it by Ctrl-C, or by `kill {job.pid}`",
        "retry": "it is completed" if job.status == "completed" else f"`penstock resume {job_id}` goes on with it",
    }
    raise NotNow(f"{job_id} was run on this machine by `penstock run`; {ways[wanted]}")


def logs(job_id: str, follow: bool, tail: int | None, as_json: bool) -> int:
    """Print what a job's process said; as JSON, one object with all lines or, while it is followed, one for each."""
    with _supervisor() as supervisor:
        log = supervisor.folder(job_id).log
        lines = lines_of(log, tail, lambda: supervisor.job(job_id).is_over and not is_written(log), follow)
        if as_json and not follow:
            print(dumped({"lines": list(lines)}))
            return DONE
        for line in lines:
            print(dumped({"line": line}) if as_json else line, flush=follow)
    return DONE


def show_rejects(job_id: str, limit: int, as_json: bool) -> int:
    """Show the first rows that a job rejected."""
    from launcher.rows.rejects import first_rejects
    from launcher.rows.values import as_json_rows, as_shown_rows

    with _supervisor() as supervisor:
        rows = first_rejects(supervisor.job(job_id), limit)
    if as_json:
        print(dumped({"rejects": as_json_rows(rows)}))
    elif not rows.num_rows:
        print(f"{job_id} rejected no row")
    else:
        print("\n".join(aligned((row.values() for row in as_shown_rows(rows)), rows.schema.names)))
    return DONE


def delete_job(job_id: str, attempt_module: str) -> int:
    """Forget a job and remove what it staged."""
    with _supervisor(attempt_module) as supervisor:
        stays = supervisor.delete(job_id)
    print(f"{job_id} is deleted" + (f"; {stays}" if stays else ""))
    return DONE


def _check_rows(spec: JobSpec, most: int) -> None:
    """Demand that the input has no more rows than are taken. What cannot be counted is for the job to find out.

    Raises:
        RequestError: it has more.
    """
    try:
        rows = spec.input.count(None)
    except PipelineError:
        return
    if rows is not None and rows > most:
        raise RequestError([Problem("input", too_many_rows(rows, most))])


@contextmanager
def _supervisor(attempt_module: str = ATTEMPT) -> Iterator[Supervisor]:
    home = Home.from_environment()
    home.create()
    store = SqlJobStore.at(home.store)
    try:
        connections = Connections(store.database)
        default = os.environ.get("PENSTOCK_DEFAULT_CONNECTION")
        yield Supervisor(home, store, attempt_module, partial(operators_uri, connections, default or None))
    finally:
        store.close()


def _follow(supervisor: Supervisor, start: Callable[[], StartedJob], as_json: bool) -> int:
    with Interrupts() as interrupts:
        started = start()
        job = follow(supervisor, started, display_for(sys.stderr, plain=as_json), interrupts)
        return _finish(supervisor, job, as_json, interrupted=interrupts.count > 0)


def _finish(supervisor: Supervisor, job: Job, as_json: bool, interrupted: bool) -> int:
    """Tell how a job ended."""
    live = supervisor.live(job)
    if as_json:
        print(dumped(job_json(job, live)))
    else:
        print_summary(title(job), summary(job, live, _reasons(job), supervisor.folder(job.id).log), job.status)
    sys.stdout.flush()
    if job.status == "failed":
        print(f"error: {job.id} failed: {job.error}", file=sys.stderr)
    if job.status == "completed":
        return DONE
    return INTERRUPTED if interrupted or job.status == "cancelled" else FAILED


def _reasons(job: Job) -> list[Reason]:
    if job.counts is None or not job.counts.rejected:
        return []
    from launcher.rows.rejects import top_reasons

    return top_reasons(job)


def _statuses(asked: Sequence[str]) -> list[Status]:
    for status in asked:
        if status not in STATUSES:
            raise StatusUnknown(f"--status {status!r} is no state; use one of {', '.join(STATUSES)}")
    return [status for status in STATUSES if status in asked]


def _listed(job: Job, told: dict[str, Any]) -> list[str | None]:
    return listed(
        job.id,
        job.name,
        model_words(job.model_id, job.model_version, job.spec.model.uri),
        job.status,
        job.outcome,
        job.created_at,
        job.total_rows,
        told["progress"]["percentage"],
        told["counts"]["rejected_rows"],
        job.output,
    )
