"""How long a model takes for a row, asked of the first rows of a large input: by that its spans are cut."""

import time
from collections.abc import Callable

from launcher.worker.bound import Bound
from predictors.base import Nulls
from predictors.feeding import feed
from predictors.pool.inline import laid_out
from transforms.batches import Split

# Calls grow until they took this long together; so much of a large job is nothing.
_ENOUGH_S = 0.5
_GROWTH = 8


def seconds_a_row(
    bound: Bound, split: Split, batch_size: int, nulls: Nulls, clock: Callable[[], float] = time.perf_counter
) -> float | None:
    """Seconds that one thread takes for a row, in calls of up to `batch_size` rows; rather more than less.

    The model scores a few of the first rows of `split`, and its answers are dropped; of a slow one these are two.

    Returns:
        None where it cannot be told: there are no rows that can be scored, or the model fails at the first ones, which
        the run will see to.
    """
    pace: float | None = None
    batch = next(bound.source.read(split, bound.columns), None)
    if batch is None:
        return None
    try:
        rows = feed(batch.rows, bound.predictor.input_schema, nulls).rows
        if not rows.num_rows:
            return None
        model = laid_out(bound.predictor, rows)
        # The first call of many models is slow, and tells nothing of the others.
        model.score(0, 1)
        count, spent = 1, 0.0
        while True:
            began = clock()
            model.score(0, count)
            took = clock() - began
            spent += took
            pace = took / count
            if count == min(batch_size, rows.num_rows) or spent >= _ENOUGH_S:
                return pace
            count = min(count * _GROWTH, batch_size, rows.num_rows)
    except Exception:
        return pace
