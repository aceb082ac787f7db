"""Parquet files: which of them a job reads, and what their footers say. Apart from the source, which needs Beam."""

import glob
import math
import os
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from predictors.bounds import Bounds, LedElsewhere, at
from transforms.errors import InputError
from transforms.sources.walking import check_time, walk_folder, walk_pattern


def find_files(paths: Sequence[str]) -> list[str]:
    """The files that `paths` name, sorted, each once: a file, a glob, or a folder that is searched for `*.parquet`.

    Hidden files and folders, and those that begin with an underscore, are left out of folders.

    Raises:
        InputError: a path names nothing.
    """
    return sorted(set(named_files(paths)))


def named_files(paths: Sequence[str], deadline: float = math.inf) -> Iterator[str]:
    """What `find_files` finds, as it is found: in any order, and a file that two paths name comes twice.

    Args:
        deadline: until when to look, as `time.monotonic` tells the time.

    Raises:
        InputError: a path names nothing; raised in its turn.
        TimeoutError: there was more to look at; raised in its turn. A file system that does not answer is waited for.
    """
    for path in paths:
        check_time(deadline)
        if os.path.isdir(path):
            found = walk_folder(path, deadline)
            nothing = "the folder holds no *.parquet file"
        elif glob.has_magic(path) and not os.path.exists(path):
            found = walk_pattern(path, deadline)
            nothing = "no file matches the pattern"
        else:
            found = (file for file in (path,) if os.path.isfile(file))
            nothing = "there is no such file or folder"
        first = next(found, None)
        if first is None:
            raise InputError(f"input.path {path}: {nothing}")
        yield first
        yield from found


def open_alike(files: Iterable[str], within: Bounds | None = None) -> Iterator[pq.ParquetFile]:
    """Open files, one after the other, all of which must have the columns of the first.

    Args:
        within: where they have to lie, wherever their names lead; None: anywhere.

    Raises:
        InputError: a file is gone, lies elsewhere or is not readable Parquet, two differ in their columns, or two
            columns of a file have one name; raised in its turn.
    """
    schema, first = None, ""
    for file in files:
        opened = open_file(file, within)
        own = opened.schema_arrow.remove_metadata()
        if schema is None:
            schema, first = own, file
            _check_names(schema, file)
        else:
            _check_same(schema, own, first, file)
        yield opened


def open_file(file: str, within: Bounds | None = None) -> pq.ParquetFile:
    """Open a file; only its footer is read.

    Args:
        within: as `open_alike` takes it.

    Raises:
        InputError: there is no such file, it lies elsewhere, or it is not readable Parquet.
    """
    try:
        if within is None:
            return pq.ParquetFile(file, memory_map=True)
        with within.opened(file) as fd:
            return pq.ParquetFile(at(fd), memory_map=True)
    except LedElsewhere as error:
        # What lies behind a link is not told, not even its name.
        raise InputError(
            "input.path leads to a file outside of the folders that a request may name; leave out what links elsewhere"
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"{file}: there is no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error


def unreadable(file: str, error: Exception) -> InputError:
    """What is said of a file that `error` came of."""
    return InputError(f"{file} is not a readable Parquet file: {' '.join(str(error).split())}")


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
