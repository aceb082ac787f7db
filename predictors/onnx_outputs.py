"""What an ONNX model answers, and the columns that it becomes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from predictors.base import Outputs
from predictors.errors import SchemaMismatch, WrongAnswer
from predictors.naming import Naming, asked, unknown_output
from predictors.tensors import ARROW_TYPES, dtype_of
from predictors.zipmap import ZipMap

# One call of the model with rows of zeros: what it answers under the names, given rows and the length of open lists;
# None where the model refuses them.
Probe = Callable[[Sequence[str], int], list[Any] | None]
# Lengths of lists in two such calls: numbers that are seldom those of anything else.
_PROBE_LENGTHS = (5, 7)
Tensor = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Output:
    """A tensor among a model's answers.

    Args:
        name: of the columns, or their beginning.
        tensor: what the session calls it.
        item: its place in a sequence of tensors; None where it is no sequence.
        type: of its elements.
        shape: of a row; () is one value.
        is_ragged: rows have lists of any length; `shape` is that of one entry of them.
        classes: the names of a row's values, each of which becomes a column; () where they are a list.
        keys: of the maps that stand in its place; () where it is a tensor.
    """

    name: str
    tensor: str
    item: int | None
    type: pa.DataType
    shape: tuple[int, ...]
    is_ragged: bool = False
    classes: tuple[str, ...] = ()
    keys: tuple[int | str, ...] = ()

    @property
    def fields(self) -> list[pa.Field]:
        """Its columns."""
        if self.classes:
            return [pa.field(name, self.type) for name in self.classes]
        type_ = self.type
        for size in reversed(self.shape):
            type_ = pa.list_(type_, size)
        return [pa.field(self.name, pa.list_(type_) if self.is_ragged else type_)]

    def room(self, rows: int) -> Tensor:
        """Where the answers to `rows` rows go."""
        return np.empty(rows, object) if self.is_ragged else np.empty((rows, *self.shape), dtype_of(self.type))

    def fitted(self, answer: Any, rows: int) -> Tensor:
        """An answer to `rows` rows as its room takes it: it may be [n, 1] for one value a row.

        Raises:
            WrongAnswer: it is of another shape than in the first call.
        """
        if self.item is not None:
            answer = answer[self.item] if self.item < len(answer) else np.empty(0)
        if self.keys:
            answer = _table(answer, self.keys)
        wanted = (rows, *self.shape)
        if self.is_ragged:
            if answer.ndim < 2 or answer.shape[0] != rows or answer.shape[2:] != self.shape:
                raise WrongAnswer(f"model output {self.name!r} has shape {list(answer.shape)} for {rows} row(s)")
            apart = np.empty(rows, object)
            apart[:] = list(answer)
            return apart
        if answer.shape == wanted:
            return answer
        if answer.shape[:1] != (rows,) or answer.size != math.prod(wanted):
            values = math.prod(self.shape)
            raise WrongAnswer(
                f"model output {self.name!r} has shape {list(answer.shape)}, not {rows} row(s) of {values} value(s)"
            )
        return answer.reshape(wanted)

    def columns(self, room: Tensor) -> list[pa.Array]:
        """The columns of what was answered."""
        if self.classes:
            values = room.reshape(len(room), len(self.classes))
            return [pa.array(np.ascontiguousarray(values[:, i]), self.type) for i in range(len(self.classes))]
        if not self.is_ragged:
            return [_nested(room, self.type, self.shape)]
        lengths = np.fromiter((len(row) for row in room), np.int64, len(room))
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        values = np.concatenate(list(room)) if len(room) else np.empty((0, *self.shape), dtype_of(self.type))
        return [pa.ListArray.from_arrays(offsets, _nested(values, self.type, self.shape))]


@dataclass(frozen=True)
class Learned:
    """What a model answers as far as the job asks for it, and what the columns are called."""

    outputs: tuple[Output, ...]
    naming: Naming

    @property
    def tensors(self) -> list[str]:
        """What the session is asked for."""
        return list(dict.fromkeys(output.tensor for output in self.outputs))


@dataclass(frozen=True)
class _Declared:
    """An output as the file has it: its name there, and the tensor that stands for it."""

    name: str
    value: Any
    classes: tuple[int | str, ...]

    def gives(self, column: str) -> bool:
        """Whether it, or a column of it, is called so."""
        if column == self.name or column in map(_of_class, self.classes):
            return True
        return not self.classes and self.value.type.startswith("seq(") and column.startswith((f"{self.name}_", "prob_"))


def learn(
    path: str,
    declared: Sequence[Any],
    zipmaps: Mapping[str, ZipMap],
    order: Sequence[str],
    outputs: Outputs,
    rows: int,
    probe: Probe,
    is_ragged: bool,
) -> Learned:
    """Find out what a model answers.

    Args:
        path: of the model, for messages.
        declared: the outputs, as ONNX Runtime describes them.
        zipmaps: which of them stand for maps.
        order: the outputs' names as they are in the file.
        outputs: as the spec asks for them.
        rows: of a call of `probe`.
        is_ragged: lists of any length are fed.

    Raises:
        SchemaMismatch: an output that is asked for is not known, or is no column.
    """
    by_name = {value.name: value for value in declared}
    known = [
        _Declared(name, by_name[zipmaps[name].tensor], zipmaps[name].classes)
        if name in zipmaps
        else _Declared(name, by_name[name], ())
        for name in order
    ]
    names = asked(outputs)
    for name in names:
        if not any(each.gives(name) for each in known):
            raise unknown_output(outputs, name, [each.name for each in known], path)
    wanted = [each for each in known if outputs is None or any(each.gives(name) for name in names)]
    found = _probed(path, wanted, rows, probe, is_ragged)
    fields: list[pa.Field] = []
    groups: dict[str, list[int]] = {}
    for name, output in found:
        if output.classes or output.item is not None:
            groups.setdefault(name, []).extend(range(len(fields), len(fields) + len(output.fields)))
        fields += output.fields
    return Learned(tuple(output for _, output in found), Naming.of(outputs, pa.schema(fields), path, groups))


def _of_class(key: int | str) -> str:
    return f"prob_{key}"


def _probed(
    path: str, wanted: Sequence[_Declared], rows: int, probe: Probe, is_ragged: bool
) -> list[tuple[str, Output]]:
    """The outputs, each after its name in the file, by what the model answers to rows of zeros, or by what it declares.

    It may refuse such rows.
    """
    types = [_element(path, each) for each in wanted]
    names = [each.value.name for each in wanted]
    first = probe(names, _PROBE_LENGTHS[0]) if names else []
    second = probe(names, _PROBE_LENGTHS[1]) if first and is_ragged else first
    found = []
    for place, (each, type_) in enumerate(zip(wanted, types, strict=True)):
        if first is None or second is None:
            found.append((each.name, _by_declaration(path, each, type_)))
            continue
        answers, others = _items(path, each, first[place], rows), _items(path, each, second[place], rows)
        for (item, keys, shape), (_, _, other) in zip(answers, others, strict=True):
            name = each.name if item is None else f"{each.name}_{item}"
            output = _of_shapes(path, name, type_, rows, shape, other)
            classes = tuple(map(_of_class, keys or each.classes))
            if classes and math.prod(output[0]) != len(classes):
                values = math.prod(output[0])
                raise SchemaMismatch(
                    f"model {path}: output {name!r} has {values} value(s) a row for {len(classes)} classes"
                )
            found.append((each.name, Output(name, each.value.name, item, type_, *output, classes, keys)))
    return found


def _element(path: str, output: _Declared) -> pa.DataType:
    """The type of an output's values."""
    type_ = output.value.type
    inner = type_
    if type_.startswith("seq("):
        inner = type_.removeprefix("seq(")[:-1]
        if inner.startswith("map("):
            inner = inner.partition(",")[2][:-1]
    if inner not in ARROW_TYPES:
        raise SchemaMismatch(
            f"model {path}: output {output.name!r} is {type_}, which is not a column; choose others in model.outputs"
        )
    return ARROW_TYPES[inner]


