"""How much memory a job may take, and how much it takes."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

GB = 2**30
# The host needs a tenth for itself and what else runs there.
_SHARE_OF_HOST = 0.9


@dataclass(frozen=True)
class MemoryBound:
    """The most that a job's process and its children may take.

    Args:
        bytes: of resident memory, together.
        reason: which rule it comes from, for messages.
    """

    bytes: int
    reason: str


def bound_memory(max_memory_gb: float, host_bytes: int) -> MemoryBound:
    """The smaller of what the job asks for and nine tenths of what the host has."""
    asked, given = int(max_memory_gb * GB), int(host_bytes * _SHARE_OF_HOST)
    if asked <= given:
        return MemoryBound(asked, f"config.max_memory_gb is {max_memory_gb:g}")
    return MemoryBound(given, f"nine tenths of this machine's memory are {given / GB:.1f} GB")


def host_memory(cgroup: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's when that is less."""
    return min([psutil.virtual_memory().total, *_cgroup_limits(cgroup, mount)])


def _cgroup_limits(cgroup: Path, mount: Path) -> Iterable[int]:
    """The limits of our control group and all above it: https://docs.kernel.org/admin-guide/cgroup-v2.html, and v1."""
    try:
        lines = cgroup.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, name = (mount, "memory.max") if controllers == "" else (mount / "memory", "memory.limit_in_bytes")
        # Inside a container the path may be the host's; what is mounted there is our own group.
        folder = root / path.strip("/")
        for each in (folder, *folder.parents):
            try:
                text = (each / name).read_text().strip()
            except OSError:
                continue
            if text != "max":
                yield int(text)
            if each == root:
                break


def resident_bytes(process: psutil.Process) -> int:
    """Resident memory of a process and all its children; pages that they share count for each."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
