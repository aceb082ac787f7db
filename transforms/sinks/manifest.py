"""What a published folder holds and who published it; apart, so that it is read without Beam.

Nothing but data lies in a result, for some readers take any other file for some: its manifest is in the hidden sibling
`.<name>.penstock.json`. That is written before the folder takes its place, and has the manifest of what was there until
then, too: which of them is the folder's is known by the folder's inode and by its files, whose names are unique.
Results of older versions have theirs inside, as `_manifest.json`.
"""

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Where results of older versions have theirs.
MANIFEST = "_manifest.json"
# A folder that is replaced while it is looked at is looked at again; more often than that none is.
_MOST_LOOKS = 10


def manifest_file(folder: Path) -> Path:
    """Where the manifest of a published folder is: beside it, wherever the path of the folder leads."""
    return folder / ".." / f".{os.path.basename(os.path.realpath(folder))}.penstock.json"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a published folder, or None where there is none that is ours. A link is none."""
    for _ in range(_MOST_LOOKS):
        try:
            inode, names = os.stat(folder).st_ino, set(os.listdir(folder))
        except OSError:
            return None
        found = _matching(read_beside(manifest_file(folder)), inode, names)
        if found is None and MANIFEST in names:
            try:
                found = _ours(json.loads(read_plain(folder / MANIFEST)))
            except (OSError, ValueError):
                found = None
        if found is not None or _inode(folder) == inode:
            return found
    return None


def read_beside(file: Path) -> list[dict[str, Any]]:
    """The entries of a file of manifests: `folder`, an inode, and `manifest`. None where there is no such file."""
    try:
        read = json.loads(read_plain(file))
    except (OSError, ValueError):
        return []
    match read:
        case {"results": list(entries)}:
            return [entry for entry in entries if _is_entry(entry)]
    return []


def text_beside(entries: Sequence[dict[str, Any]]) -> bytes:
    """What a file of manifests has in it."""
    return json.dumps({"results": entries}, indent=1).encode()


def entries_for(folder: Path, file: Path) -> list[dict[str, Any]]:
    """Of the entries in `file` that of `folder`, as a list of one or none."""
    try:
        inode, names = os.stat(folder).st_ino, set(os.listdir(folder))
    except OSError:
        return []
    entries = read_beside(file)
    found = _matching(entries, inode, names)
    return [entry for entry in entries if entry["manifest"] is found]


def _matching(entries: Sequence[dict[str, Any]], inode: int, names: set[str]) -> dict[str, Any] | None:
    """The manifest that a folder with such files goes by; one that was copied to its place has another inode."""
    for entry in reversed(entries):
        # A folder of others may have got the inode of one that was removed.
        if entry["folder"] == inode and (not names or not names.isdisjoint(names_in(entry["manifest"]))):
            return _ours(entry["manifest"])
    for entry in reversed(entries):
        listed = names_in(entry["manifest"])
        if listed and names.issuperset(listed):
            return _ours(entry["manifest"])
    return None


def names_in(manifest: dict[str, Any]) -> list[str]:
    """The names of the files that a manifest lists."""
    return [entry["name"] for entry in manifest["files"]]


def _inode(folder: Path) -> int | None:
    try:
        return os.stat(folder).st_ino
    except OSError:
        return None


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("folder"), int) and _ours(entry.get("manifest")) is not None


def read_plain(path: Path) -> bytes:
    """What a plain file holds; of anything else nothing.

    Raises:
        OSError: it is not there, or a link.
    """
    # A pipe without a writer would be waited for.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(fd).st_mode) else b""


def publishers(manifest: dict[str, Any]) -> list[str]:
    """The jobs whose rows the folder shows, in the order in which they published."""
    return [*manifest.get("appended_to", []), manifest["job_id"]]


def _ours(manifest: Any) -> dict[str, Any] | None:
    return manifest if _is_ours(manifest) else None


def _is_ours(manifest: Any) -> bool:
    match manifest:
        case {"job_id": str(), "counts": dict(), "files": list(files)}:
            earlier = manifest.get("appended_to", [])
            return (
                all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in files)
                and isinstance(earlier, list)
                and all(isinstance(job_id, str) for job_id in earlier)
            )
    return False
