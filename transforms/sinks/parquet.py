"""A folder of Parquet files as a sink."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.batches import ScoredSpan, Split
from transforms.counts import Counts
from transforms.ledger import FileLedger, Note, note_of, parts_of
from transforms.sinks.base import Manifest
from transforms.sinks.folder import PublishedFolder
from transforms.sinks.mode import Mode

# Rows of an output row group; readers skip and share out work by these.
_GROUP_ROWS = 1_048_576


@dataclass(frozen=True)
class ParquetSink:
    """Scored rows as Parquet files in one folder, in the order of the input.

    Args:
        path: the folder.
        mode: `overwrite` replaces it whole; `error_if_exists` refuses one with anything in it.
        job_id: the job that stages.
        job_folder: the job's own folder, which outlives the staging.
    """

    path: str
    mode: Mode
    job_id: str
    job_folder: Path

    @property
    def _folder(self) -> PublishedFolder:
        return PublishedFolder(Path(self.path), self.job_id, "output.path", self.job_folder)

    @property
    def _ledger(self) -> FileLedger:
        return FileLedger(self._folder.staging / "ledger")

    def prepare(self, schema: pa.Schema) -> None:
        """Check the folder and make its hidden sibling."""
        folder = self._folder
        if folder.published() is None:
            folder.prepare(may_exist=lambda _: self.mode == "overwrite")
            with folder.explained():
                # What an empty result looks like must be known without a row.
                pq.write_metadata(schema, folder.staging / "schema")
                self._ledger.folder.mkdir(exist_ok=True)

    def noted(self, split_id: str) -> list[Note]:
        """The notes of one split."""
        return self._ledger.noted(split_id)

    def all_notes(self) -> list[Note]:
        """The notes of all splits."""
        return self._ledger.all_notes()

    def stage(self, spans: Sequence[ScoredSpan], rejects: str | None) -> list[Note] | None:
        """Write a part and note its spans; None, and no part, when one of them is noted already."""
        folder = self._folder
        tables = [span.rows for span in spans if span.rows.num_rows]
        part = None
        if tables:
            table = pa.Table.from_batches(tables)
            part = folder.write_part(".parquet", lambda path: write_parquet(path, table))
        notes = [note_of(span, part if span.rows.num_rows else None, rejects) for span in spans]
        with folder.explained():
            noted = self._ledger.add(notes)
        if not noted:
            if part is not None:
                folder.remove_part(part)
            return None
        return notes

    def published(self) -> Counts | None:
        """What this job published; known also after another job has overwritten it."""
        return self._folder.published()

    def publish(self, manifest: Manifest) -> None:
        """Exchange the folder with one of the noted parts, named in the order of the input."""
        folder = self._folder
        if folder.published() is not None:
            return
        parts = parts_of(manifest.notes)
        files = {f"part-{number:05d}-{part}": part for number, part in enumerate(parts)}
        listing = [lineage(name, parts[part], manifest.splits) for name, part in files.items()]
        if not files:
            schema = pq.read_schema(folder.staging / "schema")
            part = folder.write_part(".parquet", lambda path: write_parquet(path, schema.empty_table()))
            files = {f"part-00000-{part}": part}
        folder.publish(files, manifest, listing, replace=self.mode == "overwrite")

    def clean(self) -> None:
        """Remove the hidden sibling, the old result with it."""
        self._folder.remove_staging()

    def discard(self) -> None:
        """Remove the hidden sibling."""
        self._folder.remove_staging()

    def describe(self) -> str:
        """The folder."""
        return self.path


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write one file. Only text is dictionary-encoded: of numbers the attempt costs time and rarely saves space."""
    text = [field.name for field in table.schema if _is_text(field.type)]
    with pq.ParquetWriter(path, table.schema, use_dictionary=text or False) as writer:
        writer.write_table(table, row_group_size=_GROUP_ROWS)


def lineage(name: str, notes: Sequence[Note], splits: Sequence[Split]) -> dict[str, Any]:
    """What the manifest says of one file: its rows, and where each run of them came from."""
    by_id = {split.id: split for split in splits}
    runs: list[dict[str, Any]] = []
    for note in notes:
        split = by_id[note.split]
        start, stop = split.first_row + note.start, split.first_row + note.stop
        if runs and runs[-1]["input"] == split.uri and runs[-1]["rows"][1] == start:
            runs[-1]["rows"][1] = stop
        else:
            runs.append({"input": split.uri, "rows": [start, stop]})
    return {"name": name, "rows": sum(note.scored for note in notes), "from": runs}


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_dictionary(type_)
