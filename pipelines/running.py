"""Runs the graph of a job that is prepared, to its end, and publishes what was staged."""

import re
from dataclasses import dataclass, field, replace

from pipelines.batch import BatchRun, build
from pipelines.options import make_pipeline
from pipelines.prepare import Prepared
from predictors.errors import PredictorError
from transforms.counts import Counts
from transforms.errors import PipelineError
from transforms.pending import PENDING
from transforms.publish import Gate, publish
from transforms.score import Scoring

# How long what is scored may take to be staged once the graph has failed.
_KEEP_S = 3.0


@dataclass(frozen=True)
class Result:
    """How an attempt ended well: rows of the whole job, thread-seconds of this attempt."""

    counts: Counts
    outcome: str
    seconds: dict[str, float] = field(default_factory=dict)


def run(prepared: Prepared, gate: Gate) -> Result:
    """Run the graph to its end, publishing included.

    Args:
        gate: opened just before anything becomes visible; from there the job cannot be cancelled.

    Raises:
        PipelineError, PredictorError: one line that says what went wrong; staged rows are kept.
    """
    spec, bound, job = prepared.spec, prepared.bound, prepared.publication
    publication = replace(job, gate=gate)
    if bound is None:
        # Published by an earlier attempt; its notes may be gone already, so nobody may ask for them.
        return _result(publish(publication), prepared)
    scoring = Scoring(
        predictor=bound.predictor,
        passthrough=bound.passthrough,
        batch_size=spec.config.batch_size,
        parallelism=spec.config.parallelism,
        nulls=bound.nulls,
        retry_count=spec.config.retry_count,
        on_trial=prepared.already.scored == 0,
        in_flight_share=prepared.in_flight_share,
        crashes=prepared.crashes,
    )
    run_graph(BatchRun(bound.source, bound.columns, scoring, publication, prepared.telemetry), spec.config.runner)
    return _result(publish(publication), prepared)


def run_graph(batch: BatchRun, runner: str) -> None:
    """Read, score and stage, to the end. Nothing is published.

    Raises:
        PipelineError, PredictorError: one line that says what went wrong; staged rows are kept.
    """
    pipeline = make_pipeline(runner)
    build(pipeline, batch)
    try:
        pipeline.run().wait_until_finish()
    except (PipelineError, PredictorError) as error:
        raise _without_step(error) from error
    finally:
        # Nothing, unless the graph failed.
        PENDING.stage(_KEEP_S)
        batch.telemetry.counters().flush()


def _result(counts: Counts, prepared: Prepared) -> Result:
    values = prepared.telemetry.counters().values()
    seconds = {name: values[f"{name}_s"] for name in ("read", "score", "write")}
    return Result(counts, "with_rejects" if counts.rejected else "clean", seconds)


def _without_step(error: Exception) -> Exception:
    """The error without the names of steps that Beam appends to its text."""
    text = re.sub(r"\s*\[while running '[^']*'\]", "", str(error.args[0])) if error.args else ""
    return type(error)(text, *error.args[1:])
