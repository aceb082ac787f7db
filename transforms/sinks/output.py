"""What every kind of output has: the part of a job's spec that says where its predictions go, and how it is opened."""

from dataclasses import replace
from typing import Self

from predictors.specvalue import SpecValue
from transforms.place import JobPlace
from transforms.sinks.base import Sink
from transforms.sinks.mode import Mode


class Output(SpecValue):
    """Where predictions go, as a job's spec says: a frozen dataclass.

    Its fields:
        destination: the name of its kind.
        mode: what becomes of a result that is there.
        columns: input columns to pass through; None is all of them.
        appends_to: with mode append, the job whose result must be there; None does not ask.
    """

    destination: str
    mode: Mode
    columns: tuple[str, ...] | None
    appends_to: str | None

    @property
    def target(self) -> str:
        """What names the result among others of its kind, for people: a path, a table's name."""
        raise NotImplementedError

    def sink(self, place: JobPlace) -> Sink:
        """The sink, which has looked at nothing yet."""
        raise NotImplementedError

    def table(self) -> tuple[str, str] | None:
        """The connection and the name of the table that the result is; None where it is none."""
        return None

    def adding_to(self, job_id: str, columns: tuple[str, ...]) -> Self:
        """The same output, to add rows to the result of a job there, with these input columns passed through."""
        changed: Self = replace(self, mode="append", columns=columns, appends_to=job_id)  # type: ignore[type-var]
        return changed
