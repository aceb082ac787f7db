"""A runner that does what a runner may: no fusion, other bundle boundaries, other order, bundles that are run again.

It drives the DoFns of the graph by hand. Between two steps each element goes through its coder. A bundle may fail at
any element (what it emitted is dropped, what it wrote stays) and is then run again, in other company; one that passed
may be run once more by a straggler whose output nobody takes.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.transforms.core import DoFn

from pipelines.batch import BatchRun
from transforms.batches import Batch, ScoredSpan, Split
from transforms.publish import publish
from transforms.read import _ReadFn
from transforms.score import _ScoreFn
from transforms.stage import _StageFn


class ReplayingRunner:
    """Runs the batch graph step by step, as unkindly as `seed` says."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def run(self, run: BatchRun) -> None:
        """Read, score, stage; then publish, twice."""
        job = run.publication
        batches = self._step(_ReadFn(run.source, run.columns, job.sink, run.telemetry), job.splits, Split)
        scored = self._step(_ScoreFn(run.scoring, run.telemetry), batches, Batch)
        self._step(_StageFn(job.sink, job.rejects, run.telemetry, run.bounds), scored, ScoredSpan)
        publish(job)
        publish(job)

    def _step(self, do_fn: DoFn, elements: Iterable[Any], element_type: type) -> list[Any]:
        coder = beam.coders.registry.get_coder(element_type)
        encoded = [coder.encode(element) for element in elements]
        self._random.shuffle(encoded)
        emitted: list[Any] = []
        while encoded:
            size = self._random.randint(1, max(len(encoded) // 2, 1))
            bundle, encoded = encoded[:size], encoded[size:]
            fate = self._random.random()
            if fate < 0.3:
                failing_at = self._random.randrange(len(bundle) + 1)
                self._bundle(do_fn, coder, bundle[:failing_at], finish=False)
                encoded += bundle
                self._random.shuffle(encoded)
                continue
            emitted += self._bundle(do_fn, coder, bundle)
            if fate > 0.7:
                self._bundle(do_fn, coder, bundle)
        return emitted

    def _bundle(self, do_fn: DoFn, coder: Any, bundle: Sequence[bytes], finish: bool = True) -> list[Any]:
        do_fn.setup()
        do_fn.start_bundle()
        emitted: list[Any] = []
        for element in bundle:
            emitted += do_fn.process(coder.decode(element)) or []
        if finish:
            emitted += [windowed.value for windowed in do_fn.finish_bundle() or []]
        do_fn.teardown()
        return emitted
