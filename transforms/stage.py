"""Stage: scored spans become durable parts, noted as they go, never only at the end of a bundle."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from transforms.batches import ScoredSpan
from transforms.coders import register_coders
from transforms.errors import RowsRefused
from transforms.ledger import Note, without_noted
from transforms.pending import PENDING
from transforms.refusals import without_refused
from transforms.rejects import RejectFolder
from transforms.sinks.base import Sink
from transforms.telemetry import Telemetry

register_coders()


@dataclass(frozen=True)
class PartBounds:
    """When a part is closed: at the first of these, as soon as the next span is scored.

    Args:
        rows: a part of this many rows makes one good Parquet row group.
        size_bytes: keeps what is buffered flat, however wide the rows.
        seconds: what may be lost when the process ends before the job does,
        share: or this part of the time since the bundle began, if that is more, so that a slow job of many hours leaves
            some hundred files and not thousands;
        most_seconds: but then no more than this.
    """

    rows: int = 1_048_576
    size_bytes: int = 64 * 1024 * 1024
    seconds: float = 10.0
    share: float = 1 / 32
    most_seconds: float = 120.0


class Staged(NamedTuple):
    """A part was noted: how many rows of which split. What the barrier before publishing waits for."""

    split: str
    rows: int


@dataclass
class _Part:
    """Spans of one split that wait to be staged together."""

    opened_at: float
    spans: list[ScoredSpan] = field(default_factory=list)
    rows: int = 0
    size_bytes: int = 0

    def add(self, scored: ScoredSpan) -> None:
        self.spans.append(scored)
        self.rows += scored.span.rows
        self.size_bytes += scored.size_bytes


def stage_part(sink: Sink, rejects: RejectFolder, spans: list[ScoredSpan]) -> list[Note]:
    """Make spans of one split durable and note them, save those that somebody has noted before or meanwhile.

    Rows that the sink refuses are rejected.

    Returns:
        The notes that were made; those of the others were made elsewhere.
    """
    split_id = spans[0].span.split.id
    # Where nothing is fused they come in any order.
    spans = sorted(spans, key=lambda scored: scored.span.start)
    while spans := without_noted(spans, sink.noted(split_id)):
        rejected = rejects.stage(spans)
        try:
            notes = sink.stage(spans, rejected)
        except RowsRefused as refused:
            # Rejects are durable before the note that names them, so all of the part is staged again.
            rejects.unstage(rejected)
            spans = without_refused(spans, refused.rows, rejects.source)
            continue
        if notes is not None:
            return notes
        rejects.unstage(rejected)
    return []


class Stage(beam.PTransform):
    """Make scored spans durable and note them; emits what was noted.

    Parts are encoded and synced in threads beside the scoring, a few at a time. When a bundle ends without an error,
    every span of it is noted.
    """

    def __init__(
        self, sink: Sink, rejects: RejectFolder, telemetry: Telemetry, bounds: PartBounds | None = None
    ) -> None:
        super().__init__()
        self._stage = _StageFn(sink, rejects, telemetry, bounds or PartBounds())

    def expand(self, scored: beam.PCollection[ScoredSpan]) -> beam.PCollection[Staged]:
        return scored | "StageSpan" >> beam.ParDo(self._stage)


class _StageFn(beam.DoFn):
    def __init__(self, sink: Sink, rejects: RejectFolder, telemetry: Telemetry, bounds: PartBounds) -> None:
        self._sink = sink
        self._rejects = rejects
        self._telemetry = telemetry
        self._bounds = bounds
        self._clock: Callable[[], float] = time.monotonic

    def setup(self) -> None:
        # Encoding and syncing overlap with scoring on every core, and with each other.
        self._writers = min(os.cpu_count() or 1, 4)
        self._threads = ThreadPoolExecutor(self._writers, thread_name_prefix="stage")

    def start_bundle(self) -> None:
        self._began = self._clock()
        self._open: dict[str, _Part] = {}
        self._writing: deque[Future[Staged]] = deque()
        PENDING.stages(self)

    def process(self, scored: ScoredSpan) -> Iterator[Staged]:
        now = self._clock()
        split_id = scored.span.split.id
        part = self._open.setdefault(split_id, _Part(now))
        part.add(scored)
        if scored.span.last:
            yield from self._close(split_id)
        for split_id in [split_id for split_id, part in self._open.items() if self._is_full(part, now)]:
            yield from self._close(split_id)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for split_id in list(self._open):
            for staged in self._close(split_id):
                yield _in_global_window(staged)
        while self._writing:
            yield _in_global_window(self._next())
        PENDING.done(self)

    def held(self) -> list[ScoredSpan]:
        """The spans of the parts that are open."""
        return [scored for part in list(self._open.values()) for scored in list(part.spans)]

    def writing(self) -> list[Future[Staged]]:
        """The parts that are being written."""
        return list(self._writing)

    def write(self, spans: list[ScoredSpan]) -> Staged:
        """Stage spans of one split, and count them."""
        began = time.perf_counter()
        notes = stage_part(self._sink, self._rejects, spans)
        staged = sum(note.stop - note.start for note in notes)
        refused = _refused(spans, notes)
        self._telemetry.counters().add(
            staged=staged, scored=-refused, rejected=refused, write_s=time.perf_counter() - began
        )
        return Staged(spans[0].span.split.id, sum(note.scored for note in notes))

    def teardown(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _is_full(self, part: _Part, now: float) -> bool:
        bounds = self._bounds
        seconds = max(bounds.seconds, min(bounds.share * (now - self._began), bounds.most_seconds))
        return part.rows >= bounds.rows or part.size_bytes >= bounds.size_bytes or now - part.opened_at >= seconds

    def _close(self, split_id: str) -> Iterator[Staged]:
        """Hand a part to the writers; waits for the oldest when all are busy."""
        part = self._open.pop(split_id)
        while len(self._writing) >= self._writers or (self._writing and self._writing[0].done()):
            yield self._next()
        self._writing.append(self._threads.submit(self.write, part.spans))

    def _next(self) -> Staged:
        """Wait for the oldest part that is being written."""
        return self._writing.popleft().result()


def _refused(spans: list[ScoredSpan], notes: list[Note]) -> int:
    """How many rows that were counted as scored are noted as rejected."""
    scored = {scored.span.start: scored.rows.num_rows for scored in spans}
    return sum(scored[note.start] - note.scored for note in notes)


def _in_global_window(staged: Staged) -> WindowedValue:
    return WindowedValue(staged, GlobalWindow().max_timestamp(), [GlobalWindow()])
