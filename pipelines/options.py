"""Which runner a job runs on, and what it is told."""

from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.inspection import remember_dofn_specs

_View = TypeVar("_View", bound=PipelineOptions)


class _Options(PipelineOptions):
    """Options whose views are made once: Beam asks for them some 240 times a pipeline, each time by way of argparse."""

    def view_as(self, cls: type[_View]) -> _View:
        views: dict[type, Any] = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


def make_pipeline(runner: str) -> beam.Pipeline:
    """An empty pipeline on the named runner.

    `direct` is Beam's FnApiRunner inside this process: one bundle thread that only hands batches on; reading, scoring
    and staging have threads of their own, which is where the work is. It is named, for `DirectRunner` picks one of
    three runners by what it finds on the machine.

    Raises:
        ValueError: the runner is not known.
    """
    remember_dofn_specs()
    if runner == "direct":
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner

        options = _Options(flags=[], direct_num_workers=1, direct_running_mode="in_memory")
        return beam.Pipeline(runner=FnApiRunner(), options=options)
    raise ValueError(f"runner {runner!r} is not known; use direct")
