"""Errors of the launcher; each message is a line that says what, where and what to do.

LauncherError
├── RequestError      the request is wrong                      -> each line names a field and the remedy
├── HomeUnusable      PENSTOCK_HOME cannot be read or written   -> nothing was started
├── StoreUnavailable  the job store does not answer             -> the state stays as it was
├── JobUnknown        there is no such job                      -> look at `penstock jobs list`
├── JobExists         the id is taken                           -> another id
├── JobAlive          the job's process runs                    -> wait or stop it
├── MoveForbidden     no job may go from this state to that     -> a bug, or a wish that cannot be
├── Conflict          the job is not in the state, or the       -> look again, decide again
│                     attempt, expected
├── NoRejects         the job has published no rejected rows    -> the line says why
└── StatusUnknown     no job can be in the state asked for      -> one of those that the line lists
"""

from collections.abc import Sequence
from typing import NamedTuple


class LauncherError(Exception):
    """A refusal whose reason is known; `str(error)` is one line."""


class Problem(NamedTuple):
    """One mistake: the field (empty when it is the whole request) and the rest of the sentence about it."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field} {self.message}".lstrip()


class RequestError(LauncherError):
    """The request is wrong in one or more ways; `str(error)` has one line for each, none with a secret in it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class HomeUnusable(LauncherError):
    """PENSTOCK_HOME is missing rights or space, or is no folder."""


class StoreUnavailable(LauncherError):
    """The job store could not be read or written."""


class JobUnknown(LauncherError):
    """There is no job of this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"there is no job {self.job_id!r}; `penstock jobs list` shows all"


class JobExists(LauncherError):
    """A job of this id is in the store already."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"there is already a job {self.job_id}"


class JobAlive(LauncherError):
    """The job's process runs.

    Args:
        job_id: which job.
        pid: its process, when it is known.
    """

    def __init__(self, job_id: str, pid: int | None) -> None:
        super().__init__(job_id, pid)
        self.job_id = job_id
        self.pid = pid

    def __str__(self) -> str:
        return f"{self.job_id} is still running ({'starting' if self.pid is None else f'pid {self.pid}'})"


class MoveForbidden(LauncherError):
    """The table of moves does not have this one."""

    def __init__(self, job_id: str, status: str, to: str) -> None:
        super().__init__(job_id, status, to)
        self.job_id = job_id
        self.status = status
        self.to = to

    def __str__(self) -> str:
        return f"{self.job_id} is {self.status} and cannot become {self.to}"


class Conflict(LauncherError):
    """Somebody else moved the job first.

    Args:
        job_id: which job.
        status: the state it is in.
        expected: the states it was thought to be in.
        attempt, expected_attempt: the same for the attempt; None where it was not asked for.
    """

    def __init__(
        self,
        job_id: str,
        status: str,
        expected: tuple[str, ...],
        attempt: int | None = None,
        expected_attempt: int | None = None,
    ) -> None:
        super().__init__(job_id, status, expected, attempt, expected_attempt)
        self.job_id = job_id
        self.status = status
        self.expected = expected
        self.attempt = attempt
        self.expected_attempt = expected_attempt

    def __str__(self) -> str:
        if self.status in self.expected:
            return f"{self.job_id} is in attempt {self.attempt}, not {self.expected_attempt}"
        return f"{self.job_id} is {self.status}, not {' or '.join(self.expected)}"


class NoRejects(LauncherError):
    """The job has published no rejected rows."""


class StatusUnknown(LauncherError):
    """A state was asked for that no job can be in."""
