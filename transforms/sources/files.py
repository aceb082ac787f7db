"""Parquet files: which of them a job reads, and what their footers say. Apart from the source, which needs Beam."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.errors import InputError


def find_files(paths: Sequence[str]) -> list[str]:
    """The files that `paths` name, sorted, each once: a file, a glob, or a folder that is searched for `*.parquet`.

    Hidden files and folders, and those that begin with an underscore, are left out of folders.

    Raises:
        InputError: a path names nothing.
    """
    return sorted(set(named_files(paths)))


def named_files(paths: Sequence[str]) -> Iterator[str]:
    """What `find_files` finds, as it is found: in any order, and a file that two paths name comes twice.

    Raises:
        InputError: a path names nothing; raised in its turn.
    """
    for path in paths:
        if os.path.isdir(path):
            found = (str(file) for file in Path(path).rglob("*.parquet") if _is_data(file.relative_to(path)))
            nothing = "the folder holds no *.parquet file"
        elif glob.has_magic(path) and not os.path.exists(path):
            found = (file for file in glob.iglob(path, recursive=True) if os.path.isfile(file))
            nothing = "no file matches the pattern"
        else:
            found = (file for file in (path,) if os.path.isfile(file))
            nothing = "there is no such file or folder"
        first = next(found, None)
        if first is None:
            raise InputError(f"input.path {path}: {nothing}")
        yield first
        yield from found


def open_alike(files: Iterable[str]) -> Iterator[pq.ParquetFile]:
    """Open files, one after the other, all of which must have the columns of the first.

    Raises:
        InputError: a file is gone or is not readable Parquet, two differ in their columns, or two columns of a file
            have one name; raised in its turn.
    """
    schema, first = None, ""
    for file in files:
        opened = open_file(file)
        own = opened.schema_arrow.remove_metadata()
        if schema is None:
            schema, first = own, file
            _check_names(schema, file)
        else:
            _check_same(schema, own, first, file)
        yield opened


def open_file(file: str) -> pq.ParquetFile:
    """Open a file; only its footer is read.

    Raises:
        InputError: there is no such file, or it is not readable Parquet.
    """
    try:
        return pq.ParquetFile(file, memory_map=True)
    except FileNotFoundError as error:
        raise InputError(f"{file}: there is no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error


def unreadable(file: str, error: Exception) -> InputError:
    """What is said of a file that `error` came of."""
    return InputError(f"{file} is not a readable Parquet file: {' '.join(str(error).split())}")


def _is_data(path: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in path.parts)


def _check_names(schema: pa.Schema, file: str) -> None:
    if len(set(schema.names)) < len(schema):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise InputError(f"{file}: two columns are named {twice!r}; give each its own name")


def _check_same(schema: pa.Schema, other: pa.Schema, first: str, file: str) -> None:
    remedy = "all files of a job need the same columns under the same types"
    missing = [name for name in schema.names if name not in other.names]
    more = [name for name in other.names if name not in schema.names]
    if missing:
        raise InputError(f"{file}: column {missing[0]!r} of {first} is missing; {remedy}")
    if more:
        raise InputError(f"{file}: column {more[0]!r} is not in {first}; {remedy}")
    for name in schema.names:
        given, wanted = other.field(name).type, schema.field(name).type
        if not given.equals(wanted):
            raise InputError(f"{file}: column {name!r} is {given}, but {wanted} in {first}; {remedy}")
