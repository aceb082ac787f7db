"""Removing what a job has staged, in a process of its own that is forked for it."""

import importlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launcher.state.job import Job
from pipelines.spec import JobSpec


def discard(
    job_id: str, spec: dict[str, Any], connections: dict[str, str] | None, folder: str, attempt_module: str
) -> None:
    """Remove what the job staged; a published result stays.

    Args:
        connections: URIs by the names in the spec; None where it is not known any more where the destination is.

    Raises:
        PipelineError: the destination could not be reached to be tidied.
    """
    job = Job(job_id, JobSpec.from_json(spec).with_uris(connections or {}), folder, datetime.now(UTC))
    attempt = importlib.import_module(attempt_module)
    (attempt.discard_apart if connections is None else attempt.discard)(job, Path(folder))
