"""Penstock as a new user runs it: a job spec in YAML and `penstock run`."""

import sys
from pathlib import Path

import yaml

from benchmarks.data import DataSet
from benchmarks.folders import model_file
from benchmarks.models import FEATURES, ID_COLUMN

Spec = dict[str, object]
ONNX_MODEL: Spec = {"uri": str(model_file()), "flavor": "onnx", "features": list(FEATURES)}
PICKY_MODEL: Spec = {"uri": "benchmarks.models:Picky", "flavor": "python", "features": list(FEATURES)}
MAX_REJECT_RATIO = 0.01


def executable() -> Path:
    """The console script of this environment."""
    return Path(sys.executable).parent / "penstock"


def run_command(spec: Spec, folder: Path) -> list[str]:
    """Write `spec` into `folder` and give the command that runs it."""
    file = folder / "spec.yaml"
    file.write_text(yaml.safe_dump(spec, sort_keys=False))
    return [str(executable()), "run", str(file), "--json"]


def job(
    source: Spec,
    destination: Spec,
    rejects: Path,
    parallelism: int,
    call_rows: int = 1000,
    model: Spec | None = None,
) -> Spec:
    """A spec that scores `source` into `destination`, which gets the id and the score."""
    return {
        "model": model or ONNX_MODEL,
        "input": source,
        "output": destination | {"mode": "overwrite", "columns": [ID_COLUMN]},
        "rejects": {"path": str(rejects), "max_reject_ratio": MAX_REJECT_RATIO},
        "config": {"batch_size": call_rows, "parallelism": parallelism},
    }


def parquet_job(
    data: DataSet,
    folder: Path,
    parallelism: int,
    call_rows: int = 1000,
    model: Spec | None = None,
) -> Spec:
    """A spec that scores the Parquet files of `data` into `folder`/scores, with rejects in `folder`/rejects."""
    return job(
        {"source": "parquet", "path": data.files},
        {"destination": "parquet", "path": str(folder / "scores")},
        folder / "rejects",
        parallelism,
        call_rows,
        model,
    )
