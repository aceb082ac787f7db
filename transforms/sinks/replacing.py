"""What may go when a folder is replaced whole: a result, never another file that somebody put there.

A folder with a manifest of ours is a result of the files that it names. One without is a result, of Spark, say, if it
holds nothing but Parquet files, in folders by partition or not, and what Spark puts beside them.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transforms.sinks.manifest import MANIFEST, names_in, publishers, read_manifest

# A file that older versions did not list: that of a result without rows.
_UNLISTED = re.compile(r"part-00000-(.+)-[0-9a-f]{12}\.parquet")
_PARTITION = re.compile(r"[^=]+=[^=]*")
# Empty, or a few words of JSON.
_MARKER = re.compile(r"_SUCCESS|_(?:started|committed)_\d+")
_MARKER_BYTES = 1024 * 1024
_MAGIC = (b"PAR1", b"PARE")


def files_to_replace(content: Path) -> tuple[list[str], str | None]:
    """The files of a folder, by their paths in it, and the first thing in it that is none of the result's.

    Raises:
        OSError: as the system says.
    """
    manifest = read_manifest(content)
    files: list[str] = []
    foreign: list[str] = []
    listed = set() if manifest is None else _listed(manifest)
    for path, entry in _walked(content):
        if entry.is_dir(follow_symlinks=False):
            if manifest is not None or not _PARTITION.fullmatch(entry.name):
                foreign.append(f"{path}{os.sep}")
            continue
        files.append(path)
        if not (path in listed or _is_unlisted(path, manifest) if manifest is not None else _is_format_file(entry)):
            foreign.append(path)
    return sorted(files), min(foreign, default=None)


def _walked(folder: Path, above: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder / above) as entries:
        for entry in entries:
            path = os.path.join(above, entry.name)
            yield path, entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walked(folder, path)


def _listed(manifest: dict[str, Any]) -> set[str]:
    return {*names_in(manifest), MANIFEST}


def _is_unlisted(path: str, manifest: dict[str, Any]) -> bool:
    match = _UNLISTED.fullmatch(path)
    return match is not None and not manifest["files"] and match[1] in publishers(manifest)


def _is_format_file(entry: os.DirEntry[str]) -> bool:
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return False
    if _MARKER.fullmatch(entry.name):
        return status.st_size <= _MARKER_BYTES
    with open(os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        head = file.read(4)
        if entry.name.startswith(".") and entry.name.endswith(".crc"):
            # A checksum that Hadoop keeps beside each file.
            return head == b"crc\0"
        if head not in _MAGIC:
            return False
        file.seek(-4, os.SEEK_END)
        return file.read(4) in _MAGIC


def remove_files(folder: Path, files: list[str]) -> None:
    """Remove these files, by their paths in a folder, and the folders in it that are empty then."""
    for path in files:
        (folder / path).unlink(missing_ok=True)
    below = [path for path, entry in _walked(folder) if entry.is_dir(follow_symlinks=False)]
    for path in sorted(below, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(folder / path)
