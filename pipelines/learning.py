"""What a class answers that does not declare it: shown by its answers to the first rows of the input."""

import time
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from pipelines.spec import Config
from predictors.answers import Unfit, brief, lay_out, shows_no_type
from predictors.base import Nulls, Undeclared
from predictors.errors import ModelNotLoadable, PredictorError, WrongAnswer
from predictors.feeding import feed
from predictors.pool.inline import check_answer
from predictors.pressure import PRESSURE
from predictors.recovery import CallSize, Recovery, RetryPolicy
from transforms.sources.base import Source

# Rows of the first call; each further one has so many times more, as long as it is likely to end in time.
_FIRST_ROWS = 8
_GROWTH = 8
_LONGEST_S = 2.0


def answer_to_first_rows(
    predictor: Undeclared,
    source: Source,
    config: Config,
    nulls: Nulls,
    likely: pa.Schema | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> pa.Schema:
    """The prediction columns, as the answers to the first rows show them: up to a batch, fewer of a slow model.

    Their types are the narrowest that hold all these answers, as doubles do where some are integers.

    Args:
        likely: the columns to be where the answers do not show them, and where they can be had without loss.

    Raises:
        ModelNotLoadable: the answers show no type, or there are none; `output_schema` is to be declared.
        WrongAnswer: they are no answers.
    """
    columns = predictor.input_schema or source.schema
    for rows in _first_rows(source, columns.names, config.batch_size):
        fed = feed(rows, columns, nulls).rows
        if not fed.num_rows:
            continue
        try:
            answers = _asked(predictor, fed, config, clock)
        except WrongAnswer:
            raise
        except PredictorError:
            if likely is None:
                raise
            return likely
        return _columns_of(predictor.uri, answers, likely)
    if likely is not None:
        return likely
    raise ModelNotLoadable(
        f"model {predictor.uri} declares no output_schema, and there is no row to ask it with; declare one"
    )


def _first_rows(source: Source, columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    """The first rows of the input, in batches; the caller takes as many as it needs."""
    for split in source.plan(columns, batch_size):
        for batch in source.read(split, columns):
            for start in range(0, batch.rows.num_rows, batch_size):
                yield batch.rows.slice(start, batch_size)


def _asked(
    predictor: Undeclared, rows: pa.RecordBatch, config: Config, clock: Callable[[], float]
) -> list[pa.RecordBatch]:
    """Answers to `rows`, in calls that grow, until a call would take too long. Rows that cannot be scored are left out.

    Raises:
        ModelNotLoadable: none can.
    """
    recovery = Recovery(RetryPolicy(config.retry_count), CallSize(config.batch_size, PRESSURE), time.sleep)
    answers: list[pa.RecordBatch] = []
    reason = ""
    began, start, count, row_s = clock(), 0, _FIRST_ROWS, 0.0
    while start < rows.num_rows and (start == 0 or clock() - began + count * row_s < _LONGEST_S):
        piece = rows.slice(start, count)

        def call(first: int, stop: int, piece: pa.RecordBatch = piece) -> pa.RecordBatch:
            asked = piece.slice(first, stop - first)
            answer = predictor.predict(asked)
            check_answer(answer, asked.num_rows, answer.schema)
            return answer

        called = clock()
        try:
            scores = recovery.score_rows(call, piece.num_rows, piece.num_rows)
        except PredictorError:
            raise
        except Exception as error:
            raise _failed(predictor.uri, f"{type(error).__name__}: {error}") from error
        row_s = (clock() - called) / piece.num_rows
        answers += [answer for _, _, answer in scores.answers]
        if scores.bad:
            reason = f"{scores.bad[0].error_type}: {scores.bad[0].error}"
        start, count = start + piece.num_rows, count * _GROWTH
    if not answers:
        raise _failed(predictor.uri, reason)
    return answers


def _failed(uri: str, reason: str) -> ModelNotLoadable:
    return ModelNotLoadable(
        f"model {uri} declares no output_schema, and failed on the first rows: {' '.join(reason.split())}; "
        "correct the class, or declare one if these rows alone are at fault"
    )


def _columns_of(uri: str, answers: Sequence[pa.RecordBatch], likely: pa.Schema | None) -> pa.Schema:
    """One schema for all `answers`."""
    schema = _unified(uri, answers, likely)
    empty = [field.name for field in schema if shows_no_type(field.type)]
    if empty:
        rows = sum(answer.num_rows for answer in answers)
        fields = ", ".join(f"({field.name!r}, ...)" for field in schema)
        raise ModelNotLoadable(
            f"model {uri} declares no output_schema, and its answers to the first {rows:,} rows show no type for "
            f"column {', '.join(empty)}, where all are null; declare one: output_schema = pa.schema([{fields}])"
        )
    return schema


def _unified(uri: str, answers: Sequence[pa.RecordBatch], likely: pa.Schema | None) -> pa.Schema:
    """The narrowest schema that holds all `answers`; `likely` where that one does."""
    first = answers[0].schema
    shown = {name: answers[0].schema.field(name) for name in first.names}
    if likely is not None and _hold(answers, likely):
        return likely
    for answer in answers[1:]:
        if set(answer.schema.names) != set(shown):
            raise WrongAnswer(
                f"model {uri} answered with columns ({brief(first)}) and then with ({brief(answer.schema)}); "
                "return the same columns for all rows, or declare an output_schema"
            )
    try:
        schema = pa.unify_schemas([answer.schema for answer in answers], promote_options="permissive")
    except pa.ArrowException as error:
        raise _disagree(uri, answers) from error
    if not _hold(answers, schema):
        raise _disagree(uri, answers)
    return schema


def _hold(answers: Sequence[pa.RecordBatch], schema: pa.Schema) -> bool:
    """Whether all values fit into `schema` as they are."""
    try:
        for answer in answers:
            lay_out(list(zip(answer.schema.names, answer.columns, strict=True)), schema)
    except Unfit:
        return False
    return True


def _disagree(uri: str, answers: Sequence[pa.RecordBatch]) -> ModelNotLoadable:
    kinds = " and ".join(dict.fromkeys(f"({brief(answer.schema)})" for answer in answers))
    return ModelNotLoadable(
        f"model {uri} declares no output_schema, and its answers to the first rows have no common type: {kinds}; "
        "declare one, and return what it says"
    )
