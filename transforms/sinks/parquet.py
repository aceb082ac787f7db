"""A folder of Parquet files as a sink."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from predictors.bounds import Bounds
from predictors.notices import Notice
from predictors.taking import no_rows
from transforms.batches import ScoredSpan, Split
from transforms.counts import Counts
from transforms.errors import OutputError
from transforms.ledger import FileLedger, Note, note_of, parts_of, write_durably
from transforms.marks import unmarked
from transforms.sinks.base import Manifest
from transforms.sinks.folder import PublishedFolder
from transforms.sinks.mode import Mode, check_appends_to
from transforms.sinks.written import as_written, written_notices, written_schema

# Rows of an output row group; readers skip and share out work by these.
_GROUP_ROWS = 1_048_576


@dataclass(frozen=True)
class ParquetSink:
    """Scored rows as Parquet files in one folder, in the order of the input.

    Args:
        path: the folder.
        mode: `overwrite` replaces it whole, `append` adds files to those in it, which must be Parquet files of the same
            columns, `error_if_exists` refuses one with anything in it.
        job_id: the job that stages.
        job_folder: the job's own folder, which outlives the staging.
        appends_to: with `append`, the job whose result the folder must hold.
        within: as `PublishedFolder` takes it.
    """

    path: str
    mode: Mode
    job_id: str
    job_folder: Path
    appends_to: str | None = None
    within: Bounds | None = None

    def __post_init__(self) -> None:
        check_appends_to(self.mode, self.appends_to)

    @property
    def _folder(self) -> PublishedFolder:
        return PublishedFolder(Path(self.path), self.job_id, "output.path", self.job_folder, self.within)

    @property
    def _ledger(self) -> FileLedger:
        return FileLedger(self._folder.ledger, self.within)

    def check(self, schema: pa.Schema) -> list[Notice]:
        """Check the columns and the folder; says which columns are written under another type."""
        written = written_schema(schema, "output.path")
        if self._folder.published() is None:
            self._check_folder(written)
        return written_notices(schema, written, "the result")

    def _check_folder(self, schema: pa.Schema) -> None:
        folder = self._folder
        if self.mode == "append":
            folder.check_appendable(self.appends_to, lambda files: self._check_files(files, _as_read(schema)))
            return
        folder.check(may_exist=lambda _: self.mode != "error_if_exists")

    def prepare(self, schema: pa.Schema) -> None:
        """Check the folder and make its hidden sibling."""
        folder = self._folder
        schema = written_schema(schema, "output.path")
        if folder.published() is None:
            folder.prepare(lambda: self._check_folder(schema), in_turn=self.mode == "append")
            if self.mode == "append":
                folder.check_linkable()
            with folder.explained():
                # What an empty result looks like must be known without a row.
                write_durably(folder.staging / "schema", _footer(schema).to_pybytes())

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
            table = as_table(tables, written_schema(tables[0].schema, "output.path"))
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
        """Exchange the folder with one of the noted parts, named in the order of the input.

        With `append` that one has the files of the folder, too, and the parts come after them.
        """
        folder = self._folder
        if folder.published() is not None:
            return
        parts = parts_of(manifest.notes)
        if self.mode == "append":
            self._append(folder, parts, manifest)
            return
        files = {f"part-{number:05d}-{part}": part for number, part in enumerate(parts)}
        if not files:
            files = {f"part-00000-{part}": part for part in [self._write_empty(folder)]}
        listing = [lineage(name, parts.get(part, ()), manifest.splits) for name, part in files.items()]
        folder.publish(files, manifest, listing, replace=self.mode == "overwrite")

    def _append(self, folder: PublishedFolder, parts: Mapping[str, list[Note]], manifest: Manifest) -> None:
        schema = folder.read_schema(folder.staging / "schema")
        folder.append(
            # Without rows there is nothing to add; but a result of no rows must be there for readers, too.
            lambda is_new: list(parts) or ([self._write_empty(folder)] if is_new else []),
            manifest,
            lambda name, part: lineage(name, parts.get(part, ()), manifest.splits),
            self.appends_to,
            lambda files: self._check_files(files, schema),
        )

    def _write_empty(self, folder: PublishedFolder) -> str:
        schema = folder.read_schema(folder.staging / "schema")
        return folder.write_part(".parquet", lambda path: write_parquet(path, pa.Table.from_batches([no_rows(schema)])))

    def _check_files(self, files: Sequence[Path], schema: pa.Schema) -> None:
        """Demand that rows of `schema` can join those of `files`: Parquet files of the same columns, in that order.

        Raises:
            OutputError: names the first file that they cannot, and why.
        """
        for file in files:
            if file.suffix != ".parquet":
                raise OutputError(
                    f"output.path {self.path} holds {file.name}, which is no Parquet file, so no rows are added to it; "
                    f"name another folder, or move the file away"
                )
            try:
                found = self._folder.read_schema(file)
            except pa.ArrowInvalid as error:
                raise OutputError(
                    f"output.path {self.path} holds {file.name}, which is no readable Parquet file; move it away"
                ) from error
            difference = _difference(found, schema)
            if difference is not None:
                raise OutputError(
                    f"output.path {self.path}: {difference} in {file.name}, which is there already; name another "
                    f"folder, or use output.mode: overwrite"
                )

    def clean(self) -> None:
        """Remove the hidden sibling, the old result with it."""
        self._folder.remove_staging()

    def discard(self) -> None:
        """Remove the hidden sibling."""
        self._folder.remove_staging()

    def describe(self) -> str:
        """The folder."""
        return self.path


def _as_read(schema: pa.Schema) -> pa.Schema:
    """`schema` as a Parquet file gives it back: some units of time are not kept."""
    return pq.read_schema(pa.BufferReader(_footer(schema)))


def _footer(schema: pa.Schema) -> pa.Buffer:
    """A Parquet file of these columns without a row."""
    file = pa.BufferOutputStream()
    pq.write_metadata(schema, file)
    return file.getvalue()


def _difference(found: pa.Schema, schema: pa.Schema) -> str | None:
    """The first difference in names, types or order, for people; None when there is none."""
    for name in schema.names:
        if name not in found.names:
            return f"the job's column {name} is missing"
    for field in found:
        if field.name not in schema.names:
            return f"there is a column {field.name}, which the job does not have,"
        wanted = schema.field(field.name).type
        if field.type != wanted:
            return f"column {field.name} is {wanted} in the job, but {field.type}"
    if found.names != schema.names:
        return f"columns come as {', '.join(schema.names)} in the job, but in another order"
    return None


def as_table(batches: Sequence[pa.RecordBatch], written: pa.Schema) -> pa.Table:
    """The rows of all batches, at least one, as they are written."""
    return pa.Table.from_batches([as_written(rows, written) for rows in batches])


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write one file, with checksums.

    Only text is dictionary-encoded: of numbers the attempt costs time and rarely saves space.
    """
    text = [field.name for field in table.schema if _is_text(field.type)]
    table = unmarked(table)
    with pq.ParquetWriter(path, table.schema, use_dictionary=text or False, write_page_checksum=True) as writer:
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
