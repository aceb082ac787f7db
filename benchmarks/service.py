"""The service: it must answer at once with many jobs in its store, take many, and not grow."""

import itertools
import json
import random
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

import psutil

from benchmarks import history
from benchmarks.bare_app import JOBS
from benchmarks.data import DataSet
from benchmarks.folders import REPOSITORY, bench_folder, model_file, run_folder
from benchmarks.measure import TIMEOUT_S, ProgramFailed, empty_folder, environment, python, wait_for_quiet
from benchmarks.models import FEATURES
from benchmarks.penstock_job import executable
from benchmarks.postgres_server import PostgresMissing, postgres_server
from benchmarks.report import Comparison, Section, Target
from benchmarks.settings import ServiceSizes, Settings
from launcher.home import Home
from launcher.state.sql import SqlJobStore

READS_PER_S = 200
SUBMITS_PER_S = 1000 / 60
# The second tells whether what the first took was taken for good.
LOAD_ROUNDS = 2
SMALL_JOB_ROWS = 10_000
START_S = 120
STOP_S = 30
POLL_S = 0.005
MIB = 2**20
SEED = 3

METHOD = (
    "`penstock serve` without keys, its store with {jobs:,} jobs (and their moves) that ended in the last {days} days, "
    f"all of one tenant. A process of its own sends {READS_PER_S} GETs a second for {{seconds}} s, whatever becomes of "
    "those before, and counts from when each was due; statuses of jobs picked at random, lists of 50, and lists of 50 "
    "by states, model, time, or further back; each different list was asked for once before, as it is again and again "
    "by whoever watches one. Then {submits:,} POSTs at 1,000 a minute, each with its Idempotency-Key, "
    "of jobs that cannot start: the tenant may have one at work, and a row in the store stands for it. CPU is that of "
    "the launcher, its threads beside the API included. All this "
    f"{LOAD_ROUNDS} times. Times to the first row are of {SMALL_JOB_ROWS:,} rows in Parquet, from the POST until the "
    f"store tells of a scored row (asked every {1000 * POLL_S:g} ms). The bare app is FastAPI and uvicorn, "
    "set as ours, an `async` handler with the same JSON each time; it is asked in turns with ours."
)
ANSWER_TARGET = Target(20, at_least=False)
# It asks no store and knows no tenants; where answers take milliseconds, that may cost some.
BARE_TARGET = Target(4, at_least=False)
ACCEPTED_TARGET = Target(1)
GROWTH_TARGET = Target(1.05, at_least=False)
FIRST_ROW_TARGET = Target(0.5, at_least=False)
READS = {
    "status": "status",
    "list": "list of 50",
    "filtered": "filtered list of 50",
}
BARE_LABEL = "p99 of a status / p99 of a bare FastAPI app"
SUBMIT_LABEL = "share of POSTs at 1,000 a minute that are accepted"
GROWTH_LABEL = "launcher's memory after the second round / after the first"
FIRST_ROW_LABEL = "seconds from POST to the first scored row, idle service"

Request = Mapping[str, str]


class JobFailed(Exception):
    """A job that was to be timed did not complete; the message says why."""


@dataclass(frozen=True)
class Load:
    """What came of one load: each request's time, how late it was sent, how many were answered how, and the server's
    CPU time, which says more than the clock where others use the machine, too."""

    took_ms: tuple[float, ...]
    late_ms: tuple[float, ...]
    answers: Mapping[str, int]
    cpu_s: float

    @cached_property
    def sorted_ms(self) -> list[float]:
        """The times, the shortest first."""
        return sorted(self.took_ms)

    def percentile_ms(self, share: float) -> float:
        """The time within which this share of the requests was answered."""
        return self.sorted_ms[min(len(self.sorted_ms) - 1, int(share * len(self.sorted_ms)))]

    @property
    def late_p99_ms(self) -> float:
        """How late the sender itself was, nearly always."""
        return sorted(self.late_ms)[int(0.99 * len(self.late_ms))]

    def __add__(self, other: "Load") -> "Load":
        answers = dict(Counter(self.answers) + Counter(other.answers))
        return Load(self.took_ms + other.took_ms, self.late_ms + other.late_ms, answers, self.cpu_s + other.cpu_s)

    def __str__(self) -> str:
        p50, p99 = (self.percentile_ms(share) for share in (0.5, 0.99))
        answers = ", ".join(f"{count:,} answered {answer}" for answer, count in sorted(self.answers.items()))
        cpu_ms = 1000 * self.cpu_s / len(self.took_ms)
        return f"p50 {p50:.1f}, p99 {p99:.1f}, longest {self.sorted_ms[-1]:.0f} ms, CPU {cpu_ms:.1f} ms each; {answers}"


