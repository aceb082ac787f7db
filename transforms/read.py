"""Read: splits become batches, ahead of those who ask for them, without the spans that are noted already."""

import queue
import threading
import time
from collections.abc import Iterator

import apache_beam as beam

from predictors.pressure import PRESSURE
from transforms.batches import Batch, Split
from transforms.coders import register_coders
from transforms.ledger import Ledger, first_gap
from transforms.sources.base import Source
from transforms.telemetry import Telemetry

register_coders()

# Spans that may lie ready before they are asked for; enough to bridge a wait, few enough to stay flat in memory.
_AHEAD = 3
# How soon a thread notices what nobody wakes it for.
_POLL_S = 0.1


def read_unnoted(source: Source, ledger: Ledger, split: Split, columns: tuple[str, ...]) -> Iterator[Batch]:
    """The spans of `split` that `ledger` lacks, in order. Reading starts at the first of them."""
    noted = ledger.noted(split.id)
    start = first_gap(split, noted)
    if start is None:
        return
    starts = {note.start for note in noted}
    for batch in source.read(split, columns, start):
        if batch.span.start not in starts:
            yield batch


class Read(beam.PTransform):
    """Read the spans of each split that are not noted yet.

    Args:
        source: where the rows are.
        columns: which of them, in this order.
        ledger: what is done already.
        telemetry: where progress is counted.
    """

    def __init__(self, source: Source, columns: tuple[str, ...], ledger: Ledger, telemetry: Telemetry) -> None:
        super().__init__()
        self._read = _ReadFn(source, columns, ledger, telemetry)

    def expand(self, splits: beam.PCollection[Split]) -> beam.PCollection[Batch]:
        return splits | "ReadSplit" >> beam.ParDo(self._read)


class _ReadFn(beam.DoFn):
    def __init__(self, source: Source, columns: tuple[str, ...], ledger: Ledger, telemetry: Telemetry) -> None:
        self._source = source
        self._columns = columns
        self._ledger = ledger
        self._telemetry = telemetry

    def process(self, split: Split) -> Iterator[Batch]:
        counters = self._telemetry.counters()
        for batch, read_s in _ahead(read_unnoted(self._source, self._ledger, split, self._columns)):
            counters.add(rows_read=batch.span.rows, read_s=read_s)
            yield batch


def _ahead(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Pull `batches` in a thread of their own, a few in advance; with each come the seconds that it took.

    While memory is short none is pulled in advance: the next one only when somebody waits for it. So the job goes on,
    slowly, even where the pressure never ends.

    An error is raised where the batch would have come. Closing the iterator ends the thread.
    """
    ready: queue.Queue[tuple[Batch | BaseException | None, float]] = queue.Queue(maxsize=_AHEAD)
    # Nothing lies ready, and somebody waits.
    awaited = threading.Event()
    closed = threading.Event()

    def put(item: Batch | BaseException | None, seconds: float) -> bool:
        awaited.clear()
        while not closed.is_set():
            try:
                ready.put((item, seconds), timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False

    def hold_back() -> None:
        """Wait until reading in advance is fine again, or it would not be in advance."""
        while PRESSURE.is_high and not closed.is_set() and not awaited.wait(_POLL_S):
            continue

    def pull() -> None:
        began = time.perf_counter()
        try:
            for batch in batches:
                if not put(batch, time.perf_counter() - began):
                    return
                hold_back()
                began = time.perf_counter()
            put(None, 0.0)
        except BaseException as error:
            put(error, 0.0)

    def take() -> tuple[Batch | BaseException | None, float]:
        if ready.empty():
            awaited.set()
        taken = ready.get()
        awaited.clear()
        return taken

    thread = threading.Thread(target=pull, name="read", daemon=True)
    thread.start()
    try:
        while True:
            item, seconds = take()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item, seconds
    finally:
        closed.set()
        thread.join()
