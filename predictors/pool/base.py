"""What a pool promises: spans go in, answers come out, the model stays warm in between."""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from predictors.crashes import SpanName
from predictors.notices import Notice
from predictors.recovery import BadRow


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model said to one batch.

    Args:
        predictions: one row for each row that was scored, in order.
        scored: int32 indices of these rows in the batch, ascending; None when it is all of them.
        bad: the other rows, ascending.
        calls: how often the model was called.
        model_s: seconds spent in these calls, without the waits between tries.
        notices: what the predictions have that is worth a word.
    """

    predictions: pa.RecordBatch
    scored: pa.Int32Array | None
    bad: list[BadRow]
    calls: int
    model_s: float
    notices: tuple[Notice, ...] = ()


class Pool(Protocol):
    """Holds one loaded model, or several of the same. Any thread may submit."""

    @property
    def workers(self) -> int:
        """How many batches are scored at once; a few more in flight keep it busy."""

    def submit(self, rows: pa.RecordBatch, name: SpanName | None = None) -> Future[Answers]:
        """Score one batch some time; never blocks. Bounding what is in flight is the caller's part.

        `name` is what the rows are called should the process die while the model is called for them.

        The future raises what ends the job: a failure that stayed after all tries, or a broken contract.
        """

    def close(self) -> None:
        """Give up what waits and free the model. No submit after it."""