_Item = tuple[int | None, tuple[int | str, ...], list[int]]


def _items(path: str, output: _Declared, answer: Any, rows: int) -> list[_Item]:
    """The tensors in one answer, each with its place, the keys of its maps, and its shape."""
    if not isinstance(answer, list):
        return [(None, (), list(np.shape(answer)))]
    if all(isinstance(each, dict) for each in answer) and answer:
        keys = tuple(answer[0])
        if len(answer) != rows or any(tuple(each) != keys for each in answer):
            raise _not_a_row_each(path, output.name, [len(answer)], rows)
        return [(None, keys, [rows, len(keys)])]
    return [(item, (), list(np.shape(each))) for item, each in enumerate(answer)]


def _of_shapes(
    path: str, name: str, type_: pa.DataType, rows: int, shape: list[int], other: list[int]
) -> tuple[tuple[int, ...], bool]:
    """The shape of a row, given two answers to lists of different lengths; whether it goes by the lists' length."""
    if shape[:1] != [rows]:
        raise _not_a_row_each(path, name, shape, rows)
    of_row, of_other = shape[1:], other[1:]
    is_ragged = of_row != of_other
    if is_ragged and (len(of_row) != len(of_other) or of_row[1:] != of_other[1:]):
        raise SchemaMismatch(
            f"model {path}: output {name!r} has rows of shape {of_row} or {of_other}, by the length of the lists that "
            f"it is fed, which is not a column; choose others in model.outputs"
        )
    sizes = of_row[1:] if is_ragged else of_row
    if math.prod(sizes) == 0:
        raise SchemaMismatch(f"model {path}: output {name!r} has no value a row")
    return _row_shape(sizes), is_ragged


