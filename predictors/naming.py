"""Which of a model's answers become columns, and what these are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from predictors.base import Outputs
from predictors.casting import is_list
from predictors.errors import RowsRejected, SchemaMismatch
from predictors.feeding import nearest


@dataclass(frozen=True)
class _Pick:
    """One column of the result: a column of the answer, or an element of its lists; how long these have to be."""

    place: int
    field: pa.Field
    element: int | None = None
    length: int = 0


@dataclass(frozen=True)
class Naming:
    """The columns that a job gets of a model's answers.

    Args:
        picks: where each comes from.
    """

    picks: tuple[_Pick, ...]

    @classmethod
    def of(
        cls, outputs: Outputs, answers: pa.Schema, model: str, groups: Mapping[str, Sequence[int]] | None = None
    ) -> "Naming":
        """Choose and name columns.

        Args:
            outputs: as the spec says it; None chooses all.
            answers: the columns that the model answers, under their own names.
            model: its name in messages.
            groups: names of several of these columns together, given by their places.

        Raises:
            SchemaMismatch: an output is not known, its lists are of another length than is named, or two columns are of
                one name.
        """
        picks: list[_Pick] = []
        if outputs is None:
            picks = [_Pick(place, field) for place, field in enumerate(answers)]
        for name, to in asked(outputs).items():
            members = (groups or {}).get(name)
            if members is not None:
                picks += _members(answers, name, members, None if to == name else to, model)
            elif name in answers.names:
                picks += _column(answers, name, to, model)
            else:
                raise unknown_output(outputs, name, [*(groups or {}), *answers.names], model)
        seen: set[str] = set()
        for pick in picks:
            if pick.field.name in seen:
                raise SchemaMismatch(
                    f"model {model}: two of its outputs would be column {pick.field.name!r}; "
                    f"name them apart in model.outputs, as {{output: column}}"
                )
            seen.add(pick.field.name)
        return cls(tuple(picks))

    @property
    def schema(self) -> pa.Schema:
        """Of the columns that the job gets."""
        return pa.schema([pick.field for pick in self.picks])

    def apply(self, answers: Sequence[pa.Array]) -> pa.RecordBatch:
        """The job's columns of a model's answers.

        Raises:
            RowsRejected: lists that are spread over columns are of another length in these rows.
        """
        return pa.RecordBatch.from_arrays([_picked(answers, pick) for pick in self.picks], schema=self.schema)


def asked(outputs: Outputs) -> dict[str, str | tuple[str, ...]]:
    """Which outputs are asked for, and as what."""
    if isinstance(outputs, Mapping):
        return dict(outputs)
    return {name: name for name in outputs or ()}


def unknown_output(outputs: Outputs, name: str, known: Sequence[str], model: str) -> SchemaMismatch:
    """The error for an output that the model does not have."""
    line = f"model.outputs names {name!r}, which model {model} does not answer{nearest(name, known)}"
    if isinstance(outputs, Mapping):
        to = outputs[name]
        if isinstance(to, str) and to in known:
            line += f"; the model's own name comes first: {{{to}: {name}}}"
    elif len(known) == 1:
        line += f"; to call it so, write {{{known[0]}: {name}}}"
    return SchemaMismatch(line)


def _members(
    answers: pa.Schema, name: str, members: Sequence[int], to: str | tuple[str, ...] | None, model: str
) -> list[_Pick]:
    """A group of columns, under their own names or others."""
    own = tuple(answers.field(place).name for place in members)
    names = own if to is None else (to,) if isinstance(to, str) else to
    if len(names) != len(members):
        raise SchemaMismatch(
            f"model.outputs names {len(names)} column(s) for output {name!r} of model {model}, "
            f"which gives {len(members)}: {', '.join(own)}"
        )
    return [_Pick(place, answers.field(place).with_name(each)) for place, each in zip(members, names, strict=True)]


def _column(answers: pa.Schema, name: str, to: str | tuple[str, ...], model: str) -> list[_Pick]:
    """One column, renamed, or its lists spread over several."""
    if answers.names.count(name) > 1:
        raise SchemaMismatch(f"model.outputs names {name!r}, and model {model} gives several; name its outputs instead")
    place, field = answers.get_field_index(name), answers.field(name)
    if isinstance(to, str):
        return [_Pick(place, field.with_name(to))]
    if not is_list(field.type):
        if len(to) == 1:
            return [_Pick(place, field.with_name(to[0]))]
        raise SchemaMismatch(
            f"model.outputs names {len(to)} columns for output {name!r} of model {model}, which has one value a row"
        )
    if pa.types.is_fixed_size_list(field.type) and field.type.list_size != len(to):
        raise SchemaMismatch(
            f"model.outputs names {len(to)} column(s) for output {name!r} of model {model}, "
            f"which has {field.type.list_size} values a row"
        )
    return [_Pick(place, pa.field(each, field.type.value_type), i, len(to)) for i, each in enumerate(to)]


def _picked(answers: Sequence[pa.Array], pick: _Pick) -> pa.Array:
    column = answers[pick.place]
    if pick.element is None:
        return column
    if not pa.types.is_fixed_size_list(column.type):
        wrong = pc.fill_null(pc.not_equal(pc.list_value_length(column), pick.length), False)
        if wrong.true_count:
            rows = pc.indices_nonzero(wrong).to_pylist()
            raise RowsRejected(rows, f"the model's list is not of the {pick.length} values that model.outputs names")
    return pc.list_element(column, pick.element)
