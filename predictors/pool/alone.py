"""Suspect spans: scored alone, in a child process, until the row is found that kills it."""

import itertools
from collections.abc import Callable, Sequence

import pyarrow as pa

from predictors.crashes import MOST_HOPELESS, MOST_KILLED, CrashRecord, Killed, SpanName
from predictors.errors import ModelCrashed
from predictors.feeding import others
from predictors.notices import merged
from predictors.pool.base import Answers
from predictors.pool.child import Child, ChildDied, ChildSetup
from predictors.recovery import BadRow
from predictors.taking import no_rows

# A child says how far it is after each such part of what it is to score: 65,536 rows, 2,048, 64, 2, 1.
_PIECES = 32

Ranges = list[tuple[int, int]]


class Alone:
    """Scores spans of which a row may kill the process that scores it.

    Args:
        setup: of the child.
        record: what is known of crashes; it is told of each row that is found.
        progress, called: as of a pool.
    """

    def __init__(
        self,
        setup: ChildSetup,
        record: CrashRecord,
        progress: Callable[[int, int], object] = lambda scored, rejected: None,
        called: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        self._setup = setup
        self._record = record
        self._progress = progress
        self._called = called
        self._child: Child | None = None
        self._schema: pa.Schema | None = None

    def score(self, name: SpanName, rows: pa.RecordBatch, where: str) -> Answers:
        """Score the rows of a span. Those that kill are rejected, the others are answered as always.

        Args:
            where: the span, for people.

        Raises:
            ModelCrashed: too many rows kill.
            Exception: as of a pool's future.
        """
        killed = self._record.findings().killed_in(name)
        if killed:
            self._progress(0, len(killed))
        todo = [piece for start, stop in _between(killed, rows.num_rows) for piece in _cut(start, stop)]
        answered: list[tuple[int, Answers]] = []
        while todo:
            how = self._go_on(rows, todo, answered)
            if how is None:
                break
            start, stop = todo.pop(0)
            if stop - start > 1:
                todo[:0] = _cut(start, stop)
                continue
            killed[start] = how
            self._progress(0, 1)
            if len(self._record.add_killed(Killed(name, start, how)).killed) > MOST_KILLED:
                raise self._given_up(f"crashed ({how}) on more than {MOST_KILLED} rows, the last of them in {where}")
        if killed and len(killed) == rows.num_rows:
            how = killed[max(killed)]
            if len(self._record.add_hopeless(name).hopeless) >= MOST_HOPELESS:
                raise self._given_up(f"crashed ({how}) on every row of {MOST_HOPELESS} spans, the last of them {where}")
        return _together(answered, killed, rows.num_rows, self._output_schema())

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _go_on(self, rows: pa.RecordBatch, todo: Ranges, answered: list[tuple[int, Answers]]) -> str | None:
        """Have `todo` done, in order. Returns how the child died over the first that is left, None if none is."""
        child = self._started()
        try:
            for said in child.score(rows, list(todo)):
                start, _ = todo.pop(0)
                answered.append((start, said.answers))
                for seconds in said.calls_s:
                    self._called(seconds)
                self._progress(said.answers.predictions.num_rows, len(said.answers.bad))
        except ChildDied as died:
            self._child = None
            return str(died)
        return None

    def _started(self) -> Child:
        if self._child is None:
            self._child = Child(self._setup)
            self._schema = self._child.output_schema
        return self._child

    def _output_schema(self) -> pa.Schema:
        return self._started().output_schema if self._schema is None else self._schema

    def _given_up(self, what: str) -> ModelCrashed:
        # Whoever resumes the job has mended something; the search begins anew.
        self._record.start_over()
        self.close()
        return ModelCrashed(f"the model {what}; mend it, or leave such rows out")


def _cut(start: int, stop: int) -> Ranges:
    """A range in `_PIECES` of the same length, the last one shorter."""
    length = max(-(-(stop - start) // _PIECES), 1)
    return [(at, min(at + length, stop)) for at in range(start, stop, length)]


def _between(killed: dict[int, str], rows: int) -> Ranges:
    """The ranges before, between and behind the rows that are known to kill."""
    edges = [-1, *sorted(killed), rows]
    return [(before + 1, row) for before, row in itertools.pairwise(edges) if row > before + 1]


def _together(answered: Sequence[tuple[int, Answers]], killed: dict[int, str], rows: int, schema: pa.Schema) -> Answers:
    """The answers to all ranges as the answers to one span."""
    answered = sorted(answered, key=lambda each: each[0])
    bad = [BadRow(row, "CrashedModel", f"crashed the model ({how})") for row, how in killed.items()]
    for start, answers in answered:
        bad += [BadRow(start + each.row, each.error_type, each.error) for each in answers.bad]
    bad.sort(key=lambda each: each.row)
    batches = [answers.predictions for _, answers in answered]
    empty = no_rows(schema)
    return Answers(
        predictions=pa.concat_batches(batches) if batches else empty,
        scored=others([each.row for each in bad], rows) if bad else None,
        bad=bad,
        calls=sum(answers.calls for _, answers in answered),
        model_s=sum(answers.model_s for _, answers in answered),
        notices=merged(notice for _, answers in answered for notice in answers.notices),
    )