@dataclass(frozen=True)
class Server:
    """A server that listens."""

    url: str
    pid: int

    def get(self, path: str) -> Any:
        """The JSON that it answers."""
        with urllib.request.urlopen(self.url + path, timeout=START_S) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        """The same of a POST."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=START_S) as answer:
            return json.load(answer)

    @property
    def cpu_s(self) -> float:
        """The CPU time that its process has taken so far, user and system."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def rss_mib(self) -> float:
        """The memory of its process alone."""
        return float(psutil.Process(self.pid).memory_info().rss) / MIB


def measure(settings: Settings) -> Section:
    """Load a service, and a bare app beside it."""
    sizes = settings.service
    method = METHOD.format(jobs=sizes.jobs, days=history.DAYS, seconds=sizes.seconds, submits=sizes.submits)
    section = Section("Service", method)
    labels: list[tuple[str, Target]] = [
        *((_read_label(read, "SQLite"), ANSWER_TARGET) for read in READS),
        (BARE_LABEL, BARE_TARGET),
        (SUBMIT_LABEL, ACCEPTED_TARGET),
        (GROWTH_LABEL, GROWTH_TARGET),
        (FIRST_ROW_LABEL, FIRST_ROW_TARGET),
    ]
    if not settings.with_penstock:
        section.comparisons = [Comparison(label, None, target, "left out of this run") for label, target in labels]
        return section
    try:
        _with_sqlite(settings, sizes, section)
        _with_postgres(settings, sizes, section)
    except (ProgramFailed, JobFailed, OSError, TimeoutError) as error:
        print(f"  FAILED\n{error}", flush=True)
        why = " ".join(str(error).splitlines()[:1])[:200]
        done = {comparison.label for comparison in section.comparisons}
        section.comparisons += [Comparison(label, None, target, why) for label, target in labels if label not in done]
    return section


def _with_sqlite(settings: Settings, sizes: ServiceSizes, section: Section) -> None:
    folder = empty_folder(run_folder("service SQLite", sizes.jobs))
    home = Home(folder / "home")
    home.create()
    mark = home.sign_on("launcher-benchmark")
    store = SqlJobStore.at(home.store)
    try:
        ids = _filled(store, sizes, "SQLite")
        DataSet(SMALL_JOB_ROWS).make()
        with penstock(folder, {}) as server:
            rss = {"at the start": server.rss_mib}
            model = {"model_id": history.MODELS[0], "uri": str(model_file()), "features": FEATURES}
            server.post("/api/v1/models", model)
            first_row_s = _first_rows(server, store, sizes.starts)
            section.comparisons.append(
                Comparison(
                    FIRST_ROW_LABEL, median(first_row_s), FIRST_ROW_TARGET, " ".join(f"{s:.2f}" for s in first_row_s)
                )
            )
            history.occupy(store, ids[0], "launcher-benchmark")
            busy: list[bool] = []
            first_ms: list[float] = []
            reads: dict[str, list[Load]] = {}
            submits: list[Load] = []
            bare: list[Load] = []
            requests = 0
            for number in range(1, LOAD_ROUNDS + 1):
                for read, asked in _reads(server, ids, sizes.seconds, number).items():
                    first_ms.append(_ask_each_list_once(server, asked))
                    busy.append(not wait_for_quiet(settings.patience_s))
                    reads.setdefault(read, []).append(_load(f"round {number}, {read}", server, asked, folder))
                    if read == "status":
                        bare.append(_bare_app(server.get(asked[0]["path"]), asked, number, folder))
                rss[f"after the GETs of round {number}"] = server.rss_mib
                posts = _submits(sizes.submits, number)
                submits.append(_load(f"round {number}, POSTs", server, posts, folder, SUBMITS_PER_S))
                rss[f"after the POSTs of round {number}"] = server.rss_mib
                requests = len(posts) + sum(len(loads[-1].took_ms) for loads in reads.values())
    finally:
        store.close()
        mark.release()
    section.comparisons = [
        *(_answer_times(read, "SQLite", loads) for read, loads in reads.items()),
        _beside_bare(reads["status"], bare),
        _accepted(submits),
        _growth(rss, requests),
        *section.comparisons,
    ]
    section.notes.append("launcher's memory: " + ", ".join(f"{mib:.0f} MiB {when}" for when, mib in rss.items()))
    late_ms = max(load.late_p99_ms for load in itertools.chain(*reads.values(), bare, submits))
    section.notes.append(f"the sender itself was late by up to {late_ms:.1f} ms (p99 of a load)")
    section.notes.append(f"a list that was asked for the first time took up to {max(first_ms):.0f} ms by itself")
    if any(busy):
        section.notes.append(f"{sum(busy)} of {len(busy)} loads began while other programs used the machine")


