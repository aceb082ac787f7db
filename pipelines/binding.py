"""A model and an input, fitted together: which columns are read, what the model says of them, what the output has."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.learning import answer_to_first_rows
from pipelines.spec import JobSpec
from predictors.base import Bindable, Nulls, Predictor, Undeclared
from predictors.errors import SchemaMismatch
from predictors.feeding import check_features
from transforms.errors import InputError
from transforms.marks import marked
from transforms.rejects import input_columns
from transforms.sources.base import Source

# Columns of a model that a message names one by one.
_MAX_SHOWN = 8


@dataclass(frozen=True)
class Binding:
    """A model and an input that fit together.

    Args:
        predictor: loaded, and bound to the input's columns.
        source: the input.
        columns: those to be read.
        passthrough: those that the output keeps.
        output_schema: of the rows to be staged.
        nulls: what becomes of rows with a null feature.
    """

    predictor: Predictor
    source: Source
    columns: tuple[str, ...]
    passthrough: tuple[str, ...]
    output_schema: pa.Schema
    nulls: Nulls = "reject"


def bind(
    spec: JobSpec,
    predictor: Predictor,
    source: Source,
    predictions: pa.Schema | None = None,
    likely: pa.Schema | None = None,
) -> Binding:
    """Fit a loaded model and an input together: which columns are read, which the output has.

    Args:
        predictions: the prediction columns, where an earlier attempt has learned them.
        likely: those of a class that does not declare any and cannot be asked, for it fails on the first rows.

    Raises:
        SchemaMismatch: a column is missing, of a type the model cannot take, or named twice in the output.
        InputError: a column that is wanted is there, and cannot be read.
    """
    columns = source.schema
    _check_closed(spec, predictor, source)
    if isinstance(predictor, Bindable):
        # A class that declares no features gets all columns; why its rows were rejected before is not among them.
        predictor.bind(columns if spec.output.appends_to is None else input_columns(columns))
    check_features(columns, predictor.input_schema)
    passthrough = spec.output.columns if spec.output.columns is not None else tuple(columns.names)
    for name in passthrough:
        if name not in columns.names:
            raise SchemaMismatch(
                f"output.columns names {name!r}, which the input does not have; it has {', '.join(columns.names)}"
            )
    needed = {*predictor.input_schema.names, *passthrough}
    read = tuple(name for name in columns.names if name in needed)
    nulls = spec.model.nulls
    if isinstance(predictor, Undeclared) and predictor.chosen is None and nulls == "reject":
        # It gets the columns as they are; which of them it reads is its own affair.
        nulls = "pass"
    if isinstance(predictor, Undeclared) and predictor.output_schema is None:
        learnt = predictions
        if learnt is None:
            learnt = answer_to_first_rows(predictor, source, spec.config, nulls, likely)
        predictor.learn(learnt)
    predicted = predictor.output_schema
    _check_disjoint(spec, passthrough, predicted.names)
    schema = pa.schema([*(marked(columns.field(name)) for name in passthrough), *predicted])
    return Binding(predictor, source, read, passthrough, schema, nulls)


def _check_disjoint(spec: JobSpec, passthrough: Sequence[str], predicted: Sequence[str]) -> None:
    """Demand that no column comes from the input and from the model.

    Raises:
        SchemaMismatch: says how to call the model's otherwise, and lose none of its other columns.
    """
    clashing = [name for name in predicted if name in passthrough]
    if not clashing:
        return
    taken = {*passthrough, *predicted}
    others = {name: _free(name, taken) for name in clashing}
    outputs = spec.model.outputs
    given = outputs.values() if isinstance(outputs, Mapping) else ()
    if any(name in ((to,) if isinstance(to, str) else to) for to in given for name in clashing):
        changes = ", ".join(f"{name!r} to {other!r}" for name, other in others.items())
        remedy = f"change {changes} in model.outputs"
    else:
        wanted = predicted if len(predicted) <= _MAX_SHOWN else clashing
        mapping = ", ".join(f"{name}: {others.get(name, name)}" for name in wanted)
        remedy = f"name the model's otherwise by model.outputs, as {{{mapping}{', …' if wanted is clashing else ''}}}"
        new = [name for name in predicted if name not in others]
        if new and len(new) <= _MAX_SHOWN:
            remedy = f"choose the model's that are new by model.outputs: [{', '.join(new)}], or {remedy}"
    listed = ", ".join(map(repr, clashing))
    come = f"columns {listed} come" if len(clashing) > 1 else f"column {listed} comes"
    which = "them" if len(clashing) > 1 else "it"
    without = (
        f"list the columns to keep in output.columns, without {which}"
        if spec.output.columns is None
        else f"take {which} out of output.columns"
    )
    raise SchemaMismatch(f"{come} from the input and from the model; {remedy}, or {without}")


def _free(name: str, taken: Collection[str]) -> str:
    """A name like `name` that is not taken."""
    other = f"{name}_predicted"
    while other in taken:
        other += "_"
    return other


def _check_closed(spec: JobSpec, predictor: Predictor, source: Source) -> None:
    """Demand that no column is wanted that the input has, but cannot be read.

    Raises:
        InputError: says why it cannot, and how to do without it.
    """
    if not source.closed:
        return
    given = spec.model.features
    named = [name for names in given.values() for name in names] if isinstance(given, Mapping) else list(given or ())
    # Of a class that declares neither features nor a schema nothing is known before it is bound.
    known: pa.Schema | None = predictor.input_schema
    named += known.names if known is not None else ()
    if isinstance(predictor, Undeclared):
        named += predictor.chosen or ()
    for name, reason in source.closed.items():
        remedy = ""
        if name in named:
            remedy = "have the model do without it"
        elif spec.output.columns is None:
            remedy = "list the columns to keep in output.columns, without it"
        elif name in spec.output.columns:
            remedy = "take it out of output.columns"
        elif known is None and not named:
            remedy = "list the columns that the class reads in model.features, without it"
        if remedy:
            raise InputError(f"{reason}{', or' if '; ' in reason else ';'} {remedy}")
