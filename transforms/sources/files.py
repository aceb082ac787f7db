"""Parquet files: which of them a job reads, and what their footers say. Apart from the source, which needs Beam."""

import glob
import math
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from predictors.bounds import Bounds, LedElsewhere, at
from predictors.notices import Notice
from transforms.errors import InputError
from transforms.sources.fixedlists import without_arrow_schema
from transforms.sources.walking import PassedOver, check_time, is_named_parquet, walk_folder, walk_pattern

Unit = Literal["s", "ms", "us", "ns"]

_PLAIN, _ENCRYPTED = b"PAR1", b"PARE"
_MAGIC = (_PLAIN, _ENCRYPTED)
# Footers of other files, gathered; their rows lie elsewhere.
_SUMMARIES = ("_metadata", "_common_metadata")


def find_files(paths: Sequence[str], within: Bounds | None = None, passed: PassedOver | None = None) -> list[str]:
    """The files that `paths` name, sorted, each once, however it is spelled; see `named_files`.

    Raises:
        InputError: a path names nothing, or a pattern what is no Parquet file.
    """
    return each_once(named_files(paths, within=within, passed=passed))


def each_once(files: Iterable[str]) -> list[str]:
    """Files sorted, those that are named twice once.

    One that a folder has under two names is two files, as it is for whoever reads that folder.
    """
    folders: dict[str, str] = {}
    found: dict[tuple[str, str], str] = {}
    for file in sorted(set(files)):
        folder, name = os.path.split(file)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        found.setdefault((folders[folder], name), file)
    return list(found.values())


def named_files(
    paths: Sequence[str],
    deadline: float = math.inf,
    within: Bounds | None = None,
    passed: PassedOver | None = None,
) -> Iterator[str]:
    """The files that `paths` name, as they are found: in any order, and a file that two paths name comes twice.

    A path is a file, a folder that is searched for Parquet files, or a pattern of files and folders. In folders, files
    are known by their first and last bytes, whatever they are called; one that says by its name that it is Parquet
    comes even where it is none, to be refused. Hidden ones, and those that begin with an underscore, are left out.

    Args:
        deadline: until when to look, as `time.monotonic` tells the time.
        within: where files may be looked at, wherever their names lead; those elsewhere come, to be refused.
        passed: gets what is left out of folders.

    Raises:
        InputError: a path names nothing; raised in its turn.
        TimeoutError: there was more to look at; raised in its turn. A file system that does not answer is waited for.
    """
    passed = passed if passed is not None else PassedOver()

    def is_data(path: str) -> bool:
        return is_named_parquet(path) or _looks_like_data(path, within)

    def of_pattern(pattern: str) -> Iterator[str]:
        for path in walk_pattern(pattern.rstrip(os.sep), deadline, folders=True, passed=passed):
            if os.path.isdir(path):
                yield from walk_folder(path, deadline, is_data, passed)
            elif not _is_beside_data(path, pattern, within):
                yield path

    for path in paths:
        check_time(deadline)
        if os.path.isdir(path):
            found = walk_folder(path, deadline, is_data, passed)
            nothing = "the folder holds no Parquet file"
        elif glob.has_magic(path) and not os.path.exists(path):
            found = of_pattern(path)
            nothing = "no file matches the pattern"
        else:
            found = (file for file in (path,) if os.path.isfile(file))
            nothing = "there is no such file or folder"
        first = next(found, None)
        if first is None:
            raise InputError(f"input.path {path}: {nothing}")
        yield first
        yield from found


def passed_notices(passed: PassedOver) -> list[Notice]:
    """What there is to say of what was left out of folders."""
    said = (
        ("files that are no Parquet files were passed over", passed.first_files, passed.files, ""),
        ("links to folders are not followed", passed.first_links, passed.links, "; name in input.path what they name"),
        ("folders that may not be read were passed over", passed.first_closed, passed.closed, ""),
    )
    logs = [
        Notice(
            "table_log_passed_over",
            f"input.path: {log} is the log of a table, and is not read: files are read as they lie, also those that the"
            " table no longer has; export one version of it",
        )
        for log in passed.first_logs[:1]
    ]
    return logs + [
        Notice("files_passed_over", f"input.path: {what}, such as {', '.join(first)}{remedy}", count)
        for what, first, count, remedy in said
        if count
    ]


