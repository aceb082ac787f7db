"""How long a model takes for a row, asked of the first rows of an input: by that its spans are cut."""

import time
from collections.abc import Callable

from pipelines.binding import Binding
from predictors.base import Nulls, PreparedSpan
from predictors.feeding import feed
from predictors.pool.inline import laid_out
from transforms.batches import Split

# Calls grow until they took this long together, or the next one would: a job is not to begin much later for it.
_ENOUGH_S = 0.1
# Until what was spent is this, the time of calls that were slow for once included.
_LONGEST_S = 1.0
_GROWTH = 8
# Single rows that are tried until one can be scored.
_FIRST_ROWS = 5


def seconds_per_row(
    bound: Binding,
    split: Split,
    batch_size: int,
    nulls: Nulls,
    threads: int,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] = time.process_time,
) -> float | None:
    """Seconds that each of `threads` threads takes for a row in calls of up to `batch_size`; rather more than less.

    The model scores some of the first rows of `split` and its answers are dropped. Each number of rows is tried twice,
    for the first call of its kind may be slow; where one row takes long, it is asked of no more than that one. A model
    that computes is held to share one core between the threads, as one does that keeps the interpreter to itself.

    Returns:
        None where it cannot be told: the first rows cannot be scored. The run will see to that.
    """
    batch = next(bound.source.read(split, bound.columns), None)
    if batch is None:
        return None
    timed = _Timed(clock, cpu_clock)
    try:
        rows = feed(batch.rows, bound.predictor.input_schema, nulls).rows
        model = laid_out(bound.predictor, rows)
    except Exception:
        return None
    if not rows.num_rows:
        return None
    start = 0
    while not timed.call(model, start, 1):
        start += 1
        if start == min(_FIRST_ROWS, rows.num_rows) or timed.spent >= _LONGEST_S:
            return None
    most = min(batch_size, rows.num_rows - start)
    passes = timed.call(model, start, 1)
    while passes and timed.largest < most and timed.goes_on:
        count = min(timed.largest * _GROWTH, most, int(_ENOUGH_S / timed.row_s))
        if count <= timed.largest:
            break
        passes = timed.call(model, start, count) and timed.call(model, start, count)
    return timed.row_s * (threads if timed.computes else 1)


class _Timed:
    """Calls of a model, timed."""

    def __init__(self, clock: Callable[[], float], cpu_clock: Callable[[], float]) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._best: dict[int, tuple[float, float]] = {}
        self.spent = 0.0

    def call(self, model: PreparedSpan, start: int, count: int) -> bool:
        """Whether the model scored so many rows from `start` on."""
        began, cpu_began = self._clock(), self._cpu_clock()
        try:
            model.score(start, start + count)
        except Exception:
            return False
        finally:
            took = self._clock() - began
            self.spent += took
        timing = (took, self._cpu_clock() - cpu_began)
        self._best[count] = min(timing, self._best.get(count, timing))
        return True

    @property
    def largest(self) -> int:
        """Rows of the largest call."""
        return max(self._best)

    @property
    def row_s(self) -> float:
        """The fewest seconds for a row."""
        return min(max(took, 1e-9) / count for count, (took, _) in self._best.items())

    @property
    def computes(self) -> bool:
        """Whether the largest call kept a core busy, rather than waiting for something."""
        took, cpu = self._best[self.largest]
        return cpu >= took / 2

    @property
    def goes_on(self) -> bool:
        """Whether larger calls may say more."""
        return sum(took for took, _ in self._best.values()) < _ENOUGH_S and self.spent < _LONGEST_S
