"""A table of a database as the output of a job."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from predictors.specvalue import CONNECTION
from transforms.connection import Connection
from transforms.place import JobPlace
from transforms.sinks.base import Sink
from transforms.sinks.mode import Mode
from transforms.sinks.output import Output


@dataclass(frozen=True)
class TableOutput(Output):
    """A table of a database; `mode`, `columns` and `appends_to` as of every output."""

    connection: Annotated[str, CONNECTION] = field(repr=False)
    table_name: str
    mode: Mode = "error_if_exists"
    columns: tuple[str, ...] | None = None
    appends_to: str | None = None
    destination: Literal["table"] = "table"

    @property
    def target(self) -> str:
        return self.table_name

    def sink(self, place: JobPlace) -> Sink:
        from transforms.sinks.table import table_sink

        connection = Connection(self.connection, pinned=place.within is not None)
        folder = place.folder / "staged"
        return table_sink(connection, self.table_name, self.mode, place.job_id, folder, self.appends_to)

    def table(self) -> tuple[str, str] | None:
        return self.connection, self.table_name
