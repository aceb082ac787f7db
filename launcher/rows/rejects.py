"""Looking at the rows that a job rejected: Parquet files with the input's columns, position, error_type and error."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from launcher.errors import NoRejects
from launcher.report import Reason
from launcher.state.job import Job

# More rows than this do not change which reasons are the most frequent; reading them would keep people waiting.
_COUNTED_ROWS = 1_000_000
_OURS = ("position", "error_type", "error")


@dataclass(frozen=True)
class PublishedRejects:
    """Where a job's rejects lie, and the columns of its input among theirs."""

    files: list[Path]
    input_columns: list[str]


def rejects_of(job: Job) -> PublishedRejects:
    """The rejects that a job has published.

    Raises:
        NoRejects: the job has published none, or another job's lie there now.
    """
    files = _files(job)
    schema = pq.read_schema(files[0])
    ours = set(_names(schema).values())
    return PublishedRejects(files, [name for name in schema.names if name not in ours])


def first_rejects(job: Job, limit: int) -> pa.Table:
    """The first `limit` rejected rows of a job: position, error_type and error, then the input's columns.

    Raises:
        NoRejects: the job has published none, or another job's lie there now.
    """
    files = _files(job)
    tables: list[pa.Table] = []
    missing = limit
    for file in files:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=max(1, missing)):
                tables.append(pa.Table.from_batches([batch.slice(0, missing)]))
                missing -= tables[-1].num_rows
                if missing <= 0:
                    break
            if not tables:
                tables.append(parquet.schema_arrow.empty_table())
        if missing <= 0:
            break
    table = pa.concat_tables(tables)
    ours = list(_names(table.schema).values())
    return table.select([*ours, *(name for name in table.schema.names if name not in ours)])


def top_reasons(job: Job, limit: int = 3) -> list[Reason]:
    """The most frequent reasons, the first million rejected rows taken. Empty where none were published."""
    try:
        files = _files(job)
    except NoRejects:
        return []
    seen: Counter[tuple[str, str]] = Counter()
    for file in files:
        with pq.ParquetFile(file) as parquet:
            names = _names(parquet.schema_arrow)
            rows = parquet.read(columns=[names["error_type"], names["error"]]).rename_columns(["error_type", "error"])
        groups = rows.group_by(["error_type", "error"]).aggregate([([], "count_all")]).to_pylist()
        seen.update({(group["error_type"], group["error"]): group["count_all"] for group in groups})
        if seen.total() >= _COUNTED_ROWS:
            break
    return [Reason(error_type, error, rows) for (error_type, error), rows in seen.most_common(limit)]


def _files(job: Job) -> list[Path]:
    if job.rejects is None:
        raise NoRejects(f"{job.id} ended before it rejected a row")
    # The folder as the job saw it: a relative one starts where the job was run.
    folder = Path(job.working_dir, job.rejects)
    try:
        owner: Any = json.loads((folder / "_manifest.json").read_bytes())
    except (OSError, ValueError):
        raise NoRejects(f"{job.id} has published no rejects; there is nothing of it in {folder}") from None
    if owner.get("job_id") != job.id:
        raise NoRejects(f"{folder} holds the rejects of {owner.get('job_id')}, which ran after {job.id}")
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise NoRejects(f"the rejects of {job.id} are gone from {folder}")
    return files


def _names(schema: pa.Schema) -> dict[str, str]:
    """What our columns are called: the input may have had some of the same names. Ours are the last."""
    return dict(zip(_OURS, schema.names[-len(_OURS) :], strict=True))