def _with_postgres(settings: Settings, sizes: ServiceSizes, section: Section) -> None:
    folder = empty_folder(run_folder("service PostgreSQL", sizes.jobs))
    try:
        with postgres_server() as uri:
            store = SqlJobStore.named(uri, folder / "none")
            try:
                ids = _filled(store, sizes, "PostgreSQL")
                with penstock(folder, {"PENSTOCK_STORE": uri}) as server:
                    for read, asked in _reads(server, ids, sizes.seconds, 1).items():
                        _ask_each_list_once(server, asked)
                        wait_for_quiet(settings.patience_s)
                        loads = [_load(f"PostgreSQL, {read}", server, asked, folder)]
                        section.comparisons.append(_answer_times(read, "PostgreSQL", loads))
            finally:
                store.close()
    except PostgresMissing as missing:
        section.notes.append(f"not with PostgreSQL as the store: {missing}")


def _filled(store: SqlJobStore, sizes: ServiceSizes, where: str) -> list[str]:
    begun = time.perf_counter()
    ids = history.fill(store, sizes.jobs)
    history.tidy(store)
    print(f"  {sizes.jobs:,} jobs put into {where} in {time.perf_counter() - begun:.0f} s", flush=True)
    return ids


# --- what is asked ----------------------------------------------------------------------------------------------


def _reads(server: Server, ids: Sequence[str], seconds: int, number: int) -> dict[str, list[Request]]:
    """The GETs of one round by what they ask."""
    rng = random.Random(SEED + number)
    count = READS_PER_S * seconds

    def gets(paths: Sequence[str]) -> list[Request]:
        return [{"method": "GET", "path": path} for path in itertools.islice(itertools.cycle(paths), count)]

    return {
        "status": gets([f"{JOBS}/{rng.choice(ids)}" for _ in range(count)]),
        "list": gets([f"{JOBS}?limit=50"]),
        "filtered": gets([f"{JOBS}?limit=50&{query}" for query in _filters(server)]),
    }


def _ask_each_list_once(server: Server, requests: Sequence[Request]) -> float:
    """Ask for each different list, one after the other. Returns the longest time, in ms; 0 where there are none."""
    longest_s = 0.0
    for path in dict.fromkeys(request["path"] for request in requests if "?" in request["path"]):
        begun = time.perf_counter()
        server.get(path)
        longest_s = max(longest_s, time.perf_counter() - begun)
    return 1000 * longest_s


def _filters(server: Server) -> list[str]:
    now = datetime.now(UTC).replace(microsecond=0)
    since, until = (quote((now - timedelta(days=days)).isoformat()) for days in (4, 2))
    queries = [
        "status=failed",
        "status=failed&status=cancelled",
        f"since={since}&until={until}",
        *(f"model_id={model}" for model in history.MODELS),
        *(f"model_id={model}&status=completed" for model in history.MODELS),
    ]
    # A page further back for each of the first.
    further = []
    for query in ["", *queries[:4]]:
        cursor = server.get(f"{JOBS}?limit=500&{query}")["next_cursor"]
        further += [f"{query}&cursor={quote(cursor)}".lstrip("&")] if cursor else []
    return queries + further


def _submits(count: int, number: int) -> list[Request]:
    body = json.dumps(_small_job())
    return [{"method": "POST", "path": JOBS, "body": body, "key": f"benchmark-{number}-{at}"} for at in range(count)]


def _small_job() -> dict[str, Any]:
    return {
        "model_id": history.MODELS[0],
        "input": {"source": "parquet", "path": DataSet(SMALL_JOB_ROWS).files},
        "config": {"batch_size": 1000, "parallelism": 4, "timeout_minutes": 60},
    }


def _first_rows(server: Server, store: SqlJobStore, starts: int) -> list[float]:
    """How long some jobs, one after the other, took to their first scored row."""
    taken_s = []
    for _ in range(starts):
        begun = time.perf_counter()
        job_id = server.post(JOBS, _small_job())["job_id"]
        first_s: float | None = None
        while True:
            job = store.get(job_id)
            if first_s is None and (job.live.scored or job.counts is not None):
                first_s = time.perf_counter() - begun
            if job.is_over:
                break
            if time.perf_counter() - begun > START_S:
                raise TimeoutError(f"{job_id} is still {job.status} after {START_S} s")
            time.sleep(POLL_S)
        if job.status != "completed" or first_s is None:
            raise JobFailed(f"{job_id} is {job.status}: {job.error}")
        taken_s.append(first_s)
    print(f"  first rows after {' '.join(f'{s:.2f}' for s in taken_s)} s", flush=True)
    return taken_s


# --- what came of it --------------------------------------------------------------------------------------------


