"""How long a job will take and how much memory, reckoned from a timed sample. Pure: no file, no clock, no model.

Reading, scoring and writing overlap, so the slowest of them sets the pace; all of them share the cores.
"""

import math
from dataclasses import dataclass
from typing import Literal

from transforms.sources.base import shortened
from transforms.sources.input import Copying

MIB = 2**20

# A job's process that scores next to nothing, with Beam and all libraries: 284 to 289 MiB were seen.
_BASE_BYTES = 290 * MIB
# Spans that lie ready, the one in the reader's hand, and the one that is being handed over; see `transforms.read`.
_SPANS_READ_AHEAD = 5
# Spans waiting for their scores: two for each worker and one, up to so many bytes; see `transforms.score`.
_SPANS_PER_WORKER = 2
_IN_FLIGHT_BYTES = 256 * MIB
# A part as it is closed; see `transforms.stage`. Encoding it takes little more, a column at a time.
_PART_ROWS = 1_048_576
_PART_BYTES = 64 * MIB

# What a run costs besides its rows (low, likely, high): in a new process, which imports Beam (3 s when the machine is
# idle, 14 s were seen when it was not), and in one that is forked from a warm one (0.4 to 0.7 s).
_COLD_S = (2.0, 4.5, 12.0)
_WARM_S = (0.3, 0.7, 4.0)
# A sample is warm and alone, and the cores of a run are shared with what else the machine does. Eight kinds of jobs on
# two busy cores took, without their start, 0.6 to 2.3 times of what was likely; with it, all lay in the range.
_SPREAD = (0.6, 2.2)
# Seconds a value that databases were seen to take for what is written into them, one by one for SQLite at the end.
_TABLE_VALUE_S = {"postgres": 0.5e-6, "sqlite": 1.0e-6}
# A database elsewhere, or with indexes, is slower by as much.
_TABLE_SPREAD = (0.5, 4.0)


@dataclass(frozen=True)
class Sample:
    """What was measured. Seconds are for one row.

    Args:
        rows: rows that were timed.
        read_s, write_s: of one thread.
        score_s: from start to end with `threads` threads at once.
        alone_s: of one thread, while nothing else ran.
        score_cpu_s: of all cores together.
        threads: that scored side by side.
        library_s, load_s: to import the model's library, and to load the model once; not for a row.
        row_bytes, answer_bytes, scored_bytes: sizes in memory of a row as it is read, of what the model says to it, and
            of the two as they are staged.
        library_bytes, model_bytes: by which the process grew then.
        call_bytes: by which it grew during the calls of the sample.
    """

    rows: int = 0
    read_s: float = 0.0
    write_s: float = 0.0
    score_s: float = 0.0
    alone_s: float = 0.0
    score_cpu_s: float = 0.0
    threads: int = 1
    library_s: float = 0.0
    load_s: float = 0.0
    row_bytes: float = 0.0
    answer_bytes: float = 0.0
    scored_bytes: float = 0.0
    library_bytes: int = 0
    model_bytes: int = 0
    call_bytes: int = 0


@dataclass(frozen=True)
class Work:
    """What the job has to do, and with what.

    Args:
        rows: of the input.
        batch_rows: of a model call.
        span_rows: of a span, as far as memory allows; it may be cut shorter.
        workers: threads that score.
        cores: that they share.
        writers: threads that write parts.
        loads: how often the model is loaded: once more for each thread unless it is thread-safe.
        mapped_bytes: of the largest file that is mapped into memory to be read.
        columns: of the output.
        table: the database that the result is written to; None for files.
        copying: how the input is copied beforehand, where it is.
        is_warm: the job starts from a process that has imported Beam.
    """

    rows: int
    batch_rows: int
    span_rows: int
    workers: int
    cores: int
    writers: int
    loads: int
    mapped_bytes: int = 0
    columns: int = 1
    table: Literal["postgres", "sqlite"] | None = None
    copying: Copying | None = None
    is_warm: bool = False


@dataclass(frozen=True)
class Forecast:
    """What is to be expected.

    Args:
        low_s, likely_s, high_s: seconds from start to end; ascending.
        memory_bytes: the most that the job's process will have in memory at once.
        assumptions: what this rests on, a sentence each.
    """

    low_s: float
    likely_s: float
    high_s: float
    memory_bytes: int
    assumptions: list[str]


def forecast(sample: Sample, work: Work) -> Forecast:
    """Reckon with a sample what all rows take."""
    low_s, likely_s, high_s = _seconds(sample, work)
    return Forecast(low_s, likely_s, high_s, _memory(sample, work), list(_assumptions(sample, work)))


def scored_s(sample: Sample, work: Work) -> float:
    """Seconds that scoring all rows takes, if nothing else holds it up.

    A span is scored by one thread, so that a few spans do not keep many threads busy.
    """
    if not sample.rows:
        return 0.0
    row_s = sample.score_s * min(sample.threads, work.workers) / work.workers
    # The model may use more cores than there are threads, but not more than there are.
    row_s = max(row_s, sample.score_cpu_s / work.cores)
    span_rows = shortened(work.span_rows, work.batch_rows, work.rows, work.workers, row_s * work.workers)
    rounds = math.ceil(work.rows / (span_rows * work.workers))
    by_rounds = rounds * min(span_rows, work.rows) * row_s * work.workers
    return max(min(by_rounds, work.rows * sample.alone_s), work.rows * row_s)


