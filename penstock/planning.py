"""Looking at what a job would do, from Python, as `penstock plan` does."""

import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.estimate.look import PlanReport, look
from launcher.state.job import new_id
from penstock.running import read


def plan(spec: Mapping[str, Any] | str | Path, *, scheduled_at: datetime | None = None, **changes: Any) -> PlanReport:
    """What a job would do: rows, schema, first predictions, time. Writes nothing.

    Args:
        spec, scheduled_at, changes: as of `run`.

    Raises:
        RequestError: the spec is wrong.
        PipelineError, PredictorError: the job could not run; the line says why.
    """
    asked = read(spec, changes, new_id(), scheduled_at)
    if str(Path.cwd()) not in sys.path:
        # The modules of a Python model, behind ours.
        sys.path.append(str(Path.cwd()))
    return look(asked)
