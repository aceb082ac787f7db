"""Rejected rows: laid down in full, with position and reason, before the note that names them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from predictors.bounds import Bounds
from predictors.notices import Notice
from predictors.taking import no_rows
from transforms.batches import Rejected, ScoredSpan
from transforms.ledger import in_order
from transforms.sinks.base import Manifest
from transforms.sinks.folder import PublishedFolder
from transforms.sinks.manifest import read_manifest
from transforms.sinks.parquet import as_table, write_parquet
from transforms.sinks.written import written_notices, written_schema
from transforms.sources.base import Source

# What a reject says beside the columns of the input, which come first.
_OWN = ("position", "error_type", "error")


def input_columns(rejects: pa.Schema) -> pa.Schema:
    """The columns of the input among those of its rejects."""
    return pa.schema(list(rejects)[: -len(_OWN)])


@dataclass(frozen=True)
class RejectFolder:
    """Rejected rows as Parquet files: all input columns, then `position`, `error_type` and `error`.

    `position` is `<file>:<row>`, rows counted from 0. Should the input have a column of such a name, ours is called
    `penstock_position` and so on, with as many prefixes as it takes. The folder shows the rejects of the last job that
    wrote there, and nothing older.

    Args:
        path: the folder.
        job_id: the job that stages.
        source: where columns that scoring did not read are looked up.
        job_folder: the job's own folder, which outlives the staging.
        within: as `PublishedFolder` takes it.
    """

    path: str
    job_id: str
    source: Source
    job_folder: Path
    within: Bounds | None = None

    @property
    def _folder(self) -> PublishedFolder:
        return PublishedFolder(Path(self.path), self.job_id, "rejects.path", self.job_folder, self.within)

    @property
    def schema(self) -> pa.Schema:
        """Columns of the rejects."""
        given = self.source.schema
        own = []
        for name in _OWN:
            while name in given.names:
                name = f"penstock_{name}"
            own.append(pa.field(name, pa.string()))
        # A row may have been refused because a value was missing.
        return pa.schema([*(field.with_nullable(True) for field in given), *own])

    def check(self) -> list[Notice]:
        """Judge the folder without writing anything. One is replaced only if a job of ours wrote it.

        Raises:
            OutputError: not writable, or the folder holds something else.
        """
        written = self._written
        if not self.is_published():
            self._check_folder()
        return written_notices(self.schema, written, "the rejects")

    def prepare(self) -> None:
        """Check the folder and make its hidden sibling.

        Raises:
            OutputError: as `check`.
        """
        _ = self._written
        if not self.is_published():
            self._folder.prepare(self._check_folder, in_turn=False)

    def _check_folder(self) -> None:
        self._folder.check(may_exist=lambda target: read_manifest(target) is not None)

    def stage(self, spans: Sequence[ScoredSpan]) -> str | None:
        """Make the rejected rows of `spans` durable. Returns the part's name for the notes, None without rejects.

        Raises:
            OutputError: the folder is full or not writable.
        """
        tables = [self._rows(span, span.rejected) for span in spans if span.rejected is not None]
        if not tables:
            return None
        table = as_table(tables, self._written)
        return self._folder.write_part(".parquet", lambda path: write_parquet(path, table))

    def unstage(self, part: str | None) -> None:
        """Remove a part that no note will name."""
        if part is not None:
            self._folder.remove_part(part)

    def is_published(self) -> bool:
        """Whether the folder shows this job's rejects."""
        return self._folder.published() is not None

    def publish(self, manifest: Manifest) -> None:
        """Show the rejects that the notes name, in place of what was there. A second call does nothing."""
        if self.is_published():
            return
        parts = list(dict.fromkeys(note.rejects for note in in_order(manifest.notes) if note.rejects is not None))
        if not parts:
            empty = pa.Table.from_batches([no_rows(self._written)])
            parts = [self._folder.write_part(".parquet", lambda path: write_parquet(path, empty))]
        files = {f"part-{number:05d}-{part}": part for number, part in enumerate(parts)}
        listing = [{"name": name} for name in files]
        self._folder.publish(files, manifest, listing, replace=True)

    def clean(self) -> None:
        """Remove what staging left."""
        self._folder.remove_staging()

    def discard(self) -> None:
        """Remove what a job staged that will not go on; published rejects stay."""
        self._folder.remove_staging()

    @property
    def _written(self) -> pa.Schema:
        return written_schema(self.schema, "rejects.path")

    def _rows(self, span: ScoredSpan, rejected: Rejected) -> pa.RecordBatch:
        """Rejected rows of one span, with the columns that scoring had no need of."""
        split, names = span.span.split, self.source.schema.names
        unread = [name for name in names if name not in rejected.rows.schema.names]
        columns = {name: rejected.rows.column(name) for name in rejected.rows.schema.names}
        if unread:
            offsets = pc.add(rejected.at.cast(pa.int64()), span.span.start).to_pylist()
            rest = self.source.lookup(split, offsets, unread)
            columns |= {name: rest.column(name) for name in unread}
        rows = pc.add(rejected.at.cast(pa.int64()), split.first_row + span.span.start)
        position = pc.binary_join_element_wise(split.uri, rows.cast(pa.string()), ":")
        arrays = [*(columns[name] for name in names), position, rejected.error_type, rejected.error]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)
