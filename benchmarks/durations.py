"""Estimates: how long the service says that jobs will take, when they are submitted, beside how long they take."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from benchmarks.data import MI, DataSet
from benchmarks.folders import REPOSITORY, bench_folder, model_file, run_folder
from benchmarks.measure import ProgramFailed, empty_folder
from benchmarks.models import FEATURES
from benchmarks.report import Comparison, Section, Target
from benchmarks.service import JobFailed, Server, penstock
from benchmarks.settings import Settings

JOBS = "/api/v1/inference/batch"
METHOD = (
    "`estimated_duration_seconds` in the answer to the POST against the time from `started_at` to `finished_at`, in "
    "this order on a service that has run nothing before; the ratio is that of the larger to the smaller. Parquet to "
    "Parquet; ONNX is the perceptron 3-32-1, the others are Python classes: one sleeps 5 ms for each row, one 0.4 s "
    "for each call, one computes 50 µs for each row. POSTs are timed, too: those of first jobs try the model."
)
# What is promised.
TARGET = Target(3, at_least=False)
POLL_S = 0.05
PATIENCE_S = 600
MODELS: Mapping[str, Mapping[str, Any]] = {
    "onnx": {"uri": str(model_file())},
    "slow rows": {"uri": "benchmarks.models:SlowRows"},
    "slow calls": {"uri": "benchmarks.models:SlowCalls"},
    "python": {"uri": "benchmarks.models:Computing"},
}


@dataclass(frozen=True)
class Case:
    """One job."""

    label: str
    model: str
    rows: int


def _cases(quick: bool) -> list[Case]:
    large = 5 * MI if quick else 22 * MI
    return [
        Case("ONNX, small, first job of all", "onnx", 1_000),
        Case("ONNX, small again", "onnx", 10_000),
        Case("ONNX, large after small ones", "onnx", large),
        Case("ONNX, large again", "onnx", large),
        Case("ONNX, small after large ones", "onnx", 1_000),
        Case("slow rows, first", "slow rows", 4_000),
        Case("slow rows, more of them", "slow rows", 10_000),
        Case("slow calls, first", "slow calls", 40_000),
        Case("computing Python, first", "python", 100_000),
        Case("computing Python, again", "python", 10_000),
    ]


def measure(settings: Settings) -> Section:
    """Run some jobs on a service of their own."""
    cases = _cases(settings.quick)
    section = Section("Estimated durations", METHOD)
    if not settings.with_penstock:
        section.comparisons = [Comparison(case.label, None, TARGET, "left out of this run") for case in cases]
        return section
    folder = empty_folder(run_folder("durations", 0))
    for case in cases:
        DataSet(case.rows).make()
        DataSet(case.rows).warm()
    try:
        # Code of Python is imported from the checkout.
        variables = {
            "PENSTOCK_ALLOWED_PATHS": f"{bench_folder()}:{REPOSITORY}",
            "BATCH_MAX_INPUT_ROWS": str(max(case.rows for case in cases)),
        }
        with penstock(folder, variables) as server:
            for model_id, model in MODELS.items():
                body = {"model_id": model_id.replace(" ", "-"), "features": list(FEATURES), **model}
                if "benchmarks." in model["uri"]:
                    body |= {"flavor": "python", "import_path": str(REPOSITORY)}
                server.post("/api/v1/models", body)
            for case in cases:
                section.comparisons.append(_compared(server, case))
    except (ProgramFailed, JobFailed, OSError, TimeoutError) as error:
        print(f"  FAILED\n{error}", flush=True)
        why = " ".join(str(error).splitlines()[:1])[:200]
        done = {comparison.label for comparison in section.comparisons}
        section.comparisons += [Comparison(case.label, None, TARGET, why) for case in cases if case.label not in done]
    return section


def _compared(server: Server, case: Case) -> Comparison:
    body = {
        "model_id": case.model.replace(" ", "-"),
        "input": {"source": "parquet", "path": DataSet(case.rows).files},
        "config": {"batch_size": 1000, "parallelism": 4},
    }
    began = time.perf_counter()
    taken = server.post(JOBS, body)
    post_s = time.perf_counter() - began
    job = server.get(f"{JOBS}/{taken['job_id']}")
    while job["status"] not in ("completed", "failed", "cancelled"):
        if time.perf_counter() - began > PATIENCE_S:
            raise TimeoutError(f"{taken['job_id']} is still {job['status']} after {PATIENCE_S} s")
        time.sleep(POLL_S)
        job = server.get(f"{JOBS}/{taken['job_id']}")
    if job["status"] != "completed":
        raise JobFailed(f"{taken['job_id']} is {job['status']}: {job['error']}")
    true_s = (datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])).total_seconds()
    told_s = taken["estimated_duration_seconds"]
    ratio = max(told_s / true_s, true_s / told_s) if told_s else None
    detail = f"{case.rows:,} rows: estimated {told_s} s, took {true_s:.2f} s; POST {post_s:.2f} s"
    print(f"  {case.label}: {detail}", flush=True)
    return Comparison(case.label, ratio, TARGET, detail)