def _looks_like_data(path: str, within: Bounds | None) -> bool:
    """Whether a file begins or ends as Parquet does; also if it may not be opened, so that it is not missed unseen."""
    try:
        head, tail = _ends(path, within)
    except LedElsewhere:
        # A pipe, or a file that a job is to refuse.
        return os.path.isfile(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return head in _MAGIC or tail[-4:] in _MAGIC


def _is_beside_data(path: str, pattern: str, within: Bounds | None) -> bool:
    """Whether a file that a wildcard matches is what writers lay beside their data: `_SUCCESS`, `_metadata`."""
    name = os.path.basename(path)
    if not name.startswith("_") or os.path.basename(pattern).startswith("_"):
        return False
    return name in _SUMMARIES or not (is_named_parquet(path) or _looks_like_data(path, within))


def _ends(path: str, within: Bounds | None) -> tuple[bytes, bytes]:
    """The first four and the last eight bytes of a file; nothing of one that is no plain file."""
    if within is not None:
        with within.opened(path) as fd:
            return _ends_of(fd)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        return _ends_of(fd)
    finally:
        os.close(fd)


def _ends_of(fd: int) -> tuple[bytes, bytes]:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return b"", b""
    return os.pread(fd, 4, 0), os.pread(fd, 8, max(status.st_size - 8, 0))


def open_file(
    file: str, within: Bounds | None = None, int96_unit: Unit = "ns", plain_lists: bool = False
) -> pq.ParquetFile:
    """Open a file; only its footer is read. Pages are held against their checksums, where they have any.

    Args:
        within: where it has to lie, wherever its name leads; None: anywhere.
        int96_unit: in which times of INT96 are read. Those that do not fit it wrap, or lose digits.
        plain_lists: whether columns come under the types that Parquet itself has; lists then have no fixed size.

    Raises:
        InputError: there is no such file, it lies elsewhere, or it is not readable Parquet.
    """
    try:
        if within is None:
            return _opened(file, int96_unit, plain_lists)
        with within.opened(file) as fd:
            return _opened(at(fd), int96_unit, plain_lists)
    except LedElsewhere as error:
        # What lies behind a link is not told, not even its name.
        raise InputError(
            "input.path leads to a file outside of the folders that a request may name; leave out what links elsewhere"
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"{file}: there is no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise _no_parquet(file, within, error) from error


def _opened(path: str, int96_unit: Unit, plain_lists: bool) -> pq.ParquetFile:
    return pq.ParquetFile(
        path,
        memory_map=True,
        coerce_int96_timestamp_unit=int96_unit,
        page_checksum_verification=True,
        metadata=without_arrow_schema(_footer(path)) if plain_lists else None,
    )


def _footer(path: str) -> bytes:
    """What stands behind a file's pages, its length and the last four bytes included."""
    with open(path, "rb") as opened:
        opened.seek(-8, os.SEEK_END)
        length = int.from_bytes(opened.read(4), "little") + 8
        opened.seek(-length, os.SEEK_END)
        return opened.read()


def fingerprint(file: str) -> str:
    """What a file looks like, to tell whether it was changed since."""
    status = os.stat(file)
    return f"{status.st_size}:{status.st_mtime_ns}"


def unreadable(file: str, error: Exception) -> InputError:
    """What is said of a file that `error` came of."""
    reason = " ".join(str(error).split())
    if "decrypt" in reason:
        return InputError(f"{file}: a column is encrypted, and Penstock has no key; leave it out, or decrypt the file")
    if "CRC checksum" in reason:
        reason = f"a page is not as it was written ({reason}); copy or write the file anew"
    return InputError(f"{file} is not a readable Parquet file: {reason}")


def _no_parquet(file: str, within: Bounds | None, error: Exception) -> InputError:
    """What is said of a file that cannot be opened, as far as its ends say more than `error` does."""
    try:
        head, tail = _ends(file, within)
    except OSError:
        return unreadable(file, error)
    if not tail:
        return InputError(f"{file} is not a readable Parquet file: it is empty; remove it, or copy it anew")
    tail = tail[-4:]
    readable = f"{file} is not a readable Parquet file"
    if head == _ENCRYPTED or tail == _ENCRYPTED:
        return InputError(f"{readable}: its footer is encrypted, and Penstock has no key; decrypt it")
    if head == _PLAIN and tail != _PLAIN:
        return InputError(f"{readable}: its end is missing; copy it anew, or wait until it is written")
    if head not in _MAGIC and tail not in _MAGIC:
        return InputError(f"{readable}: it neither begins nor ends as one; name Parquet files alone in input.path")
    return unreadable(file, error)


def encrypted_columns(opened: pq.ParquetFile, file: str, within: Bounds | None) -> list[str]:
    """Columns of a file that cannot be read without a key, though its footer can."""
    _, tail = _ends(file, within)
    # A footer that speaks of encryption is followed by its signature.
    if int.from_bytes(tail[:4], "little") == opened.metadata.serialized_size or not opened.metadata.num_row_groups:
        return []
    return [name for name in opened.schema_arrow.names if _needs_key(opened, name)]


def _needs_key(opened: pq.ParquetFile, column: str) -> bool:
    try:
        next(opened.iter_batches(batch_size=1, row_groups=[0], columns=[column]), None)
    except (pa.ArrowException, OSError) as error:
        # Whatever else is wrong with the column is said where it is read.
        return "decrypt" in str(error)
    return False


def chunks_of(opened: pq.ParquetFile, columns: Collection[str]) -> Iterator[pq.ColumnChunkMetaData]:
    """What the footer says of the chunks of `columns`. Nothing else of it is looked at: pyarrow ends the process where
    the footer of a chunk is encrypted.
    """
    metadata = opened.metadata
    tops = _tops(opened)
    wanted = [index for index, name in enumerate(tops) if name in columns]
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in wanted:
            yield row_group.column(index)


def _tops(opened: pq.ParquetFile) -> list[str]:
    """The column that each leaf of a file belongs to, in the order of the leaves."""
    leaves = [field.name for field in opened.schema_arrow for _ in range(_leaves(field.type))]
    if len(leaves) == len(opened.schema):
        return leaves
    return [opened.schema.column(index).path.split(".")[0] for index in range(len(opened.schema))]


def _leaves(type: pa.DataType) -> int:
    if isinstance(type, pa.BaseExtensionType):
        return _leaves(type.storage_type)
    if pa.types.is_dictionary(type):
        return 1
    return sum(_leaves(type.field(number).type) for number in range(type.num_fields)) if type.num_fields else 1
