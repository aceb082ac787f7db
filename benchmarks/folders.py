"""Where the benchmarks keep what they make."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def bench_folder() -> Path:
    """The folder of data, results and logs: `$PENSTOCK_BENCH_DIR`, else `.bench` in the repository (git-ignored)."""
    return Path(os.environ.get("PENSTOCK_BENCH_DIR") or REPOSITORY / ".bench").resolve()


def model_file() -> Path:
    """The ONNX file of the churn model, which `benchmarks.data` writes."""
    return bench_folder() / "churn.onnx"


def penstock_home() -> Path:
    """Where Penstock keeps its jobs while it is measured."""
    return bench_folder() / "penstock"


def run_folder(program: str, rows: int) -> Path:
    """Where one program puts what it makes of one data set, and its log."""
    return bench_folder() / "runs" / program.replace(" ", "-").replace(",", "") / str(rows)
