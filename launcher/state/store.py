"""Where jobs are kept, whatever keeps them."""

from collections.abc import Collection
from typing import Any, Protocol

from launcher.state.job import Job, Move, Status


class JobStore(Protocol):
    """Jobs by id: values in, values out. Any number of threads and processes may use one store at once.

    Every method may raise `StoreUnavailable`: nothing was changed then.
    """

    def add(self, job: Job, reason: str) -> None:
        """Record a new job and, with `reason`, its first move.

        Raises:
            JobExists: the id is taken.
        """

    def get(self, job_id: str) -> Job:
        """The job as it stands.

        Raises:
            JobUnknown: there is none.
        """

    def jobs(self) -> list[Job]:
        """All jobs, the newest first."""

    def move(self, job_id: str, expected: Status | Collection[Status], to: Status, reason: str, **changes: Any) -> Job:
        """Move a job that is in an expected state, and record the move: of many that try, one does it.

        Args:
            changes: further fields of the job, set together with the move.

        Returns:
            The job after it.

        Raises:
            JobUnknown: there is none.
            Conflict: it is in another state.
            MoveForbidden: the table of moves does not have it.
        """

    def moves(self, job_id: str) -> list[Move]:
        """The moves of a job, the first first. Empty when there is no such job."""

    def delete(self, job_id: str, expected: Collection[Status]) -> None:
        """Forget a job and its moves.

        Raises:
            JobUnknown: there is none.
            Conflict: it is in another state than expected.
        """

    def close(self) -> None:
        """Let go of connections. The store is not used after."""
