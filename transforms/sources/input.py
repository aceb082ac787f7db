"""What every kind of input has: the part of a job's spec that names its rows, and how they are opened."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from predictors.bounds import Bounds
from predictors.specvalue import SpecValue
from transforms.batches import Split
from transforms.place import JobPlace
from transforms.sources.base import Source

# Called while an input is copied: rows so far, and the estimated number of all.
OnCopied = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Copying:
    """How fast rows are copied: seconds until the first one, and for each of the `rows` rows that were looked at."""

    prepare_s: float
    row_s: float
    rows: int


class Looked(Protocol):
    """An input that was looked at and not copied."""

    @property
    def source(self) -> Source:
        """The rows, or only the first of them, to be read once."""

    @property
    def rows(self) -> int:
        """How many rows the input has."""

    @property
    def copying(self) -> Copying | None:
        """How fast a job would copy the rows before it scores them; None where it reads them where they are."""

    def splits(self, planned: Sequence[Split]) -> int:
        """How many splits a job would have, given those of `source`."""

    def mapped_bytes(self, columns: Sequence[str], span_rows: int, row_bytes: float) -> int:
        """How much of the input is mapped into memory at once while a job reads these columns of it.

        Args:
            span_rows: rows of a span.
            row_bytes: of the columns that are read, in memory.
        """


class Input(SpecValue):
    """The rows of a job, as its spec names them: a frozen dataclass, whose field `source` is the name of its kind."""

    source: str
    # Seconds that reading a value takes, about.
    value_s: ClassVar[float] = 0.02e-6

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

    def look(self, within: Bounds | None, most_rows: int) -> Looked:
        """Look at the input as `plan` does: at its columns and at some rows.

        Args:
            within: where files have to lie, wherever their names lead; None: anywhere.
            most_rows: no more need to be read where rows would be copied.

        Raises:
            ConnectionRefused, InputError: as `open`.
        """
        raise NotImplementedError

    def first_rows(
        self, within: Bounds | None, most_rows: int, most_bytes: int, timeout_s: float
    ) -> pa.RecordBatch | None:
        """Some rows to try a model with, near enough to how a job reads them; None where there are none.

        Args:
            within: as `look`.
            most_rows, most_bytes: at most so many, but one row at least.
            timeout_s: for finding them.

        Raises:
            ConnectionRefused, InputError: as `open`.
            TimeoutError: they were not found in time.
        """
        raise NotImplementedError

    def reads_table(self, connection: str, table_name: str) -> bool:
        """Whether the rows come from, or by way of, a table of a database."""
        return False
