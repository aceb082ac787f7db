"""What a launcher hands to the process of a job."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from launcher import ATTEMPT
from launcher.worker.failures import FIRST_WAIT_S

# How long an attempt may be silent before it counts as dead: many beats, and a machine that stands still for a while.
LEASE_S = 30.0
# Of a job's process and all that it starts: whose they are.
JOB_ID_VARIABLE = "PENSTOCK_JOB_ID"


@dataclass(frozen=True)
class Handover:
    """What a launcher hands to the process of a managed job, over a socket. Holds secrets.

    Args:
        home: PENSTOCK_HOME.
        job_id, attempt: what to do; an attempt that is no longer the job's does nothing.
        store_url: of the job store; None is the one in the home.
        connections: URIs by the names that the job's spec has for them.
        allowed_paths: folders that the job's files have to lie in; None where nothing is confined.
        lease_s: how long the attempt may be silent.
        first_wait_s: before the next attempt, should this one fail in passing.
        max_input_rows: more are refused; None is any number.
        attempt_module: what makes the attempt; see `launcher.worker.attempt`.
    """

    home: str
    job_id: str
    attempt: int
    store_url: str | None = field(default=None, repr=False)
    connections: Mapping[str, str] = field(default_factory=dict, repr=False)
    allowed_paths: tuple[str, ...] | None = None
    lease_s: float = LEASE_S
    first_wait_s: float = FIRST_WAIT_S
    max_input_rows: int | None = None
    attempt_module: str = ATTEMPT

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Handover":
        """What `to_json` made."""
        paths = values["allowed_paths"]
        return cls(**{**values, "allowed_paths": None if paths is None else tuple(paths)})
