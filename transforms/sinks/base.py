"""What a sink promises: rows become durable unseen, are noted once, and appear all at once.

The order is always the same: `check` and `prepare` once, `stage` many times from any number of processes and threads,
`publish` once, `clean`. Each of them may be cut off at any moment and called again.

What becomes of a result that is there already is the sink's `mode`: it is refused (`error_if_exists`), replaced
(`overwrite`), or kept and added to (`append`); where there is none, all of them make one. Rows are added once, however
often `publish` is called, and of jobs that add to one destination at the same time none is lost. With `append` a sink
may be given `appends_to`, the id of a job: then rows are added only while that very job was the last to publish there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from predictors.notices import Notice
from transforms.batches import ScoredSpan, Split
from transforms.counts import Counts
from transforms.ledger import Ledger, Note


@dataclass(frozen=True)
class Manifest:
    """What is published with a result: who made it, from what, and how many rows it has.

    Args:
        job_id: the job; a result that names it is not published a second time.
        counts: rows scored, rejected and skipped.
        splits: the plan.
        notes: every note of the job; they cover the plan exactly once.
        published_at: aware UTC time, ISO 8601.
        details: model hash, spec digest and the like, as JSON values. Holds no secrets.
    """

    job_id: str
    counts: Counts
    splits: Sequence[Split]
    notes: Sequence[Note]
    published_at: str
    details: dict[str, Any]


class Sink(Ledger, Protocol):
    """One destination for one job. Picklable; opens what it needs in the process that uses it."""

    def check(self, schema: pa.Schema) -> list[Notice]:
        """Judge whether `prepare` would let rows of `schema` in, without writing anything.

        Args:
            schema: of the rows that would be staged.

        Returns:
            What the destination will not keep as it is given.

        Raises:
            OutputError: as `prepare`.
        """

    def prepare(self, schema: pa.Schema) -> None:
        """Check that the destination can be written and make what staging needs. Called again, it does nothing.

        Args:
            schema: of the rows that will be staged.

        Raises:
            OutputError: not writable, there already with `error_if_exists`, the types do not fit what is there, or it
                is not the result that is to be added to.
        """

    def stage(self, spans: Sequence[ScoredSpan], rejects: str | None) -> list[Note] | None:
        """Make the scored rows of `spans` durable, unseen by readers, and note the spans; all or nothing.

        Safe to call from several threads. Rejected rows are not written here; `rejects` is where they lie already.

        Args:
            spans: of one split, ascending, not necessarily adjacent, at least one.
            rejects: name of the durable part with their rejected rows, for the notes.

        Returns:
            The notes, or None when one of the spans is noted already: nothing was staged, read `noted` and cut.

        Raises:
            OutputError: the destination refused or is full.
        """

    def published(self) -> Counts | None:
        """What this job published, or None when it has not."""

    def publish(self, manifest: Manifest) -> None:
        """Show the staged result to readers, all at once, and record that it was done.

        It takes the place of what was there; with `append` it shows what was there, too. A second call does nothing.
        Exactly the rows that `manifest.notes` name appear. On an error or a kill readers keep seeing the old result.

        Raises:
            OutputError: the destination refused; with `error_if_exists` also when it came into being meanwhile; with
                `appends_to` also when another job published there meanwhile.
        """

    def clean(self) -> None:
        """Remove what staging left, after `publish`; `published` still answers. Called again, it does nothing."""

    def discard(self) -> None:
        """Remove everything staged by a job that will not go on; a published result stays."""

    def describe(self) -> str:
        """Where the result is, for people. Never holds a secret."""
