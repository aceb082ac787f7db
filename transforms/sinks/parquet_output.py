"""A folder of Parquet files as the output of a job."""

from dataclasses import dataclass
from typing import Annotated, Literal

from predictors.specvalue import PathMark
from transforms.place import JobPlace
from transforms.sinks.base import Sink
from transforms.sinks.mode import Mode
from transforms.sinks.output import Output


@dataclass(frozen=True)
class ParquetOutput(Output):
    """A folder of Parquet files; `mode`, `columns` and `appends_to` as of every output."""

    path: Annotated[str, PathMark("written")]
    mode: Mode = "error_if_exists"
    columns: tuple[str, ...] | None = None
    appends_to: str | None = None
    destination: Literal["parquet"] = "parquet"

    @property
    def target(self) -> str:
        return self.path

    def sink(self, place: JobPlace) -> Sink:
        from transforms.sinks.parquet import ParquetSink

        within = place.bounds_of(self.path)
        return ParquetSink(self.path, self.mode, place.job_id, place.folder, self.appends_to, within)
