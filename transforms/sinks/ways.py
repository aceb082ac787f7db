"""The ways of columns into a database, and rows led along them.

A value is never changed without a word: one that the column cannot hold is refused, by its row and the reason; one that
loses digits where people would rather have it rounded is counted.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from predictors.notices import Notice
from predictors.taking import no_values, take


@dataclass(frozen=True)
class Fitted:
    """A column on its way.

    Args:
        column: what the database gets; any value where one is refused.
        refused: by row, why the value cannot be taken.
        changed: how many of the others lose digits, or become something else, as the way says.
    """

    column: pa.Array
    refused: Mapping[int, str] = field(default_factory=dict)
    changed: int = 0


Fit = Callable[[pa.Array], Fitted]


@dataclass(frozen=True)
class Way:
    """How a column gets into one of a database.

    Args:
        wire: the Arrow type that the driver gets.
        fit: makes it, value by value.
        cast: a SQL type, where the database itself must make the values of text.
        loses: what values may lose, for people; None: nothing, whatever the value.
        changes: the same where hardly a column has such values, so that only those found are worth a word.
        code: of the notice that counts the values that lost something.
        counted: whether `fit` counts them; else only the database can.
    """

    wire: pa.DataType
    fit: Fit
    cast: str | None = None
    loses: str | None = None
    changes: str | None = None
    code: str = "rounded"
    counted: bool = True

    def may_change(self, field: pa.Field) -> list[Notice]:
        """What is said before any value is known."""
        return (
            [Notice(f"may_be_{self.code}", f"column {field.name} ({field.type}): {self.loses}")] if self.loses else []
        )

    def changed(self, name: str, values: int) -> list[Notice]:
        """What is said of `values` values that lost something."""
        words = self.loses or self.changes
        return [Notice(self.code, f"column {name}: {words}", values)] if words and values else []


@dataclass(frozen=True)
class FittedRows:
    """Rows on their way.

    Args:
        rows: what the database gets.
        refused: by row, why it cannot be taken, the column named.
        notices: what values lost.
    """

    rows: pa.RecordBatch
    refused: Mapping[int, str]
    notices: Sequence[Notice]


def fit_rows(rows: pa.RecordBatch, ways: Mapping[str, Way], required: Collection[str] = ()) -> FittedRows:
    """Lead each column of `rows` its way.

    Args:
        required: columns that take no null.
    """
    made: list[pa.Array] = []
    refused: dict[int, str] = {}
    notices: list[Notice] = []
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        fitted = _fitted(ways[name], column)
        made.append(fitted.column)
        notices += ways[name].changed(name, fitted.changed)
        reasons = {row: f"column {name}: {reason}" for row, reason in fitted.refused.items()}
        if name in required and fitted.column.null_count:
            reasons = (
                dict.fromkeys(rows_where(fitted.column.is_null()), f"column {name} is NOT NULL in the table") | reasons
            )
        refused = reasons | refused
    return FittedRows(pa.RecordBatch.from_arrays(made, names=rows.schema.names), refused, tuple(notices))


def can_fit(way: Way, type: pa.DataType) -> bool:
    """Whether Arrow has what the way needs for this very type, tried on no values."""
    try:
        way.fit(no_values(type))
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError, NotImplementedError):
        return False
    return True


def _fitted(way: Way, column: pa.Array) -> Fitted:
    """Lead a column its way; values that Arrow itself stumbles over, such as text that is not UTF-8, are refused."""
    try:
        return way.fit(column)
    except (pa.ArrowInvalid, UnicodeDecodeError, OverflowError, ValueError):
        refused = {row: why for row in range(len(column)) if (why := _stumble(way, column.slice(row, 1))) is not None}
        if not refused:
            raise
        good = pa.array([row not in refused for row in range(len(column))])
        rest = way.fit(take(column, pc.indices_nonzero(good)))
        # One that is refused may have any value.
        at = pc.subtract(pc.cumulative_sum(good.cast(pa.int64())), 1)
        made = pc.take(rest.column, pc.if_else(good, at, None))
        rows = pc.indices_nonzero(good).to_pylist()
        return Fitted(made, refused | {rows[row]: why for row, why in rest.refused.items()}, rest.changed)


def _stumble(way: Way, value: pa.Array) -> str | None:
    try:
        way.fit(value)
    except UnicodeDecodeError:
        return "text that is not UTF-8"
    except (pa.ArrowInvalid, OverflowError, ValueError) as error:
        text = " ".join(str(error).split())
        return "text that is not UTF-8" if "UTF8" in text or "UTF-8" in text else text
    return None


def rows_where(mask: pa.Array | None) -> list[int]:
    """The rows for which a mask holds; no mask holds for none."""
    if mask is None or not pc.any(mask).as_py():
        return []
    rows: list[int] = pc.indices_nonzero(mask.fill_null(False)).to_pylist()
    return rows
