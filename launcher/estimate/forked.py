"""An estimate for the API: `launcher.estimate.look` at a job, in a process of its own that is forked for it."""

import resource
from typing import Any

from launcher.estimate.look import look
from launcher.logs import masked
from launcher.report import plan_json
from pipelines.spec import JobSpec
from predictors.bounds import Bounds
from predictors.errors import PredictorError
from transforms.connection import Connection
from transforms.errors import PipelineError


def estimate(
    spec: dict[str, Any], connections: dict[str, str], max_memory_gb: float, folders: list[str], closed: list[str]
) -> dict[str, Any]:
    """What `penstock plan --json` prints of the same job.

    Args:
        spec: as `JobSpec.to_json` writes it, connections by name.
        connections: URIs by name. Secrets.
        max_memory_gb: the job's bound holds for looking at it, too.
        folders, closed: of the `Bounds` that its files have to lie in.

    Raises:
        PipelineError, PredictorError: one line that says why the job could not run, without secrets.
    """
    _bound_memory(max_memory_gb)
    asked = JobSpec.from_json(spec).with_uris(connections)
    try:
        return plan_json(look(asked, is_warm=True, within=Bounds(tuple(folders), tuple(closed))))
    except (PipelineError, PredictorError):
        raise
    except Exception as error:
        known = [Connection(uri) for uri in connections.values()]
        raise PipelineError(masked(f"{type(error).__name__}: {error}", known)) from None


def _bound_memory(max_memory_gb: float) -> None:
    """Have allocations fail beyond the bound: nobody watches this process."""
    # Address space, not what is resident: libraries reserve some GB that they never touch.
    most = int((max_memory_gb + 8) * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