def _seconds(sample: Sample, work: Work) -> tuple[float, float, float]:
    start = _WARM_S if work.is_warm else _COLD_S
    # Threads load one after the other, the others score meanwhile; the last of them may be hardly needed.
    load_s = sample.library_s + sample.load_s * work.loads
    busy_s = sample.read_s + sample.score_cpu_s + sample.write_s
    run_s = max(
        scored_s(sample, work),
        work.rows * sample.read_s,
        work.rows * sample.write_s / work.writers,
        work.rows * busy_s / work.cores,
    )
    if work.copying is not None:
        run_s += work.copying.prepare_s + work.rows * work.copying.row_s
    likely_s = load_s + run_s
    # That more threads help is seen only where they were tried.
    worst_s = run_s if sample.threads >= work.workers else max(run_s, work.rows * sample.alone_s)
    low, high = (sample.library_s + sample.load_s + run_s * _SPREAD[0], load_s * 2 + worst_s * _SPREAD[1])
    table_s = _table_s(work)
    return (
        start[0] + low + table_s * _TABLE_SPREAD[0],
        start[1] + likely_s + table_s,
        start[2] + high + table_s * _TABLE_SPREAD[1],
    )


def _table_s(work: Work) -> float:
    return 0.0 if work.table is None else work.rows * work.columns * _TABLE_VALUE_S[work.table]


def _memory(sample: Sample, work: Work) -> int:
    """The base, the models, what calls need, the file that is mapped, and all rows that are on their way at once.

    Seen (estimated) MiB with two cores: 5,242,880 rows of 20 bytes 389 (417), 1,500,000 rows of 265 bytes 883 (1,003),
    a query of 3,000,000 rows from SQLite into a table of it 346 (412), the same with PostgreSQL 336 (371), a model of
    512 MiB held five times 2,847 (2,863).
    """
    # Those of a slow model are shorter still.
    span_rows = shortened(work.span_rows, work.batch_rows, work.rows, work.workers)
    span = span_rows * sample.row_bytes
    answers = span_rows * sample.answer_bytes
    waiting = min((_SPANS_PER_WORKER * work.workers + 1) * (span + answers), _IN_FLIGHT_BYTES + span + answers)
    moving = min(waiting + _SPANS_READ_AHEAD * span, work.rows * (sample.row_bytes + sample.answer_bytes))
    # One is open while each writer has another.
    parts = (work.writers + 1) * min(_PART_BYTES, _PART_ROWS * sample.scored_bytes)
    moving += min(parts, work.rows * sample.scored_bytes)
    # What calls have needed is kept by their libraries, for each thread.
    calls = sample.call_bytes * work.workers / max(sample.threads, 1)
    models = sample.library_bytes + sample.model_bytes * work.loads
    return int(_BASE_BYTES + models + calls + moving + work.mapped_bytes)


def _assumptions(sample: Sample, work: Work) -> list[str]:
    cores = f"{work.cores} {'core' if work.cores == 1 else 'cores'}"
    told = []
    if sample.rows:
        rate = _rate(1 / sample.score_s) if sample.score_s else "too many to be timed"
        told.append(
            f"{sample.rows:,} rows were timed; the model scores {rate} rows/s with {_threads(sample.threads)} at once"
        )
        told.append("all rows are taken to be like them")
    else:
        told.append("there was no row to be timed")
    told.append(f"the job scores with {_threads(work.workers)} on {cores}, and nothing else runs on them")
    if sample.threads < work.workers and sample.rows:
        told.append(
            f"the sample did not try whether {_threads(work.workers)} are faster than {sample.threads}; "
            "they are taken to be"
        )
    if work.loads > 1:
        told.append(f"the model is loaded {work.loads} times, as it does not say that it is thread-safe")
    if work.copying is not None and work.copying.rows:
        told.append(
            f"the database gave {work.copying.rows:,} rows at {_rate(1 / max(work.copying.row_s, 1e-9))} rows/s, "
            f"{work.copying.prepare_s:.1f} s after it was asked; the others are taken to come as fast"
        )
    if work.table is not None:
        rate = _rate(1 / (_TABLE_VALUE_S[work.table] * work.columns))
        told.append(f"the destination's speed was not measured: it is taken to write {rate} rows/s")
    told.append(
        "the process starts warm, from one that has its libraries" if work.is_warm else "a new process imports Beam"
    )
    return told


def _threads(count: int) -> str:
    return f"{count} {'thread' if count == 1 else 'threads'}"


def _rate(rows_per_s: float) -> str:
    """A rate to two digits: no sample says more."""
    if rows_per_s < 1:
        return f"{rows_per_s:.2g}"
    digits = max(int(math.log10(rows_per_s)) - 1, 0)
    return f"{round(rows_per_s, -digits):,.0f}"
