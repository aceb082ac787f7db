"""Runs the graph of a job that is prepared, to its end."""

import re
from dataclasses import dataclass, field, replace

from pipelines.batch import BatchRun, build
from pipelines.options import make_pipeline
from pipelines.prepare import Prepared
from predictors.errors import PredictorError
from transforms.counts import Counts
from transforms.errors import OutputError, PipelineError
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
    pipeline = make_pipeline(spec.config.runner)
    build(pipeline, BatchRun(bound.source, bound.columns, scoring, publication, prepared.telemetry))
    try:
        pipeline.run().wait_until_finish()
    except (PipelineError, PredictorError) as error:
        raise _without_step(error) from error
    finally:
        # Nothing, unless the graph failed.
        PENDING.stage(_KEEP_S)
        prepared.telemetry.counters().flush()
    counts = publication.sink.published()
    if counts is None:
        raise OutputError(f"{prepared.output}: the pipeline ended, but nothing was published; resume the job")
    return _result(counts, prepared)


def _result(counts: Counts, prepared: Prepared) -> Result:
    values = prepared.telemetry.counters().values()
    seconds = {name: values[f"{name}_s"] for name in ("read", "score", "write")}
    return Result(counts, "with_rejects" if counts.rejected else "clean", seconds)


def _without_step(error: Exception) -> Exception:
    """The error without the names of steps that Beam appends to its text."""
    text = re.sub(r"\s*\[while running '[^']*'\]", "", str(error.args[0])) if error.args else ""
    return type(error)(text, *error.args[1:])
