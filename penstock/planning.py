"""Looking at what a job would do, from Python, as `penstock plan` does."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.estimate.look import PlanReport, look
from penstock.running import read


def plan(spec: Mapping[str, Any] | str | Path, **changes: Any) -> PlanReport:
    """What a job would do: rows, schema, first predictions, time. Writes nothing.

    Args:
        spec, changes: as of `run`.

    Raises:
        RequestError: the spec is wrong.
        PipelineError, PredictorError: the job could not run; the line says why.
    """
    asked = read(spec, changes)
    if str(Path.cwd()) not in sys.path:
        # The modules of a Python model, behind ours.
        sys.path.append(str(Path.cwd()))
    return look(asked)
