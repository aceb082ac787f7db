"""Errors of reading, staging and publishing; each message is one line that says what, where and what to do.

PipelineError
├── ConnectionRefused  a database cannot be reached               -> the job fails, staged rows are kept
├── InputError         the input cannot be read as asked          -> the job fails, nothing is written
│   └── InputChanged   a file is not the one that was planned     -> the job fails, naming it
├── ScoringFailed      the model failed, and not of its rows      -> the job fails, staged rows are kept
├── OutputError        the destination refuses                    -> the job fails, the old result stays
├── LedgerError        the notes contradict the plan (a bug)      -> the job fails without publishing
├── TooManyRejects     over `max_reject_ratio`                    -> staged rows are kept for `penstock resume`
└── Cancelled          the job was told to stop before publishing -> staged spans are kept
"""


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


class LedgerError(PipelineError):
    """The ledger does not cover the plan exactly once."""


class TooManyRejects(PipelineError):
    """More rows were rejected than the job allows."""


class Cancelled(PipelineError):
    """The job was stopped before its result was published."""
