"""What is scored and not noted yet in this process, so that whoever ends it can have it staged first.

A bundle that is cut off, by an error or by the end of its process, leaves spans behind: scored ones that wait for their
turn, and those of parts that are still open. They are staged from here, and need not be scored again.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, wait
from typing import Any, Protocol

from transforms.batches import ScoredSpan

# More threads than this do not write faster.
_MOST_WRITERS = 4

_log = logging.getLogger(__name__)


class Holder(Protocol):
    """A step of the graph that has spans in hand while a bundle is under way. Asked from another thread."""

    def held(self) -> list[ScoredSpan]:
        """The spans that are scored; the step keeps them, too. Never blocks."""


class Writer(Holder, Protocol):
    """The step that stages. Spans that are noted already, or meanwhile, are no trouble to it."""

    def write(self, spans: list[ScoredSpan]) -> object:
        """Stage spans of one split and note them."""

    def writing(self) -> Collection[Future[Any]]:
        """Parts that are being written."""


class Pending:
    """The steps of one process that have spans in hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: list[Holder] = []
        self._writers: list[Writer] = []

    def scores(self, holder: Holder) -> None:
        """A step that scores begins a bundle."""
        with self._lock:
            self._holders = [*(each for each in self._holders if each is not holder), holder]

    def stages(self, writer: Writer) -> None:
        """A step that stages begins a bundle."""
        with self._lock:
            self._writers = [*(each for each in self._writers if each is not writer), writer]

    def done(self, step: object) -> None:
        """A step has ended its bundle, and has nothing in hand any more."""
        with self._lock:
            self._holders = [holder for holder in self._holders if holder is not step]
            self._writers = [writer for writer in self._writers if writer is not step]

    def stage(self, patience_s: float) -> None:
        """Stage what the steps have in hand, as far as it can be done in time, and forget them.

        What cannot be staged is only told to the log: it will be scored again.
        """
        until = time.monotonic() + patience_s
        with self._lock:
            holders, writers = self._holders, self._writers
            self._holders, self._writers = [], []
        if not writers:
            return
        parts = _by_split(scored for holder in (*holders, *writers) for scored in holder.held())
        todo: queue.SimpleQueue[list[ScoredSpan]] = queue.SimpleQueue()
        for part in parts:
            todo.put(part)
        count = min(len(parts), os.cpu_count() or 1, _MOST_WRITERS)
        threads = [_started(writers[-1].write, todo) for _ in range(count)]
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        wait([future for writer in writers for future in writer.writing()], max(0.0, until - time.monotonic()))


def _by_split(spans: Iterable[ScoredSpan]) -> list[list[ScoredSpan]]:
    """Spans by their split, each once."""
    by_split: dict[str, dict[int, ScoredSpan]] = {}
    for scored in spans:
        by_split.setdefault(scored.span.split.id, {})[scored.span.start] = scored
    return [list(part.values()) for part in by_split.values()]


def _started(
    write: Callable[[list[ScoredSpan]], object], todo: "queue.SimpleQueue[list[ScoredSpan]]"
) -> threading.Thread:
    def work() -> None:
        while True:
            try:
                spans = todo.get_nowait()
            except queue.Empty:
                return
            try:
                write(spans)
            except Exception as error:
                _log.warning("%d scored spans could not be kept: %s", len(spans), " ".join(str(error).split()))

    # Not waited for at the end of the process, should a destination hang.
    thread = threading.Thread(target=work, name="keep", daemon=True)
    thread.start()
    return thread


# The steps of this process.
PENDING = Pending()
