"""What a user's class returns becomes a record batch: any kind of table, laid out as promised, no value changed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predictors.taking import decoded, no_values

# What a column is called that comes without a name.
UNNAMED = "prediction"
_SHOWN_CHARS = 60

# A column of an answer; no name where the answer gives none.
Column = tuple[str | None, pa.Array]


class Unfit(Exception):
    """An answer that cannot be taken; `str(error)` says why.

    Args:
        reason: one line.
        row: the first row that it is so of, where it is known.
    """

    def __init__(self, reason: str, row: int | None = None) -> None:
        super().__init__(reason, row)
        self.row = row

    def __str__(self) -> str:
        return str(self.args[0])


def read_answer(answer: Any, rows: int, promised: pa.Schema | None) -> pa.RecordBatch:
    """An answer as a record batch, laid out as promised if anything was.

    Taken are: RecordBatch, Table and arrays of pyarrow; DataFrames and Series of pandas and Polars, and all else that
    exports Arrow data; NumPy arrays of one or two dimensions or with named fields, and what can become one; lists of
    values, of dicts, or of tuples, each of which is a row; dicts of columns. An index of pandas is no column. Columns
    are found by name; those that have none by their order.

    Args:
        rows: of the call.
        promised: the columns to be; None: whatever they are, in plain types.

    Raises:
        Unfit: it is nothing of all that, or a value would change.
    """
    if isinstance(answer, pa.RecordBatch) and promised is not None and answer.schema.equals(promised):
        _check_nulls(answer, promised)
        return answer
    columns = _named(_columns(answer, rows, promised), promised)
    lengths = {len(column) for _, column in columns}
    if len(lengths) > 1:
        listed = ", ".join(f"{name} has {len(column)}" for name, column in columns)
        raise Unfit(f"its columns differ in length: {listed}")
    if promised is not None:
        return lay_out(columns, promised)
    names = [name for name, _ in columns]
    if not names:
        raise Unfit("it has no columns")
    return pa.RecordBatch.from_arrays([_plain(column) for _, column in columns], names=names)


def lay_out(columns: Sequence[tuple[str, pa.Array]], promised: pa.Schema) -> pa.RecordBatch:
    """Columns under the promised types, in the promised order.

    Raises:
        Unfit: one is missing or not promised, or a value of it cannot be kept as it is.
    """
    given = dict(columns)
    if set(given) != set(promised.names):
        came = ", ".join(f"{name}: {column.type}" for name, column in columns)
        raise Unfit(f"it has columns ({came}), and promised are ({brief(promised)})")
    fitted = [_fitted_named(given[field.name], field) for field in promised]
    batch = pa.RecordBatch.from_arrays(fitted, schema=promised)
    _check_nulls(batch, promised)
    return batch


def brief(schema: pa.Schema) -> str:
    """Columns in a line."""
    return ", ".join(f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in schema)


# --- from any kind of table to columns -----------------------------------------------------------------------------


def _columns(answer: Any, rows: int, promised: pa.Schema | None) -> list[Column]:
    try:
        return _read(answer, rows, promised)
    except (pa.ArrowException, OverflowError) as error:
        raise Unfit(f"it cannot become columns: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    # Of a text that tells a whole list of values the beginning is enough.
    return _cut(" ".join(str(error).split()), 200)


def _column(name: object, read: Callable[[], pa.Array]) -> Column:
    """A column of several, which is named where it cannot be read."""
    try:
        return str(name), read()
    except (pa.ArrowException, OverflowError) as error:
        raise Unfit(f"column {name} cannot be one column: {_reason(error)}") from error


def _read(answer: Any, rows: int, promised: pa.Schema | None) -> list[Column]:
    if isinstance(answer, pa.RecordBatch | pa.Table):
        return [(name, _whole(column)) for name, column in zip(answer.schema.names, answer.columns, strict=True)]
    if isinstance(answer, pa.Array | pa.ChunkedArray):
        return [(None, _whole(answer))]
    if type(answer).__module__.partition(".")[0] == "pandas":
        return _of_pandas(answer, rows, promised)
    if hasattr(answer, "__arrow_c_stream__") or hasattr(answer, "__arrow_c_array__"):
        return _of_arrow(answer)
    if isinstance(answer, Mapping):
        return [
            _column(name, partial(_array, name, column, rows, _type(promised, str(name))))
            for name, column in answer.items()
        ]
    if isinstance(answer, list | tuple):
        return _of_list(list(answer), promised)
    if isinstance(answer, np.ndarray) or _becomes_array(answer):
        return _of_numpy(_numpy(answer), promised)
    raise Unfit("it is no table; return a pyarrow RecordBatch, a DataFrame, an array, a list, or a dict of columns")


def _of_arrow(answer: Any) -> list[Column]:
    """What exports Arrow data, by https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html."""
    array = pa.chunked_array(answer) if hasattr(answer, "__arrow_c_stream__") else pa.array(answer)
    # Readers of batches say what they are by a schema; a column of structs has neither.
    if not pa.types.is_struct(array.type) or not (hasattr(answer, "columns") or hasattr(answer, "schema")):
        return [(None, _whole(array))]
    struct = _whole(array)
    return list(zip([field.name for field in struct.type], struct.flatten(), strict=True))


def _of_pandas(answer: Any, rows: int, promised: pa.Schema | None) -> list[Column]:
    index = getattr(answer, "index", None)
    if index is not None and len(index) == rows and index.dtype.kind in "iu":
        order = index.to_numpy()
        if not np.array_equal(order, np.arange(rows)) and np.array_equal(np.sort(order), np.arange(rows)):
            raise Unfit(
                f"the index of its {type(answer).__name__} says that rows were moved, and row i has to answer row i; "
                "use sort_index(), or reset_index(drop=True) where the order is right"
            )
    if not hasattr(answer, "columns"):
        wanted = promised.field(0).type if promised is not None and len(promised) == 1 else None
        return [(None, _of_series(answer, wanted))]
    names = [str(name) for name in answer.columns]
    columns = (answer.iloc[:, position] for position in range(len(names)))
    return [
        _column(name, partial(_of_series, column, _type(promised, name)))
        for name, column in zip(names, columns, strict=True)
    ]


def _of_series(series: Any, wanted: pa.DataType | None) -> pa.Array:
    """A column of pandas. NaN among floats stays NaN, but where a column of another type is promised: there it is how
    pandas writes that a value is missing.
    """
    numpy_floats = isinstance(getattr(series, "dtype", None), np.dtype) and series.dtype.kind == "f"
    if numpy_floats and (wanted is None or pa.types.is_floating(wanted)):
        return pa.array(series.to_numpy(), from_pandas=False)
    return _whole(pa.array(series, from_pandas=True))


def _of_numpy(answer: Any, promised: pa.Schema | None) -> list[Column]:
    if answer.dtype.names is not None:
        return [_column(name, partial(pa.array, _contiguous(answer[name]))) for name in answer.dtype.names]
    if answer.ndim == 1:
        return [(None, pa.array(answer.tolist() if answer.dtype.kind == "O" else answer))]
    if answer.ndim != 2:
        shape = "x".join(map(str, answer.shape)) or "a single value"
        raise Unfit(f"its array is of shape {shape}; one of n values, or of n rows with k columns, is taken")
    if promised is not None and len(promised) == 1 and _is_list(promised.field(0).type):
        return [(None, _rows_as_lists(answer))]
    return [(None, pa.array(_contiguous(answer[:, column]))) for column in range(answer.shape[1])]


def _of_list(answer: list[Any], promised: pa.Schema | None) -> list[Column]:
    # Named tuples are rows with names.
    answer = [each._asdict() if hasattr(each, "_asdict") else each for each in answer]
    if answer and all(isinstance(each, Mapping) for each in answer):
        names = dict.fromkeys(name for each in answer for name in each)
        if promised is None or len(promised) != 1 or not pa.types.is_nested(promised.field(0).type):
            return [
                _column(name, partial(_of_values, [each.get(name) for each in answer], _type(promised, str(name))))
                for name in names
            ]
    types = [] if promised is None else list(promised.types)
    if promised is None and answer and all(isinstance(each, tuple) and len(each) == len(answer[0]) for each in answer):
        # Rows, as a cursor fetches them. Lists are values.
        return [(None, _of_values([each[n] for each in answer], None)) for n in range(len(answer[0]))]
    if len(types) > 1 and all(isinstance(each, list | tuple) and len(each) == len(types) for each in answer):
        return [(None, _of_values([each[n] for each in answer], wanted)) for n, wanted in enumerate(types)]
    return [(None, _of_values(answer, types[0] if len(types) == 1 else None))]


def _array(name: object, column: Any, rows: int, wanted: pa.DataType | None) -> pa.Array:
    """One column of a dict of columns."""
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return _whole(column)
    if type(column).__module__.partition(".")[0] == "pandas" and hasattr(column, "dtype"):
        return _of_pandas_column(column, rows, wanted)
    if hasattr(column, "__arrow_c_stream__"):
        return _whole(pa.chunked_array(column))
    if isinstance(column, list | tuple):
        return _of_values(list(column), wanted)
    if isinstance(column, np.ndarray) or _becomes_array(column):
        values = _numpy(column)
        if values.ndim == 2:
            one = values.shape[1] == 1 and not _is_list(wanted)
            return pa.array(_contiguous(values[:, 0])) if one else _rows_as_lists(values)
        if values.ndim == 1:
            return pa.array(values.tolist() if values.dtype.kind == "O" else values)
    raise Unfit(f"column {name} is {_cut(repr(column))}, and not a column of {rows} values")


def _of_pandas_column(column: Any, rows: int, wanted: pa.DataType | None) -> pa.Array:
    if not hasattr(column, "index"):
        return _whole(pa.array(column, from_pandas=True))
    promised = None if wanted is None else pa.schema([(UNNAMED, wanted)])
    return _of_pandas(column, rows, promised)[0][1]


def _of_values(values: list[Any], wanted: pa.DataType | None) -> pa.Array:
    try:
        return _whole(pa.array(values))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        # Maps and the like cannot be told by their values. Not so numbers: that would round them.
        if wanted is None or not (pa.types.is_nested(wanted) or isinstance(wanted, pa.BaseExtensionType)):
            raise
        return pa.array(values, wanted)


def _rows_as_lists(values: Any) -> pa.Array:
    flat = pa.array(_contiguous(values).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _contiguous(values: Any) -> Any:
    """One block of memory, in which what is masked stays so."""
    return values.copy() if isinstance(values, np.ma.MaskedArray) else np.ascontiguousarray(values)


def _numpy(answer: Any) -> Any:
    if isinstance(answer, np.ndarray):
        # A column of a matrix is a matrix again.
        return np.asarray(answer) if isinstance(answer, np.matrix) else answer
    try:
        return np.asarray(answer)
    except Exception as error:  # of a tensor on a device, say
        text = _cut(str(error), 200)
        raise Unfit(f"it cannot become a NumPy array: {type(error).__name__}: {text}") from error


def _becomes_array(answer: Any) -> bool:
    """Whether it says that it can be a NumPy array, as tensors do. Text and single values do not."""
    return hasattr(answer, "__array__") and not isinstance(answer, np.generic)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array, of one chunk or of many."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays([no_values(column.type), *column.chunks])


def _named(columns: list[Column], promised: pa.Schema | None) -> list[tuple[str, pa.Array]]:
    """Give names to columns that have none: those promised, if there are as many."""
    if all(name is None for name, _ in columns):
        if promised is not None and len(promised) == len(columns):
            names = promised.names
        else:
            names = [UNNAMED] if len(columns) == 1 else [f"{UNNAMED}_{number}" for number in range(len(columns))]
        return [(name, column) for name, (_, column) in zip(names, columns, strict=True)]
    named = [(name or UNNAMED, column) for name, column in columns]
    seen: set[str] = set()
    for name, _ in named:
        if name in seen:
            raise Unfit(f"it has more than one column named {name!r}")
        seen.add(name)
    return named


def _type(promised: pa.Schema | None, name: str) -> pa.DataType | None:
    return promised.field(name).type if promised is not None and name in promised.names else None


# --- plain types ---------------------------------------------------------------------------------------------------


def _plain(column: pa.Array) -> pa.Array:
    """A column under a type that differs from others only where its values do."""
    if pa.types.is_dictionary(column.type):
        return _plain(decoded(column))
    if pa.types.is_run_end_encoded(column.type):
        return _plain(pc.run_end_decode(column))
    plain = _plain_type(column.type)
    return column if plain.equals(column.type) else column.cast(plain)


def _plain_type(of: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_large_string(of) or types.is_string_view(of):
        return pa.string()
    if types.is_large_binary(of) or types.is_binary_view(of):
        return pa.binary()
    if types.is_list(of) or types.is_large_list(of) or types.is_list_view(of) or types.is_large_list_view(of):
        return pa.list_(_plain_type(of.value_type))
    if types.is_struct(of):
        return pa.struct([pa.field(field.name, _plain_type(field.type)) for field in of])
    return of


def shows_no_type(of: pa.DataType) -> bool:
    """Whether values of such a type were nothing but nulls, or empty lists."""
    return pa.types.is_null(of) or any(shows_no_type(of.field(n).type) for n in range(of.num_fields))


# --- to promised types ---------------------------------------------------------------------------------------------


def _fitted_named(column: pa.Array, field: pa.Field) -> pa.Array:
    try:
        return _fitted(column, field.type)
    except Unfit as error:
        raise Unfit(f"column {field.name} {error}", error.row) from error


def _fitted(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """`column` as `wanted`, each value as it was."""
    if column.type.equals(wanted):
        return column
    if pa.types.is_dictionary(column.type):
        return _fitted(decoded(column), wanted)
    if pa.types.is_run_end_encoded(column.type):
        return _fitted(pc.run_end_decode(column), wanted)
    if column.null_count == len(column):
        return pa.nulls(len(column), wanted)
    if isinstance(wanted, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(wanted, _fitted(column, wanted.storage_type))
    if pa.types.is_dictionary(wanted):
        return _fitted(column, wanted.value_type).dictionary_encode().cast(wanted)
    if not _is_akin(column.type, wanted):
        row = _first(column.is_valid())
        raise Unfit(f"is {column.type} ({_shown(column, row)}), and promised is {wanted}", row)
    try:
        cast = column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        row = _first_refused(column, wanted)
        raise Unfit(f"holds {_shown(column, row)} ({column.type}), which {wanted} cannot hold", row) from None
    changed = _first_changed(column, cast)
    if changed is not None:
        raise Unfit(f"holds {_shown(column, changed)} ({column.type}), which {wanted} cannot hold exactly", changed)
    return cast


_Test = Callable[[pa.DataType], bool]
_types = pa.types
_KINDS: tuple[tuple[_Test, ...], ...] = (
    (_types.is_string, _types.is_large_string, _types.is_string_view),
    (_types.is_binary, _types.is_large_binary, _types.is_binary_view, _types.is_fixed_size_binary),
    (_types.is_integer, _types.is_floating, _types.is_decimal, _types.is_boolean),
    (_types.is_date,),
    (_types.is_time,),
    (_types.is_duration,),
)
_LISTS: tuple[_Test, ...] = (
    _types.is_list,
    _types.is_large_list,
    _types.is_fixed_size_list,
    _types.is_list_view,
    _types.is_large_list_view,
)


def _is_akin(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of one type are, in kind, values of the other. Text is never read as a number."""
    if given.equals(wanted) or pa.types.is_null(given):
        return True
    if _is_list(given) and _is_list(wanted):
        return _is_akin(given.value_type, wanted.value_type)
    if pa.types.is_struct(given) and pa.types.is_struct(wanted):
        return [field.name for field in given] == [field.name for field in wanted] and all(
            _is_akin(given.field(n).type, wanted.field(n).type) for n in range(wanted.num_fields)
        )
    if pa.types.is_map(given) and pa.types.is_map(wanted):
        return _is_akin(given.key_type, wanted.key_type) and _is_akin(given.item_type, wanted.item_type)
    if pa.types.is_timestamp(given) and pa.types.is_timestamp(wanted):
        # A time without a zone is not known to be of any.
        return (given.tz is None) == (wanted.tz is None)
    return any(any(test(given) for test in kind) and any(test(wanted) for test in kind) for kind in _KINDS)


def _is_list(of: pa.DataType | None) -> bool:
    return of is not None and any(test(of) for test in _LISTS)


def _first_changed(column: pa.Array, cast: pa.Array) -> int | None:
    """The first row that is not what it was; 0 where that cannot be told of a nested one."""
    if not pa.types.is_nested(column.type):
        return _first_other(column, cast)
    pairs = zip(_leaves(column), _leaves(cast), strict=True)
    return next((0 for before, after in pairs if _first_other(before, after) is not None), None)


def _first_other(column: pa.Array, cast: pa.Array) -> int | None:
    if any(test(column.type) for kind in _KINDS[:2] for test in kind) or pa.types.is_null(column.type):
        return None
    back = cast.cast(column.type, safe=False)
    same = pc.fill_null(pc.equal(back, column), True)
    if pa.types.is_floating(column.type):
        same = pc.or_(same, pc.fill_null(pc.and_(pc.is_nan(column), pc.is_nan(back)), True))
    return None if pc.all(same).as_py() in (True, None) else _first(pc.invert(same))


def _leaves(column: pa.Array) -> Iterator[pa.Array]:
    """The values in a nested column, without those below nulls."""
    if _is_list(column.type):
        yield from _leaves(column.flatten())
    elif pa.types.is_struct(column.type):
        for field in column.flatten():
            yield from _leaves(field)
    elif pa.types.is_map(column.type):
        yield from _leaves(column.keys)
        yield from _leaves(column.items)
    else:
        yield decoded(column) if pa.types.is_dictionary(column.type) else column


def _first_refused(column: pa.Array, wanted: pa.DataType) -> int:
    """The first row whose value cannot be cast."""
    start, stop = 0, len(column)
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            column.slice(start, middle - start).cast(wanted)
            start = middle
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            stop = middle
    return start


def _first(mask: pa.Array) -> int:
    return pc.index(mask, pa.scalar(True)).as_py()


def _check_nulls(batch: pa.RecordBatch, promised: pa.Schema) -> None:
    for field, column in zip(promised, batch.columns, strict=True):
        if not field.nullable and column.null_count:
            raise Unfit(f"column {field.name} holds a null, and promised is NOT NULL", _first(column.is_null()))


def _shown(column: pa.Array, row: int) -> str:
    try:
        return _cut(repr(column[row].as_py()))
    except (ValueError, OverflowError):
        # Python has neither nanoseconds, for which Arrow would want pandas, nor years beyond 9999.
        return _cut(str(column.slice(row, 1).cast(pa.string())[0]))


def _cut(text: str, most: int = _SHOWN_CHARS) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]}…"
