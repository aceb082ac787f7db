"""What every kind of input has: the part of a job's spec that names its rows, and how they are opened."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import pyarrow as pa

from predictors.bounds import Bounds
from predictors.specvalue import SpecValue
from transforms.place import JobPlace
from transforms.sources.base import Source

# Called while an input is copied: rows so far, and the estimated number of all.
OnCopied = Callable[[int, int | None], None]


class Input(SpecValue):
    """The rows of a job, as its spec names them: a frozen dataclass, whose field `source` is the name of its kind."""

    source: str

    def open(self, place: JobPlace, batch_size: int, on_copied: OnCopied) -> Source:
        """The rows, looked at, and copied where they would not read the same each time.

        Args:
            batch_size: rows of a model call.
            on_copied: called now and then while rows are copied.

        Raises:
            InputError: says what is wrong with them.
        """
        raise NotImplementedError

    def reopen(self, opened: Mapping[str, Any], schema: pa.Schema, place: JobPlace) -> Source:
        """The rows as an earlier attempt opened them.

        Args:
            opened: what `to_reopen` returned.
            schema: of the source that was opened.
        """
        raise NotImplementedError

    def to_reopen(self, source: Source) -> dict[str, Any]:
        """What `reopen` needs to know of a source besides its schema, as JSON values."""
        raise NotImplementedError

    def count(self, within: Bounds | None, timeout_s: float = math.inf) -> int | None:
        """How many rows there are; None where that is not known in time. Transfers no rows.

        What a tenant named may take any memory, wait for ever, or end the process, so that the service calls this in a
        process that can be killed.

        Args:
            within: where files have to lie, wherever their names lead; None: anywhere.
            timeout_s: for all of it.

        Raises:
            ConnectionRefused: a database cannot be reached.
            InputError: they are missing or unreadable, or a database refuses the query.
        """
        raise NotImplementedError

    def reads_table(self, connection: str, table_name: str) -> bool:
        """Whether the rows come from, or by way of, a table of a database."""
        return False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The input that `dataclasses.asdict` has turned into JSON values; a field that they lack has its default."""
        return cls(**{name: tupled(value) for name, value in values.items()})


def tupled(value: Any) -> Any:
    """A JSON value with tuples in the place of lists, as frozen dataclasses hold them."""
    return tuple(map(tupled, value)) if isinstance(value, list | tuple) else value