def _row_shape(sizes: Sequence[int]) -> tuple[int, ...]:
    return () if math.prod(sizes) == 1 else tuple(sizes)


def _not_a_row_each(path: str, name: str, shape: list[int], rows: int) -> SchemaMismatch:
    return SchemaMismatch(
        f"model {path}: output {name!r} has shape {shape} for {rows} row(s), and each row needs an answer of its own; "
        f"export it so, or choose others in model.outputs"
    )


def _by_declaration(path: str, output: _Declared, type_: pa.DataType) -> Output:
    """A model may refuse zeros; what it declares is all there is then."""
    shape = output.value.shape
    sizes = [len(output.classes)] if output.classes else shape[1:]
    if not (shape or output.classes) or any(not isinstance(size, int) for size in sizes):
        raise SchemaMismatch(
            f"model {path}: output {output.name!r} has rows of unknown length {shape}, "
            f"and a call with zeros did not show it; export the model with fixed lengths"
        )
    if math.prod(sizes) == 0:
        raise SchemaMismatch(f"model {path}: output {output.name!r} has no value a row")
    classes = tuple(map(_of_class, output.classes))
    return Output(output.name, output.value.name, None, type_, _row_shape(sizes), False, classes)


def _table(maps: Sequence[Mapping[int | str, Any]], keys: tuple[int | str, ...]) -> Tensor:
    """A map for each row as a tensor."""
    try:
        return np.array([[each[key] for key in keys] for each in maps])
    except KeyError as error:
        raise WrongAnswer(f"a map of the model's answer has no key {error}, as those of other rows have") from error


def _nested(values: Tensor, type_: pa.DataType, shape: tuple[int, ...]) -> pa.Array:
    """A tensor as a column: lists in lists, as deep as its rows."""
    column = pa.array(values.reshape(-1), type=type_)
    for size in reversed(shape):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column
