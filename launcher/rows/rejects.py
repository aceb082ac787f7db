"""Looking at the rows that a job rejected: Parquet files with the input's columns, position, error_type and error."""

import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from launcher.errors import NoRejects
from launcher.report import Reason
from launcher.state.job import Job
from predictors.bounds import Bounds, LedElsewhere, at
from predictors.taking import no_rows
from transforms.sinks.manifest import names_in, read_manifest

# More rows than this do not change which reasons are the most frequent; reading them would keep people waiting.
_COUNTED_ROWS = 1_000_000
_OURS = ("position", "error_type", "error")


@dataclass(frozen=True)
class PublishedRejects:
    """Rejects that a job has published.

    Args:
        files: where to read them, by their names.
    """

    files: dict[str, Path]

    def input_columns(self) -> list[str]:
        """Those of the job's input among the columns. Reads a file's footer, which may by now be anybody's."""
        schema = pq.read_schema(next(iter(self.files.values())))
        ours = set(_names(schema).values())
        return [name for name in schema.names if name not in ours]

    def link_into(self, folder: Path) -> None:
        """Have the same files in `folder`, whatever becomes of them where they lie. Who has done so before has done it.

        Raises:
            OSError: as the system says.
        """
        draft = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
        draft.mkdir()
        try:
            for name, file in self.files.items():
                _link_or_copy(file, draft / name)
            # Whole or not at all: the job of another request may be reading there already.
            try:
                draft.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _link_or_copy(file: Path, name: Path) -> None:
    folder = os.open(name.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # What an open file's own path leads to is linked, not that path; which is so only relative to a folder.
        os.link(file, name.name, dst_dir_fd=folder)
    except OSError:
        shutil.copyfile(file, name)
    finally:
        os.close(folder)


def rejects_path(job: Job) -> str:
    """The folder of a job's rejects.

    Raises:
        NoRejects: the job got to none.
    """
    if job.rejects is None:
        raise NoRejects(f"{job.id} ended before it rejected a row")
    # The folder as the job saw it: a relative one starts where the job was run.
    return str(Path(job.working_dir, job.rejects))


@contextmanager
def opened_rejects(path: str, job_id: str, within: Bounds | None = None) -> Iterator[PublishedRejects]:
    """The rejects that a job has published, open for the block. Nothing of the files is read.

    Args:
        path: of `rejects_path`.
        within: where they have to lie, none of the files being a link; None: anywhere.

    Raises:
        NoRejects: the job has published none, or another job's lie there now, or none that may be read.
    """
    with ExitStack() as opened:
        try:
            folder = Path(path)
            if within is not None:
                folder = opened.enter_context(within.opened_folder(folder))
            files = {file.name: file for file in _files(path, job_id, folder)}
            for name, file in files.items():
                if within is not None:
                    files[name] = Path(at(opened.enter_context(within.opened(file, follow=False))))
        except LedElsewhere as error:
            raise NoRejects(f"the rejects of {job_id} lead elsewhere since they were published") from error
        except OSError as error:
            raise _none_there(path, job_id) from error
        yield PublishedRejects(files)


def first_rejects(job: Job, limit: int) -> pa.Table:
    """The first `limit` rejected rows of a job: position, error_type and error, then the input's columns.

    Raises:
        NoRejects: the job has published none, or another job's lie there now.
    """
    path = rejects_path(job)
    files = _files(path, job.id, Path(path))
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
                tables.append(pa.Table.from_batches([no_rows(parquet.schema_arrow)]))
        if missing <= 0:
            break
    table = pa.concat_tables(tables)
    ours = list(_names(table.schema).values())
    return table.select([*ours, *(name for name in table.schema.names if name not in ours)])


def top_reasons(job: Job, limit: int = 3) -> list[Reason]:
    """The most frequent reasons, the first million rejected rows taken. Empty where none were published."""
    try:
        path = rejects_path(job)
        files = _files(path, job.id, Path(path))
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


def _files(path: str, job_id: str, folder: Path) -> list[Path]:
    """The files in the folder of the rejects, or in that folder by another path."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise _none_there(path, job_id)
    if manifest["job_id"] != job_id:
        raise NoRejects(f"{path} holds the rejects of {manifest['job_id']}, which ran after {job_id}")
    names = names_in(manifest)
    # Anybody may have written the manifest.
    files = [folder / name for name in names if os.path.basename(name) == name]
    if not files or not all(os.path.lexists(file) for file in files):
        raise NoRejects(f"the rejects of {job_id} are gone from {path}")
    return files


def _none_there(path: str, job_id: str) -> NoRejects:
    return NoRejects(f"{job_id} has published no rejects; there is nothing of it in {path}")


def _names(schema: pa.Schema) -> dict[str, str]:
    """What our columns are called: the input may have had some of the same names. Ours are the last."""
    return dict(zip(_OURS, schema.names[-len(_OURS) :], strict=True))