def _load(what: str, server: Server, requests: Sequence[Request], folder: Path, rate: float = READS_PER_S) -> Load:
    """Send `requests` from a process of its own.

    Raises:
        ProgramFailed: it could not be done.
    """
    asked, result = folder / "requests.json", folder / "answers.json"
    asked.write_text(json.dumps(requests))
    before_s = server.cpu_s
    command = python("load", server.url, asked, result, "--rate", str(rate))
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S
    )
    if done.returncode != 0:
        raise ProgramFailed(
            f"{' '.join(command)}\nended with status {done.returncode}:\n{done.stderr.decode()[-2000:]}"
        )
    found = json.loads(result.read_text())
    load = Load(tuple(found["took_ms"]), tuple(found["late_ms"]), Counter(found["answers"]), server.cpu_s - before_s)
    print(f"  {what}: {load}", flush=True)
    return load


def _bare_app(status: Any, requests: Sequence[Request], number: int, folder: Path) -> Load:
    """The same requests to an app that answers each with this status."""
    answer = folder / "answer.json"
    answer.write_text(json.dumps(status))
    with _listening(python("bare_app", answer), environment(), folder / "bare-app-log.txt") as server:
        return _load(f"round {number}, bare FastAPI app", server, requests, folder)


def _read_label(read: str, where: str) -> str:
    return f"p99 of a {READS[read]} in ms, {where}"


def _answer_times(read: str, where: str, loads: Sequence[Load]) -> Comparison:
    together = sum(loads[1:], start=loads[0])
    by_round = tuple(load.percentile_ms(0.99) for load in loads)
    detail = str(together)
    if len(loads) > 1:
        detail += f"; p99 by round {' '.join(f'{value:.1f}' for value in by_round)}"
    # How fast something else was answered does not count.
    p99_ms = together.percentile_ms(0.99) if set(together.answers) == {"200"} else None
    return Comparison(_read_label(read, where), p99_ms, ANSWER_TARGET, detail, by_round)


def _beside_bare(loads: Sequence[Load], bare: Sequence[Load]) -> Comparison:
    ours_ms, theirs_ms = (sum(each[1:], start=each[0]).percentile_ms(0.99) for each in (loads, bare))
    by_round = tuple(
        ours.percentile_ms(0.99) / theirs.percentile_ms(0.99) for ours, theirs in zip(loads, bare, strict=True)
    )
    return Comparison(
        BARE_LABEL, ours_ms / theirs_ms, BARE_TARGET, f"{ours_ms:.1f} against {theirs_ms:.1f} ms", by_round
    )


def _accepted(submits: Sequence[Load]) -> Comparison:
    together = sum(submits[1:], start=submits[0])
    return Comparison(
        SUBMIT_LABEL, together.answers.get("202", 0) / len(together.took_ms), ACCEPTED_TARGET, str(together)
    )


def _growth(rss: Mapping[str, float], requests: int) -> Comparison:
    before, after = (rss[f"after the POSTs of round {number}"] for number in (LOAD_ROUNDS - 1, LOAD_ROUNDS))
    per_1000 = (after - before) / requests * 1000
    detail = f"{after:.1f} against {before:.1f} MiB, {per_1000:.3f} MiB per 1,000 requests"
    return Comparison(GROWTH_LABEL, after / before, GROWTH_TARGET, detail)


# --- servers ----------------------------------------------------------------------------------------------------


@contextmanager
def penstock(folder: Path, more: Mapping[str, str]) -> Iterator[Server]:
    """`penstock serve` on a free port, ready to start jobs."""
    variables = environment() | {
        "PENSTOCK_HOME": str(folder / "home"),
        "PENSTOCK_ALLOWED_PATHS": str(bench_folder()),
        "BATCH_MAX_CONCURRENT_JOBS": "1",
        **more,
    }
    with _listening([str(executable()), "serve", "--port", "0"], variables, folder / "serve-log.txt") as server:
        deadline = time.monotonic() + START_S
        while not _is_ready(server):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the service is not ready after {START_S} s; look at {folder / 'serve-log.txt'}")
            time.sleep(0.1)
        yield server


def _is_ready(server: Server) -> bool:
    try:
        return bool(server.get("/readyz")["status"] == "ready")
    except OSError:
        return False


@contextmanager
def _listening(command: Sequence[str], variables: Mapping[str, str], log: Path) -> Iterator[Server]:
    """A server that says where it listens at the end of its first line."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip().rpartition(" ")[2]
            if not url:
                raise ProgramFailed(f"{' '.join(command)} did not start; look at {log}")
            yield Server(url, process.pid)
        finally:
            # Jobs of a service outlive it.
            below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for each in psutil.wait_procs(below, timeout=1)[1]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
