"""Errors a predictor raises on purpose; any other exception from a model counts as bad data.

PredictorError
├── ModelNotLoadable   the artefact is missing or corrupt         -> the job fails before any row is read
├── SchemaMismatch     these columns can never be scored          -> the job fails
├── WrongAnswer        another count or schema than was promised  -> the job fails
├── ModelCrashed       it kills its process, row after row         -> the job fails
├── NothingScored      the first batches gave not one score       -> the job fails at once
├── Transient          the same call may pass later               -> the same batch again, with backoff
├── OutOfMemory        fewer rows may fit                         -> halve and remember
└── RowsRejected       these rows are bad, their neighbours not   -> rejects
"""

from collections.abc import Sequence


class PredictorError(Exception):
    """A failure whose consequence is known; `str(error)` is one line."""


class ModelNotLoadable(PredictorError):
    """The model is missing, corrupt or of another kind."""


class SchemaMismatch(PredictorError):
    """The input's columns and the model's do not meet."""


class WrongAnswer(PredictorError):
    """The model returned another number of rows, or other columns, than it promised.

    Args:
        reason: one line.
        row: the row with the answer that does not fit, its index within the call, where it is known.
    """

    def __init__(self, reason: str, row: int | None = None) -> None:
        super().__init__(*((reason,) if row is None else (reason, row)))
        self.row = row

    def __str__(self) -> str:
        return str(self.args[0])

    def shifted(self, row: int) -> "WrongAnswer":
        """The same error, its row counted in something larger than the call."""
        return WrongAnswer(str(self), row)


class ModelCrashed(PredictorError):
    """The model kills the process that it is called in, whatever the rows; the text names the signal."""


class NothingScored(PredictorError):
    """No row of the first batches could be scored; the text is the model's error."""


class Transient(PredictorError):
    """A connection, a timeout, a busy service: the same call may pass later."""


class OutOfMemory(PredictorError):
    """The call was too large for the device or the host."""


class RowsRejected(PredictorError):
    """Some rows are bad; nothing was scored.

    Args:
        rows: their indices within the call, ascending.
        reason: one line, the same for all of them.
    """

    def __init__(self, rows: Sequence[int], reason: str) -> None:
        super().__init__(rows, reason)
        self.rows = tuple(int(row) for row in rows)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason
