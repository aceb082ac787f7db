"""A query that is being read: the transaction it runs in, and what is known of its result before the rows come."""

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import pyarrow as pa
from adbc_driver_manager import dbapi

from predictors.notices import Notice
from transforms.connection import CONNECT_TIMEOUT_S, Connection
from transforms.errors import InputError

# In the place of a number of dimensions: a time of the column has no place in Arrow, whatever it is an item of.
BEYOND = -2

_T = TypeVar("_T")


@dataclass(frozen=True)
class Result:
    """What a query gives.

    Args:
        schema: plain Arrow types, names that do not repeat, at least one.
        rows: how many there are, or how many the database expects; None when that was not asked.
        size_bytes: the same for their size.
        batches: the rows, laid out as `schema`; they come from the database as they are asked for.
        decimals: columns of `schema` that hold the digits of decimal numbers as text, or `NaN`, `Infinity`,
            `-Infinity`, or lists of such; with their declared precision and scale, where there are such.
        notices: what is read as another type than a person would expect.
    """

    schema: pa.Schema
    rows: int | None
    size_bytes: int | None
    batches: Generator[pa.RecordBatch]
    decimals: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()


class ReadOtherwise(Exception):
    """Arrays have other dimensions than was thought, or times cannot be held: the query is read anew, by `dimensions`.

    Args:
        dimensions: of columns, as `read_postgres` takes them.
    """

    def __init__(self, dimensions: Mapping[str, int]) -> None:
        super().__init__(dimensions)
        self.dimensions = dimensions


def until_all_fit(read: Callable[[Mapping[str, int]], _T]) -> _T:
    """Read a query, and anew, by itself and with nothing kept, once values are found that have to be read otherwise.

    Nothing but the values says how many dimensions arrays have, or that a time is infinite; nearly all have one, or are
    not.
    """
    dimensions: dict[str, int] = {}
    while True:
        try:
            return read(dimensions)
        except ReadOtherwise as differ:
            # Arrays that had to have another number than 1 and have yet another have no common one.
            dimensions |= {
                name: 0 if name in dimensions and depth != BEYOND else depth
                for name, depth in differ.dimensions.items()
            }


class Session:
    """One read-only transaction: all statements see the database as it was at the first. Used by one thread.

    Args:
        connection: where to.
        connect_timeout_s: see `Connection.open`.
    """

    def __init__(self, connection: Connection, connect_timeout_s: int = CONNECT_TIMEOUT_S) -> None:
        self.connection = connection
        self._connect_timeout_s = connect_timeout_s
        self._database: Any = None

    def __enter__(self) -> Self:
        self._database = self.connection.open(read_only=True, connect_timeout_s=self._connect_timeout_s)
        return self

    def __exit__(self, *_: object) -> None:
        # What a query that was cut short still has to say on closing is of no interest.
        with contextlib.suppress(dbapi.Error):
            self._database.close()

    def schema(self, statement: str) -> pa.Schema:
        """The columns that `statement` would give.

        Raises:
            InputError: the database refuses it.
        """
        with self._opened({}) as cursor:
            return cursor.adbc_execute_schema(statement)

    def compile(self, statement: str) -> None:
        """Have the database understand `statement`, and not run it.

        Raises:
            InputError: the database refuses it.
        """
        with self._opened({}) as cursor:
            cursor.adbc_prepare(statement)

    def fetch(self, statement: str, **options: str) -> list[tuple[Any, ...]]:
        """Run `statement` and return its rows, of which there are few.

        Raises:
            InputError: the database refuses it.
        """
        with self._opened(options) as cursor:
            cursor.execute(statement)
            columns = [column.to_pylist() for column in cursor.fetch_arrow_table().columns]
            return list(zip(*columns, strict=True))

    def stream(self, statement: str, **options: str) -> Generator[pa.RecordBatch]:
        """Run `statement` and return its rows as they come; an empty batch comes first and tells the schema.

        Raises:
            InputError: the database refuses it, or fails on the way.
        """
        with self._opened(options) as cursor:
            cursor.execute(statement)
            reader = cursor.fetch_record_batch()
            yield pa.RecordBatch.from_arrays([pa.array([], type) for type in reader.schema.types], schema=reader.schema)
            yield from reader

    @contextlib.contextmanager
    def _opened(self, options: dict[str, str]) -> Iterator[Any]:
        try:
            with self._database.cursor(adbc_stmt_kwargs=options or None) as cursor:
                yield cursor
        # The driver's stream of batches passes its errors on as Arrow's.
        except (dbapi.Error, pa.ArrowException, OSError) as error:
            raise InputError(f"input.query at {self.connection.describe()}: {self.connection.reason(error)}") from error


def check_columns(names: Sequence[str], same: Sequence[str] | None = None) -> None:
    """Demand at least one column, and no name twice.

    Args:
        names: of the columns.
        same: as the database compares them, where it has a way of its own.

    Raises:
        InputError: names the column that is there twice.
    """
    if not names:
        raise InputError("input.query gives no columns; select at least one")
    seen: set[str] = set()
    for name, key in zip(names, same or names, strict=True):
        if key in seen:
            raise InputError(f"input.query gives two columns named {name!r}; rename one with AS")
        seen.add(key)


def check_text(name: str, array: pa.Array, remedy: str) -> None:
    """Demand that text is UTF-8.

    Raises:
        InputError: names the column.
    """
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"input.query: column {name!r} holds text that is not UTF-8; read it as bytes, by {remedy}"
        ) from error


def read_as(name: str, type_: str, reason: str) -> Notice:
    """Say that a column is read as another type than a person would expect, and why."""
    return Notice("read_as", f"input.query: column {name!r} is read as {type_}: {reason}")
