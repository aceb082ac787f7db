"""Which runner a job runs on, and what it is told."""

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions


def make_pipeline(runner: str) -> beam.Pipeline:
    """An empty pipeline on the named runner.

    `direct` is Beam's FnApiRunner inside this process: one bundle thread that only hands batches on; reading, scoring
    and staging have threads of their own, which is where the work is. It is named, for `DirectRunner` picks one of
    three runners by what it finds on the machine.

    Raises:
        ValueError: the runner is not known.
    """
    if runner == "direct":
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner

        options = PipelineOptions(flags=[], direct_num_workers=1, direct_running_mode="in_memory")
        return beam.Pipeline(runner=FnApiRunner(), options=options)
    raise ValueError(f"runner {runner!r} is not known; use direct")
