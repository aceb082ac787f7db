"""Columns that stand in the names of folders, as Hive and Spark write them: `sales/year=2025/city=K%C3%B6ln/part-0`.

They are those of the lowest run of such folders above a file, however much of the path the job's spec has named. So
what a file's columns are can be told by its path alone, and a resumed job comes to the same.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from transforms.errors import InputError
from transforms.sources.conforming import Lossy, conform_exactly

# What Hive and Spark write in place of a null.
_NULL = "__HIVE_DEFAULT_PARTITION__"
_FOLDER = re.compile(r"([^=]+)=(.*)", re.DOTALL)
_ESCAPED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_INT64 = range(-(2**63), 2**63)

Values = dict[str, str | None]


def is_partition(folder: str) -> bool:
    """Whether a folder's name says the value of a column."""
    return _FOLDER.fullmatch(folder) is not None


def partition_of(file: str) -> Values:
    """The columns that the folders of a file say, the outermost first.

    Raises:
        InputError: two folders say the same column, or one is no text.
    """
    found: list[tuple[str, str | None]] = []
    for folder in reversed(file.split(os.sep)[:-1]):
        said = _FOLDER.fullmatch(folder)
        if said is not None:
            name, value = (_unescaped(part, file) for part in said.groups())
            found.append((name, None if value == _NULL else value))
        elif found:
            break
    values = dict(reversed(found))
    if len(values) < len(found):
        twice = next(name for name, _ in found if [each for each, _ in found].count(name) > 1)
        raise InputError(f"{file}: two of its folders say the column {twice!r}; rename one of them")
    return values


@dataclass(frozen=True)
class Partitions:
    """The columns that the folders of all files of a job say.

    Args:
        types: of the columns, the outermost folder's first.
    """

    types: Mapping[str, pa.DataType]

    @classmethod
    def of(cls, files: Sequence[str], declared: Mapping[str, pa.DataType]) -> "Partitions":
        """Look at the paths of all files: int64 where each value is an integer's own text, text otherwise.

        Args:
            declared: types that columns are to have.

        Raises:
            InputError: two files have folders of different columns, or a value is not of the declared type.
        """
        names: tuple[str, ...] = ()
        said: dict[str, dict[str | None, str]] = {}
        known: dict[str, Values] = {}
        for number, file in enumerate(files):
            folder = os.path.dirname(file)
            if folder in known:
                continue
            values = known[folder] = partition_of(file)
            if not number:
                names = tuple(values)
            elif set(values) != set(names):
                raise InputError(
                    f"{file} lies in folders of {_listed(values)}, but {files[0]} in folders of {_listed(names)}; "
                    "score them in jobs of their own"
                )
            for name, value in values.items():
                said.setdefault(name, {}).setdefault(value, file)
        types = {name: declared.get(name) or _type_of(list(said[name])) for name in names}
        for name, type in types.items():
            for value, file in said[name].items():
                partition_value(name, value, type, file)
        return cls(types)


def partition_value(name: str, value: str | None, type: pa.DataType, file: str) -> pa.Scalar:
    """A value that a folder says, under the type of its column.

    Raises:
        InputError: it is none of that type.
    """
    if value is None:
        return pa.scalar(None, type)
    text = pa.array([value])
    try:
        if pa.types.is_timestamp(type) and type.tz is not None and not re.search(r"(Z|[+-]\d\d:?\d\d)$", value):
            return pc.assume_timezone(text.cast(pa.timestamp(type.unit)), type.tz)[0]
        return conform_exactly(text, type)[0] if pa.types.is_floating(type) else text.cast(type)[0]
    except (Lossy, pa.ArrowException) as error:
        raise InputError(
            f"{file}: its folder says {value!r} of column {name!r}, which is no {type}; give input.schema another type"
        ) from error


def _type_of(values: Sequence[str | None]) -> pa.DataType:
    given = [value for value in values if value is not None]
    return pa.int64() if given and all(map(_is_integer, given)) else pa.string()


def _is_integer(text: str) -> bool:
    # No int64 has more digits, and Python takes long over very many.
    return len(text) <= 20 and re.fullmatch(r"0|-?[1-9][0-9]*", text) is not None and int(text) in _INT64


def _unescaped(text: str, file: str) -> str:
    """Text without its escapes: those are bytes of UTF-8, or, as Hive writes them, numbers of characters."""

    def plain(found: re.Match[str]) -> str:
        data = bytes.fromhex(found[0].replace("%", ""))
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data.decode("latin-1")

    whole = _ESCAPED.sub(plain, text)
    try:
        whole.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{file!r}: the name of its folder is not UTF-8; rename it") from error
    return whole


def _listed(names: Mapping[str, str | None] | Sequence[str]) -> str:
    return f"the columns {', '.join(map(repr, names))}" if names else "no column"
