"""A model tried on a few rows of a job's input, to tell how long the job will take. Without Beam; in a process of its
own, for both are a tenant's.
"""

import math
import os
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from pipelines.spec import JobSpec
from predictors.base import Bindable, Nulls, Predictor, Undeclared
from predictors.bounds import Bounds
from predictors.errors import ModelNotLoadable
from predictors.feeding import feed
from predictors.pool.inline import laid_out, threads_of
from predictors.registry import make_predictor

# Rows that are read, at most, and their bytes, more or less.
_ROWS, _BYTES = 8192, 32 * 2**20
# The model is tried for so long, more or less: a call is made only where it is likely to fit.
_LONGEST_S = 1.5
# Calls of more rows than before, by as much at most.
_GROWTH = 64
# Threads are tried, at most so many, with calls that take no longer.
_MOST_TRIED, _SHORT_CALL_S = 2, 0.2
# Files and columns are found within this, or the model is not tried.
_FIND_S = 1.0
# Seconds that databases take for a value that is written, about; that files take for one, and for a byte.
_TABLE_VALUE_S = 1e-6
_MOVED_VALUE_S, _BYTE_S = 0.02e-6, 4e-9
# Programs for each core, beyond which more of them say nothing of what a job gets.
_BUSIEST = 4.0
# Loading takes so long with most models, and is part of what every job costs.
_USUAL_LOAD_S = 0.1


def probe(
    spec: dict[str, Any], connections: dict[str, str], folders: list[str], closed: list[str]
) -> dict[str, float] | None:
    """Try the model: a `launcher.estimate.duration.Probe` as JSON; None where there is no row.

    Args:
        spec: as `JobSpec.to_json` writes it, connections by name.
        connections: URIs by name. Secrets.
        folders, closed: of the `Bounds` that its files have to lie in.

    Raises:
        Exception: whatever a model or an input raises; the job will see.
    """
    asked = JobSpec.from_json(spec).with_uris(connections)
    within = Bounds(tuple(folders), tuple(closed))
    began = time.perf_counter()
    predictor = make_predictor(asked.model, within)
    predictor.load()
    load_s = time.perf_counter() - began
    first = asked.input.first_rows(within, _ROWS, _BYTES, _FIND_S)
    if first is None:
        return None
    nulls = _fitted(predictor, asked, first)
    fed = feed(first, predictor.input_schema, nulls).rows
    if not fed.num_rows:
        raise ModelNotLoadable("none of the first rows can be scored")
    if isinstance(predictor, Undeclared) and predictor.output_schema is None:
        predictor.learn(predictor.predict(fed.slice(0, min(fed.num_rows, 5))).schema)
    timing = _Timing()
    timing.grow(predictor, fed, asked.config.batch_size)
    loads = 1 if predictor.thread_safe else 2
    return {
        "load_s": max(load_s * loads - _USUAL_LOAD_S, 0.0),
        "call_s": timing.call_s,
        "row_s": timing.row_s,
        "moving_s": _moving_s(asked, first, predictor),
        "threads": _threads(predictor, fed, timing, asked.config.parallelism, load_s),
    }


