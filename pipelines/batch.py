"""The batch graph: the whole way of a row on one screen."""

from dataclasses import dataclass

import apache_beam as beam

from transforms.publish import Publication
from transforms.read import Read
from transforms.score import Score, Scoring
from transforms.sources.base import Source
from transforms.stage import PartBounds, Stage
from transforms.telemetry import Telemetry


@dataclass(frozen=True)
class BatchRun:
    """One run of a job: what was planned, bound and prepared.

    Args:
        source: where rows come from.
        columns: which of them are read.
        scoring: what is done to them.
        publication: the splits, the sink and the rejects, and the terms of publishing.
        telemetry: where progress is told.
        bounds: when a part is closed.
    """

    source: Source
    columns: tuple[str, ...]
    scoring: Scoring
    publication: Publication
    telemetry: Telemetry = Telemetry()
    bounds: PartBounds = PartBounds()


def build(root: beam.Pipeline, run: BatchRun) -> None:
    """Lay out one run on `root`: read, score, stage. What is staged is published once the graph has come to its end."""
    job = run.publication
    splits = root | "Splits" >> beam.Create(job.splits) | "Spread" >> beam.Reshuffle()
    batches = splits | "Read" >> Read(run.source, run.columns, job.sink, run.telemetry)
    scored = batches | "Score" >> Score(run.scoring, run.telemetry)
    scored | "Stage" >> Stage(job.sink, job.rejects, run.telemetry, run.bounds)
