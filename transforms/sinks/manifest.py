"""The file that says what a published folder holds and who published it; apart, so that it is read without Beam."""

import json
import os
import stat
from pathlib import Path
from typing import Any

MANIFEST = "_manifest.json"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a published folder, or None where there is none that is ours. A link is none."""
    try:
        manifest = json.loads(read_plain(folder / MANIFEST))
    except (OSError, ValueError):
        return None
    return manifest if _is_ours(manifest) else None


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
