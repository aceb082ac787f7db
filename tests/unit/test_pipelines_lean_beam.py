"""Beam as a job's process imports it."""

import subprocess
import sys

import pytest

SHOWN = """
import sys
import pipelines.lean_beam
early = sorted({{"apitools", "boto3", "google.api_core", "google.cloud.storage", "pandas"}} & set(sys.modules))
import apache_beam, pyarrow as pa
import pandas, google.cloud.storage, google.api_core.retry
import apache_beam.io.gcp.bigquery
assert pa.table({{"a": [1, 2]}}).to_pandas()["a"].sum() == 3
assert "lean_beam" not in repr(sys.meta_path)
print(early, apache_beam.io.gcp.bigquery.WriteToBigQuery.__name__)
"""
DRIVERLESS = """
import sys
import pipelines.lean_beam, {module}
print(sorted({{"adbc_driver_manager", "pandas", "polars", "sqlglot"}} & set(sys.modules)))
"""


def printed(script: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def test_what_is_hidden_while_beam_is_imported_is_found_afterwards() -> None:
    assert printed(SHOWN.format()) == "[] WriteToBigQuery"


def test_beam_that_was_imported_before_stays_as_it_is() -> None:
    lines = "import apache_beam, sys; before = set(sys.modules); import pipelines.lean_beam; "
    assert printed(lines + "print(sorted(set(sys.modules) - before))") == "['pipelines', 'pipelines.lean_beam']"


@pytest.mark.parametrize("module", ["launcher.worker.attempt", "launcher.worker.jobprocess"])
def test_a_job_of_files_alone_imports_no_driver_of_databases(module: str) -> None:
    assert printed(DRIVERLESS.format(module=module)) == "[]"