class _Timing:
    """Calls of a model, timed.

    Args:
        clock, cpu_clock: seconds that pass, and that this process computes.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        # By rows, the fewest seconds that a call took.
        self._best: dict[int, float] = {}
        self._cpu_s = self._spent_s = 0.0

    def grow(self, predictor: Predictor, rows: pa.RecordBatch, batch_size: int) -> None:
        """Call with one row, and then with as many as seem to fit into the time, up to a whole batch."""
        most = min(batch_size, rows.num_rows)
        self._call(predictor, rows, 1)
        if self._spent_s < _LONGEST_S / 4:
            # What is done once is done by now.
            self._call(predictor, rows, 1)
        while self.largest < most and self._spent_s < _LONGEST_S:
            count = self._next(most)
            if count <= self.largest:
                break
            self._call(predictor, rows, count)
        if self.largest > 1 and self._best[self.largest] < _SHORT_CALL_S:
            self._call(predictor, rows, self.largest)

    def _next(self, most: int) -> int:
        """Rows of the next call: as many as fit if it goes on as so far, and two at least, to learn how that is."""
        left_s = max((_LONGEST_S - self._spent_s) / 2, 1.3 * self.largest_s)
        # A tenth of what is seen is the machine's doing.
        row_s = self.row_s + 0.1 * self.largest_s / self.largest
        fitting = int((left_s - self.call_s) / max(row_s, 1e-9))
        return min(max(fitting, 2 if self.largest == 1 else 0), self.largest * _GROWTH, most)

    def _call(self, predictor: Predictor, rows: pa.RecordBatch, count: int) -> None:
        span = laid_out(predictor, rows.slice(0, count))
        began, cpu_began = self._clock(), self._cpu_clock()
        span.score(0, count)
        took = self._clock() - began
        self._cpu_s += self._cpu_clock() - cpu_began
        self._spent_s += took
        self._best[count] = min(took, self._best.get(count, took))

    @property
    def largest(self) -> int:
        """Rows of the largest call."""
        return max(self._best)

    @property
    def largest_s(self) -> float:
        """Seconds of the largest call."""
        return self._best[self.largest]

    @property
    def row_s(self) -> float:
        """What each further row of a call costs: by the largest call and the smallest."""
        least = min(self._best)
        if least == self.largest:
            return self._best[least]
        more_s = self._best[self.largest] - self._best[least]
        if self.largest == 2 and more_s < 0.1 * self._best[least]:
            # A tenth of what is seen is the machine's doing.
            return 0.0
        return max(more_s, 0.0) / (self.largest - least)

    @property
    def call_s(self) -> float:
        """What a call costs besides its rows."""
        return max(self._best[self.largest] - self.largest * self.row_s, 0.0)

    @property
    def computes(self) -> bool:
        """Whether calls keep a core busy, rather than waiting for something."""
        return self._cpu_s >= self._spent_s / 2


def _threads(predictor: Predictor, rows: pa.RecordBatch, timing: _Timing, parallelism: int, load_s: float) -> float:
    """How many times as much all threads score as one does."""
    workers = threads_of(predictor, parallelism)
    if not timing.computes:
        return float(workers)
    most = min(workers, _cores(), _MOST_TRIED)
    copies = 0 if predictor.thread_safe else most - 1
    if most == 1 or copies * load_s > _LONGEST_S / 2:
        # Code of Python shares one core, and what libraries compute does not: between the two.
        return float(min(workers, _cores())) ** 0.5
    count = max(1, min(timing.largest, int(_SHORT_CALL_S / max(timing.row_s, 1e-9))))
    spans = [laid_out(each, rows.slice(0, count)) for each in (predictor, *_others(predictor, most - 1))]
    for span in spans:
        span.score(0, 1)
    with ThreadPoolExecutor(most) as threads:
        began = time.perf_counter()
        for done in [threads.submit(span.score, 0, count) for span in spans]:
            done.result()
        took = time.perf_counter() - began
    times = min(max(most * (timing.call_s + count * timing.row_s) / max(took, 1e-9), 1.0), float(most))
    # What two threads gain all would.
    return float(times ** (math.log(max(min(workers, _cores()), 2)) / math.log(most)))


def _others(predictor: Predictor, count: int) -> Iterator[Predictor]:
    """Further predictors, as threads have them."""
    if predictor.thread_safe:
        yield from [predictor] * count
        return
    blank = pickle.dumps(predictor)
    for _ in range(count):
        other: Predictor = pickle.loads(blank)
        other.load()
        yield other


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _fitted(predictor: Predictor, spec: JobSpec, rows: pa.RecordBatch) -> Nulls:
    """Fit the model to the columns; what becomes of nulls."""
    undeclared = isinstance(predictor, Undeclared) and predictor.chosen is None
    if isinstance(predictor, Bindable):
        predictor.bind(rows.schema)
    return "pass" if undeclared and spec.model.nulls == "reject" else spec.model.nulls


def _moving_s(spec: JobSpec, rows: pa.RecordBatch, predictor: Predictor) -> float:
    """What reading and writing a row takes. Too few rows are at hand to time it: by their columns and their size."""
    columns, row_bytes = rows.num_columns, rows.nbytes / rows.num_rows
    read_s = columns * spec.input.value_s + row_bytes * _BYTE_S
    written = columns if spec.output.columns is None else len(spec.output.columns)
    written += len(predictor.output_schema.names)
    if spec.output.table() is not None:
        return max(read_s, written * _TABLE_VALUE_S)
    # The model was timed beside whatever else uses the cores now; this is how fast it is where nothing does.
    busy = min(max(os.getloadavg()[0] / _cores(), 1.0), _BUSIEST) ** 0.5
    return max(read_s, written * _MOVED_VALUE_S + row_bytes * written / columns * _BYTE_S) * busy
