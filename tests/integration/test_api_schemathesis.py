"""Schemathesis over the whole OpenAPI: requests right and wrong by the hundred, and each answer as it is documented."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api import ASIDE, BATCH, ROWS, Api, serving
from transforms.counts import Counts

# It may be beside the interpreter without being on the path.
SCHEMATHESIS = shutil.which(
    "schemathesis", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
)
# What an estimate finds out takes a process with Beam; how it is told is what is tested here.
REPORT = {
    "rows": ROWS,
    "splits": 1,
    "features": [],
    "output": [{"column": "churn", "type": "float"}],
    "predictions": [{"churn": float("nan")}],
    "refused": ["customers:3 ValueError: no"],
    "sample_rows": 10,
    "seconds": {"low": 1.0, "likely": 2, "high": 3.5},
    "memory_bytes": 300 * 2**20,
    "assumptions": ["nothing else runs"],
    "notices": [],
}
# Left out, of all checks: that a model of the name is there, or that a query can be read, no schema says.
LEFT_OUT = "positive_data_acceptance"
CONFIG = """
[checks.negative_data_rejection]
# 413: among what breaks the schema is what is too large to be read.
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422]
"""


@pytest.fixture
def stocked(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A service whose tenant, acme or the default one, has what the examples name."""
    with serving(tmp_path / "service", keyless=request.param, preload=ASIDE) as api:
        admission = api.service.admission

        def estimate(caller: Any, asked: Any) -> dict[str, Any]:
            admission.look_up(caller, asked)
            return REPORT

        monkeypatch.setattr(admission, "estimate", estimate)
        client = api.client(None if request.param else "acme", "admin")
        api.stock(client)
        client.post("/api/v1/connections", json={"name": "warehouse", "uri": "sqlite:///customers.db"})
        client.post("/api/v1/models", json={"model_id": "churn", "uri": "churn.onnx"})
        yield api


def run(api: Api, folder: Path, *arguments: str, config: str = "") -> None:
    """Run schemathesis; fail with what it says if it finds anything."""
    assert SCHEMATHESIS is not None
    file = folder / "schemathesis.toml"
    file.write_text(config + CONFIG)
    command = [SCHEMATHESIS, "--config-file", str(file), "run", f"{api.url}/openapi.json"]
    command += ["--exclude-checks", LEFT_OUT, "--seed", "1", "--no-color", "--generation-database", "none"]
    command += ["--request-timeout", "20", "--warnings", "off", "--suppress-health-check", "all", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]


@pytest.mark.parametrize("stocked", [True], indirect=True)
def test_without_keys_every_answer_is_as_it_is_documented(stocked: Api, tmp_path: Path) -> None:
    run(stocked, tmp_path, "--phases", "examples,coverage,fuzzing", "--max-examples", "3")


@pytest.mark.parametrize("stocked", [True], indirect=True)
def test_every_answer_about_what_is_there_is_as_it_is_documented(stocked: Api, tmp_path: Path) -> None:
    client = stocked.client()
    done = stocked.submit(client)
    stocked.run(done, ROWS)
    stocked.move(done, "completing", "completed", outcome="clean", counts=Counts(ROWS))
    job = {"model_id": "churn", "input": {"source": "parquet", "path": "x"}}
    schedule = {"schedule": {"cron": "0 2 * * *"}, "job": job}
    schedule_id = client.post("/api/v1/schedules", json=schedule).json()["schedule_id"]
    named = f'[parameters]\njob_id = "{done}"\nschedule_id = "{schedule_id}"\nmodel_id = "churn"\nname = "warehouse"\n'
    # What is there stays there.
    named += "purge = false\n"

    run(stocked, tmp_path, "--phases", "examples,fuzzing", "--max-examples", "6", config=named)

    assert client.get(f"{BATCH}/{done}").json()["status"] == "completed"


@pytest.mark.parametrize("stocked", [False], indirect=True)
def test_with_a_viewers_key_every_answer_is_as_it_is_documented(stocked: Api, tmp_path: Path) -> None:
    _, token = stocked.service.keys.create("acme", "viewer")
    admin = stocked.client("acme", "admin")
    before = [admin.get(path).json() for path in (BATCH, "/api/v1/models", "/api/v1/connections")]

    run(
        stocked,
        tmp_path,
        "--phases",
        "examples,fuzzing",
        "--max-examples",
        "3",
        "--header",
        f"Authorization: Bearer {token}",
    )

    # Whatever was sent, a viewer has changed nothing.
    assert [admin.get(path).json() for path in (BATCH, "/api/v1/models", "/api/v1/connections")] == before
