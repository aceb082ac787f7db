"""Reading a job's log, line by line, while it may still be written."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from launcher.joblog import Layout

# How often a log that is followed is looked at, and how much of it is read at once.
_LOOK_S = 0.2
_READ_BYTES = 1024 * 1024


class Lines(NamedTuple):
    """A piece of a log: whole lines, where the next begins, and whether this is the end."""

    lines: list[str]
    next_offset: int
    at_end: bool


def read_lines(path: Path, offset: int, limit_bytes: int, tail: int | None, is_over: bool) -> Lines:
    """Whole lines of a log; the last one may lack its end once nobody writes any more."""
    try:
        # Not through a link: whatever ran in the job's folder may have put one there.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return Lines([], 0, True)
    with open(fd, "rb") as file:
        layout = Layout.of(fd)
        size = layout.size
        start = max(0, size - limit_bytes) if tail is not None else layout.place(offset)
        file.seek(start)
        asked = layout.whole(start, start + limit_bytes) - start
        data = file.read(asked)
    at_end = start + len(data) >= size
    if not (is_over and at_end):
        # A line that is longer than what is read comes in pieces.
        cut = data.rfind(b"\n") + 1 or (len(data) if len(data) == asked else 0)
        data = data[: layout.whole(start, start + cut) - start]
    lines = data.decode(errors="replace").split("\n")
    if lines[-1] == "":
        lines.pop()
    if tail is not None:
        lines = (lines[1:] if start and len(lines) > 1 else lines)[-tail:]
    end = start + len(data)
    return Lines(lines, layout.offset(end), end >= size)


def lines_of(path: Path, tail: int | None, is_over: Callable[[], bool], follow: bool) -> Iterator[str]:
    """The lines of a log; with `follow` those to come, too, until it is over.

    Args:
        tail: begin with this many lines before the end.
        is_over: whether nobody writes any more.
    """
    offset = 0
    while True:
        # Looked at before the log, so that nothing is missed of a job that ends just now.
        over = is_over()
        found = read_lines(path, offset, _READ_BYTES, tail, over or not follow)
        yield from found.lines
        stands_still = found.next_offset == offset and tail is None
        offset, tail = found.next_offset, None
        if found.at_end and (over or not follow):
            return
        if stands_still or found.at_end:
            time.sleep(_LOOK_S)
