"""The types of decimal columns, which nothing but their digits says."""

import pyarrow as pa
import pyarrow.compute as pc

from predictors.casting import DIGITS
from predictors.notices import Notice
from transforms.sources.postgres_arrays import items_of, list_type
from transforms.sources.postgres_types import MAX_DIGITS, decimal_type
from transforms.sources.reading import Result, read_as

# Any number of so many digits is another float64, and the float64's shortest text is that number again.
_FLOAT_DIGITS = 15
_TOO_LONG = f"its numbers need more than the {MAX_DIGITS} digits that a decimal has"
_NOT_FINITE = "it holds NaN or infinity, which no decimal can hold"


class Decimals:
    """Finds the types of a result's decimal columns while their digits pass by.

    One without a declared scale gets the largest that occurs, in 128 bits where all digits fit into 38, else in 256.
    One that holds NaN or infinity is float64 where no number has more digits than a float keeps; else, as where 76
    digits are too few, it stays text.
    """

    def __init__(self, result: Result) -> None:
        self._schema = result.schema
        self._declared = result.decimals
        self._whole = dict.fromkeys(result.decimals, 1)
        self._scale = dict.fromkeys(result.decimals, 0)
        self._not_finite: set[str] = set()

    def look(self, rows: pa.RecordBatch) -> None:
        """Take note of the digits in `rows`."""
        for name, declared in self._declared.items():
            digits = items_of(rows.column(name))
            if digits.null_count == len(digits):
                continue
            finite = _finite(digits)
            if finite is not digits:
                self._not_finite.add(name)
            if declared is None and finite.null_count < len(finite):
                length, point = pc.binary_length(finite), pc.find_substring(finite, ".")
                whole = pc.if_else(pc.less(point, 0), length, point)
                signed = pc.starts_with(finite, "-")
                scale = pc.max(pc.subtract(length, whole)).as_py() - 1
                self._scale[name] = max(self._scale[name], scale)
                self._whole[name] = max(self._whole[name], pc.max(pc.subtract(whole, signed.cast(pa.int32()))).as_py())

    def schema(self) -> pa.Schema:
        """The schema of the result, given all rows looked at."""
        return pa.schema([self._field(field) if field.name in self._declared else field for field in self._schema])

    def notices(self) -> list[Notice]:
        """The columns that are no decimals, given all rows looked at."""
        found = []
        for name in self._declared:
            type_ = self._type(name)
            if name in self._not_finite:
                remedy = f"make it null in the query, as by NULLIF({name}, 'NaN'), or cast it, as by {name}::float8"
                if pa.types.is_list(self._schema.field(name).type):
                    remedy = f"cast it in the query, as by {name}::float8[]"
                found.append(
                    read_as(name, "double", _NOT_FINITE)
                    if pa.types.is_floating(type_)
                    else read_as(
                        name,
                        "text",
                        f"{_NOT_FINITE}, and numbers of more than the {_FLOAT_DIGITS} digits that a double keeps; "
                        f"{remedy}",
                    )
                )
            elif pa.types.is_string(type_):
                found.append(read_as(name, "text", f"{_TOO_LONG}; round them in the query, or cast them"))
        return found

    def _field(self, field: pa.Field) -> pa.Field:
        depth, items = 0, field.type
        while pa.types.is_list(items):
            depth, items = depth + 1, items.value_type
        type_ = list_type(self._type(field.name), depth)
        metadata = dict(field.metadata or {})
        if pa.types.is_string(type_):
            # A model's float can be made of it, as of any number.
            metadata[DIGITS] = b"all"
        return pa.field(field.name, type_, metadata=metadata or None)

    def _type(self, name: str) -> pa.DataType:
        declared = self._declared[name]
        precision, scale = declared or (self._whole[name] + self._scale[name], self._scale[name])
        if name in self._not_finite:
            return pa.float64() if precision <= _FLOAT_DIGITS else pa.string()
        if precision > MAX_DIGITS:
            return pa.string()
        return decimal_type(precision if declared else (38 if precision <= 38 else MAX_DIGITS), scale)


def _finite(digits: pa.StringArray) -> pa.StringArray:
    """`digits` itself, or, where there is one of `NaN`, `Infinity` and `-Infinity`, those that are numbers."""
    letters = pc.match_substring_regex(digits, "[NI]")
    return digits.filter(pc.invert(letters)) if pc.any(letters).as_py() else digits
