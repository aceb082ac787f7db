"""Which columns fill which input of an ONNX model, and how they become tensors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predictors.base import Features
from predictors.casting import is_list
from predictors.errors import RowsRejected, SchemaMismatch
from predictors.feeding import nearest
from predictors.tensors import ARROW_TYPES, dtype_of

Tensor = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Ragged:
    """A column of lists whose length differs from row to row."""

    column: str
    offsets: Tensor
    values: Tensor
    valid: Tensor | None

    @property
    def lengths(self) -> Tensor:
        return np.diff(self.offsets)

    def rows(self, index: Tensor) -> Tensor:
        """The lists of some rows, all of one length, as a tensor."""
        length = self.offsets[index[0] + 1] - self.offsets[index[0]]
        return self.values[self.offsets[index][:, np.newaxis] + np.arange(length)]

    def check(self, start: int, stop: int) -> None:
        """Refuse rows that have no list.

        Raises:
            RowsRejected: names them.
        """
        if self.valid is not None and not self.valid[start:stop].all():
            text = f"column {self.column} is null, and how long a list the model needs in its place is not known"
            raise RowsRejected(np.flatnonzero(~self.valid[start:stop]).tolist(), text)


@dataclass(frozen=True)
class Feed:
    """One input of a model and the columns that fill it.

    Args:
        name: the input's.
        places: of its columns in the input schema.
        shape: of a row's tensor; None: lists of any length.
    """

    name: str
    places: tuple[int, ...]
    shape: tuple[int, ...] | None

    def tensor(self, rows: pa.RecordBatch) -> Tensor | Ragged:
        """The input for all of `rows`."""
        columns = [rows.column(place) for place in self.places]
        if self.shape is None:
            return _ragged(columns[0], rows.schema.names[self.places[0]])
        if len(columns) == 1:
            tensor = _dense(columns[0])
            return tensor.reshape(rows.num_rows, *self.shape) if tensor.ndim != 1 or self.shape else tensor
        tensor = np.empty((rows.num_rows, math.prod(self.shape)), dtype_of(leaf(columns[0].type)))
        at = 0
        for column in columns:
            values = _dense(column)
            if values.ndim == 1:
                tensor[:, at] = values
                at += 1
            else:
                tensor[:, at : at + values.shape[1]] = values
                at += values.shape[1]
        return tensor


@dataclass(frozen=True)
class Inputs:
    """How a model is fed: its inputs, the columns for them, and the number of rows that it was exported for."""

    feeds: tuple[Feed, ...]
    schema: pa.Schema
    fixed_rows: int | None

    @property
    def is_ragged(self) -> bool:
        """Whether rows of a call may differ in length."""
        return any(feed.shape is None for feed in self.feeds)

    def tensors(self, rows: pa.RecordBatch) -> dict[str, Tensor | Ragged]:
        """All inputs for all of `rows`."""
        return {feed.name: feed.tensor(rows) for feed in self.feeds}


def lay_out(path: str, inputs: Sequence[Any], features: Features, given: pa.Schema | None) -> Inputs:
    """Find out which columns fill which input.

    Args:
        path: of the model, for messages.
        inputs: as ONNX Runtime describes them.
        features: as the spec says it.
        given: the columns of the job's input; None while they are not known: lists are expected where one column has to
            fill several places.

    Raises:
        SchemaMismatch: the inputs cannot be filled from these columns.
    """
    if not inputs:
        raise SchemaMismatch(f"model {path} has no input")
    feeds: list[Feed] = []
    fields: list[pa.Field] = []
    for tensor, columns in zip(inputs, _columns_of(path, inputs, features), strict=True):
        if tensor.type not in ARROW_TYPES:
            raise SchemaMismatch(f"model {path}: input {tensor.name!r} is {tensor.type}, which is not a column")
        are_named = tensor.name in features if isinstance(features, Mapping) else features is not None
        types, shape = _Laid(path, tensor, columns, are_named, given).types()
        places = range(len(fields), len(fields) + len(columns))
        feeds.append(Feed(tensor.name, tuple(places), shape))
        fields += [pa.field(name, type_) for name, type_ in zip(columns, types, strict=True)]
    return Inputs(tuple(feeds), pa.schema(fields), _declared_rows(path, inputs))


def leaf(type_: pa.DataType) -> pa.DataType:
    """The type of the elements of lists, at any depth."""
    while is_list(type_):
        type_ = type_.value_type
    return type_


def _columns_of(path: str, inputs: Sequence[Any], features: Features) -> list[tuple[str, ...]]:
    """The columns for each input, by name."""
    names = [tensor.name for tensor in inputs]
    if isinstance(features, Mapping):
        for name in features:
            if name not in names:
                raise SchemaMismatch(
                    f"model.features names an input {name!r}, which model {path} does not have{nearest(name, names)}"
                )
        return [features.get(name, (name,)) for name in names]
    if features is None:
        return [(name,) for name in names]
    if len(inputs) == 1:
        return [features]
    if len(features) != len(inputs):
        raise SchemaMismatch(
            f"model {path} has {len(inputs)} inputs ({', '.join(names)}), "
            f"but model.features names {len(features)}; name one for each, in this order, or leave it out; "
            f"where an input takes several, write {{{names[0]}: [column, …], …}}"
        )
    return [(name,) for name in features]


@dataclass(frozen=True)
class _Laid:
    """One input and its columns."""

    path: str
    tensor: Any
    columns: tuple[str, ...]
    are_named: bool
    given: pa.Schema | None

    @property
    def element(self) -> pa.DataType:
        return ARROW_TYPES[self.tensor.type]

    @property
    def sizes(self) -> tuple[int | None, ...] | None:
        """The declared shape of a row, None for what is open; None where not even the number of axes is declared."""
        shape = self.tensor.shape
        # ONNX Runtime tells an input of no declared shape as [].
        return tuple(size if isinstance(size, int) and size >= 0 else None for size in shape[1:]) if shape else None

    @property
    def width(self) -> int | None:
        """Values a row, where they are declared."""
        sizes = self.sizes
        if sizes is None or None in sizes:
            return None
        return math.prod(size for size in sizes if size is not None)

    def types(self) -> tuple[list[pa.DataType], tuple[int, ...] | None]:
        """The columns' types as the model wants them, and the shape of a row.

        Raises:
            SchemaMismatch: the columns do not fill the input.
        """
        given = self._given()
        if not any(is_list(type_) for type_ in given):
            return self._scalars()
        if self.sizes == ():
            raise SchemaMismatch(
                f"model {self.path} takes one value a row in its input {self.tensor.name!r}, "
                f"and column {self.columns[0]!r} is {given[0]}"
            )
        return self._one_list(given[0]) if len(given) == 1 else self._joined(given)

    def _given(self) -> list[pa.DataType]:
        """The columns' types; that of a column that is not there is the model's own."""
        if self.given is None:
            return self._expected()
        found = [self.given.get_all_field_indices(name) for name in self.columns]
        # A column that is missing, or there twice, is named when all are checked.
        return [_plain(self.given.field(at[0]).type) if len(at) == 1 else self.element for at in found]

    def _expected(self) -> list[pa.DataType]:
        sizes, count = self.sizes, len(self.columns)
        if sizes is None or self.width in (1, count) or sizes == (None,):
            return [self.element] * count
        if count == 1:
            first, *inner = sizes
            return [_list_type(self.element, [first or -1, *(size or 1 for size in inner)])]
        if self.width is None or self.width < count or len(sizes) > 1:
            return [self.element] * count
        # Which of them are lists is not known yet.
        return [pa.list_(self.element, self.width - count + 1), *[self.element] * (count - 1)]

    def _scalars(self) -> tuple[list[pa.DataType], tuple[int, ...]]:
        sizes, count = self.sizes, len(self.columns)
        types = [self.element] * count
        if sizes is not None and self.width == 1 and count == 1:
            return types, tuple(1 for _ in sizes)
        if sizes is not None and len(sizes) > 1:
            raise SchemaMismatch(
                f"model {self.path}: input {self.tensor.name!r} has shape {self.tensor.shape}; "
                f"feed it from one column of fixed-size lists"
            )
        if self.width in (None, count):
            return types, (count,) if sizes != () else ()
        if not self.are_named:
            raise SchemaMismatch(
                f"model {self.path} takes {self.width} features a row in its input {self.tensor.name!r}; "
                f"name {self.width} columns in model.features"
            )
        raise SchemaMismatch(
            f"model {self.path} takes {self.width} feature(s) a row in its input {self.tensor.name!r}, "
            f"but model.features names {count}: {', '.join(self.columns)}"
        )

    def _one_list(self, given: pa.DataType) -> tuple[list[pa.DataType], tuple[int, ...] | None]:
        """One column of lists fills the input."""
        lengths = _lengths(given)
        sizes = self.sizes if self.sizes is not None else (None,) * len(lengths)
        if len(lengths) == 1 and len(sizes) > 1 and self.width is not None:
            # The values of all axes in one list, the last axis fastest, as NumPy and ONNX lay them down.
            return [pa.list_(self.element, self.width)], tuple(size for size in sizes if size is not None)
        if len(lengths) != len(sizes):
            raise SchemaMismatch(
                f"model {self.path}: input {self.tensor.name!r} has shape {self.tensor.shape}, "
                f"and column {self.columns[0]!r} is {given}; make it lists {len(sizes)} deep"
            )
        found = [size if size is not None else length for size, length in zip(sizes, lengths, strict=True)]
        if None in found[1:]:
            raise SchemaMismatch(
                f"model {self.path}: input {self.tensor.name!r} has shape {self.tensor.shape}, and column "
                f"{self.columns[0]!r} is {given}, whose inner lists may be of any length; make them fixed-size lists"
            )
        shape = tuple(size for size in found if size is not None)
        return [_list_type(self.element, [size or -1 for size in found])], None if found[0] is None else shape

    def _joined(self, given: list[pa.DataType]) -> tuple[list[pa.DataType], tuple[int, ...]]:
        """Lists and single values, one after the other, fill the input."""
        if self.sizes is not None and len(self.sizes) > 1:
            raise SchemaMismatch(
                f"model {self.path}: input {self.tensor.name!r} has shape {self.tensor.shape}; "
                f"feed it from one column of fixed-size lists"
            )
        widths = [_width(type_) for type_ in given]
        open_ = [place for place, width in enumerate(widths) if width is None]
        known = sum(width for width in widths if width is not None)
        if len(open_) == 1 and self.width is not None and self.width > known:
            widths[open_[0]] = self.width - known
        elif open_:
            name = self.columns[open_[0]]
            raise SchemaMismatch(
                f"model {self.path}: how many values of its input {self.tensor.name!r} come from column {name!r} is "
                f"not known, for it is {given[open_[0]]}; make it a fixed-size list"
            )
        total = sum(width for width in widths if width is not None)
        if self.width not in (None, total):
            listed = ", ".join(f"{name} ({width})" for name, width in zip(self.columns, widths, strict=True))
            raise SchemaMismatch(
                f"model {self.path} takes {self.width} values a row in its input {self.tensor.name!r}, "
                f"but its columns have {total}: {listed}"
            )
        pairs = zip(given, widths, strict=True)
        return [pa.list_(self.element, width) if is_list(type_) else self.element for type_, width in pairs], (total,)


def _plain(type_: pa.DataType) -> pa.DataType:
    while True:
        if isinstance(type_, pa.BaseExtensionType):
            type_ = type_.storage_type
        elif pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
            type_ = type_.value_type
        else:
            return type_


def _lengths(type_: pa.DataType) -> list[int | None]:
    """The length of the lists at each depth, None where it may be any."""
    lengths: list[int | None] = []
    while is_list(type_):
        lengths.append(type_.list_size if pa.types.is_fixed_size_list(type_) else None)
        type_ = _plain(type_.value_type)
    return lengths


def _width(type_: pa.DataType) -> int | None:
    """Values that a column has a row; None where that is not known, or it is lists of lists."""
    lengths = _lengths(type_)
    return 1 if not lengths else lengths[0] if len(lengths) == 1 else None


def _list_type(element: pa.DataType, sizes: Sequence[int]) -> pa.DataType:
    """Lists in lists, of these lengths; -1 is any."""
    for size in reversed(sizes):
        element = pa.list_(element, size)
    return element


def _declared_rows(path: str, inputs: Sequence[Any]) -> int | None:
    """The number of rows that the model was exported for, where it is fixed."""
    sizes = {tensor.shape[0] for tensor in inputs if tensor.shape}
    fixed = {size for size in sizes if isinstance(size, int)}
    if len(fixed) > 1 or 0 in fixed:
        raise SchemaMismatch(
            f"model {path} takes {' and '.join(map(str, sorted(fixed)))} rows in its inputs; "
            f"export it for any number, or for one and the same"
        )
    return fixed.pop() if fixed else None


def _dense(column: pa.Array) -> Tensor:
    """A column for ONNX Runtime, without a copy where it has no nulls; a null becomes NaN."""
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    inner = _dense(column.flatten())
    shape = (column.type.list_size, *inner.shape[1:])
    if not column.null_count:
        return inner.reshape(len(column), *shape)
    tensor = np.full((len(column), *shape), np.nan, inner.dtype)
    tensor[column.is_valid().to_numpy(zero_copy_only=False)] = inner.reshape(-1, *shape)
    return tensor


def _ragged(column: pa.Array, name: str) -> Ragged:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
    return Ragged(name, offsets, _dense(column.flatten()), valid)
