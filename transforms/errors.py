"""Errors of reading, staging and publishing; each message is one line that says what, where and what to do.

PipelineError
├── ConnectionRefused  a database cannot be reached               -> the job fails, staged rows are kept
├── InputError         the input cannot be read as asked          -> the job fails, nothing is written
│   └── InputChanged   a file is not the one that was planned     -> the job fails, naming it
├── ScoringFailed      the model failed, and not of its rows      -> the job fails, staged rows are kept
├── OutputError        the destination refuses                    -> the job fails, the old result stays
│   └── RowsRefused    some rows, not their neighbours            -> rejects, the others are staged again
├── LedgerError        the notes contradict the plan (a bug)      -> the job fails without publishing
├── TooManyRejects     over `max_reject_ratio`                    -> staged rows are kept for `penstock resume`
└── Cancelled          the job was told to stop before publishing -> staged spans are kept
"""

from collections.abc import Sequence
from dataclasses import dataclass


class PipelineError(Exception):
    """Something that a person can act on; `str(error)` is one line."""


class ConnectionRefused(PipelineError):
    """The database cannot be reached, or does not let us in."""


class InputError(PipelineError):
    """The input is missing, unreadable or not what the job asks for."""


class InputChanged(InputError):
    """A piece of input differs from its fingerprint in the plan."""


class ScoringFailed(PipelineError):
    """The model failed in a way that ends the job."""


class OutputError(PipelineError):
    """The destination cannot be written as asked."""


@dataclass(frozen=True)
class RefusedRow:
    """A row that the destination does not take.

    Args:
        span: index of its span among those that were to be staged.
        row: its index among the scored rows of the span.
        error_type, reason: for the rejects.
    """

    span: int
    row: int
    error_type: str
    reason: str


class RowsRefused(OutputError):
    """The destination does not take some rows; nothing was staged.

    Args:
        rows: at least one, none twice.
    """

    def __init__(self, rows: Sequence[RefusedRow]) -> None:
        super().__init__(tuple(rows))
        self.rows = tuple(rows)

    def __str__(self) -> str:
        return f"{len(self.rows)} rows were refused, the first: {self.rows[0].reason}"


class LedgerError(PipelineError):
    """The ledger does not cover the plan exactly once."""


class TooManyRejects(PipelineError):
    """More rows were rejected than the job allows."""


class Cancelled(PipelineError):
    """The job was stopped before its result was published."""
