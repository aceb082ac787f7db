"""A model and an input, fitted together: which columns are read, what the model says of them, what the output has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.spec import JobSpec
from predictors.base import Bindable, Predictor
from predictors.errors import ModelNotLoadable, PredictorError, SchemaMismatch, WrongAnswer
from predictors.feeding import check_features, feed
from predictors.pool.inline import check_answer
from predictors.python import PythonPredictor
from predictors.recovery import text_of
from transforms.marks import marked
from transforms.sources.base import Source

# Rows that show what a model answers.
_SAMPLE_ROWS = 5


@dataclass(frozen=True)
class Bound:
    """A model and an input that fit together.

    Args:
        predictor: loaded, and bound to the input's columns.
        source: the input.
        columns: those to be read.
        passthrough: those that the output keeps.
        output_schema: of the rows to be staged.
    """

    predictor: Predictor
    source: Source
    columns: tuple[str, ...]
    passthrough: tuple[str, ...]
    output_schema: pa.Schema


def bind(
    spec: JobSpec,
    predictor: Predictor,
    source: Source,
    predictions: pa.Schema | None = None,
    likely: pa.Schema | None = None,
) -> Bound:
    """Fit a loaded model and an input together: which columns are read, which the output has.

    Args:
        predictions: the prediction columns, where an earlier attempt has learned them.
        likely: those of a class that does not declare any and cannot be asked, for it fails on the first rows.

    Raises:
        SchemaMismatch: a column is missing, of a type the model cannot take, or named twice in the output.
    """
    columns = source.schema
    if isinstance(predictor, Bindable):
        predictor.bind(columns)
    check_features(columns, predictor.input_schema)
    passthrough = spec.output.columns if spec.output.columns is not None else tuple(columns.names)
    for name in passthrough:
        if name not in columns.names:
            raise SchemaMismatch(
                f"output.columns names {name!r}, which the input does not have; it has {', '.join(columns.names)}"
            )
    needed = {*predictor.input_schema.names, *passthrough}
    read = tuple(name for name in columns.names if name in needed)
    if isinstance(predictor, PythonPredictor) and predictor.output_schema is None:
        predictor.learn(_answer_to_first_rows(predictor, source, spec, likely) if predictions is None else predictions)
    predicted = predictor.output_schema
    for name in predicted.names:
        if name in passthrough:
            raise SchemaMismatch(
                f"column {name!r} comes from the input and from the model; leave it out of output.columns, "
                f"or rename it in the query"
            )
    schema = pa.schema([*(marked(columns.field(name)) for name in passthrough), *predicted])
    return Bound(predictor, source, read, passthrough, schema)


def _answer_to_first_rows(
    predictor: Predictor, source: Source, spec: JobSpec, otherwise: pa.Schema | None
) -> pa.Schema:
    """Ask a class that does not declare its prediction columns."""
    for rows in _first_rows(source, predictor.input_schema.names, _SAMPLE_ROWS, spec.config.batch_size):
        fed = feed(rows, predictor.input_schema, spec.model.nulls)
        if not fed.rows.num_rows:
            continue
        try:
            answer = predictor.predict(fed.rows)
        except Exception as error:
            if otherwise is not None and not isinstance(error, WrongAnswer):
                return otherwise
            if isinstance(error, PredictorError):
                raise
            raise ModelNotLoadable(
                f"model {spec.model.uri} declares no output_schema, and failed on the first rows: "
                f"{type(error).__name__}: {text_of(error)}; declare one, or mend the rows"
            ) from error
        check_answer(answer, fed.rows.num_rows, answer.schema)
        return answer.schema
    if otherwise is not None:
        return otherwise
    raise ModelNotLoadable(
        f"model {spec.model.uri} declares no output_schema, and there is no row to ask it with; declare one"
    )


def _first_rows(source: Source, columns: Sequence[str], rows: int, batch_size: int) -> Iterator[pa.RecordBatch]:
    """The first rows of the input, in batches of `rows`; the caller takes as many as it needs."""
    for split in source.plan(columns, batch_size):
        for batch in source.read(split, columns):
            for start in range(0, batch.rows.num_rows, rows):
                yield batch.rows.slice(start, rows)
