"""Pages of folders of results and of rejects, each read in a process of its own.

What lies in such a folder by now is up to a tenant: a footer that is said to have gigabytes, a file that is cut off
while it is read. So a service reads it in a process that is killed when it takes too long and cannot take much memory.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from launcher.errors import AsideFailed, ForkFailed, NoRejects, ResultGone, ResultUnreadable
from launcher.forks.aside import call_aside
from launcher.forks.forking import Forks
from launcher.rows.bounds import MAX_PAGE_BYTES
from launcher.rows.rejects import opened_rejects
from launcher.rows.results import FolderResult, Page, result_page
from launcher.rows.tablepages import as_arrow, read_arrow
from predictors.bounds import Bounds

# Nobody waits longer for a page.
TIMEOUT_S = 10
# What a page may take while it is read, several times its 16 MiB, footers included.
_MEMORY_BYTES = 384 * 1024 * 1024
_TOO_LARGE = (
    f"reading it takes too much memory, as of a row that is larger than {MAX_PAGE_BYTES // 1024**2} MiB, or of a file "
    "that others have put there; ask for fewer rows, or read the files"
)
# What of a process that does not tell it itself, by what it ended with.
_ENDS = {
    "MemoryError": _TOO_LARGE,
    "ProcessDied": "what read it died; ask for fewer rows, or read the files",
    "TimeoutError": f"it takes longer than {TIMEOUT_S} s; ask for fewer rows, or read the files",
}
# What is told as it is.
_TOLD = {error.__name__: error for error in (ResultGone, ResultUnreadable, NoRejects)}


@dataclass(frozen=True)
class FoldersAside:
    """Reads pages of folders, from any thread.

    Args:
        forks: of which the processes are.
        working_dir: theirs.
        environment: theirs.
    """

    forks: Forks
    working_dir: str
    environment: Mapping[str, str]

    def results(self, place: FolderResult, offset: int, limit: int) -> Page:
        """As `result_page`, and 10 s are 10 s.

        Raises:
            ResultGone, ResultUnreadable: as `result_page`.
        """
        return self._page("results_as_arrow", place, offset, limit)

    def rejects(self, place: FolderResult, offset: int, limit: int) -> Page:
        """A page of rejected rows: position, error_type and error, then the columns of the input.

        Raises:
            NoRejects: the job has published none, or another job's lie there now, or none that may be read.
            ResultGone, ResultUnreadable: as `result_page`.
        """
        return self._page("rejects_as_arrow", place, offset, limit)

    def reject_columns(self, place: FolderResult) -> tuple[str, ...]:
        """The columns of the input among those of a job's rejects.

        Raises:
            NoRejects, ResultUnreadable: as `rejects`.
        """
        names: list[str] = self._call("reject_columns", {"place": asdict(place)}, place)
        return tuple(names)

    def _page(self, function: str, place: FolderResult, offset: int, limit: int) -> Page:
        arguments = {"place": asdict(place), "offset": offset, "limit": limit}
        rows, goes_on = read_arrow(self._call(function, arguments, place), place.path)
        return Page(rows, offset + rows.num_rows if goes_on else None)

    def _call(self, function: str, arguments: Mapping[str, Any], place: FolderResult) -> Any:
        try:
            return call_aside(
                self.forks,
                f"launcher.rows.folderpages:{function}",
                arguments,
                timeout_s=TIMEOUT_S,
                working_dir=self.working_dir,
                environment=self.environment,
                memory_bytes=_MEMORY_BYTES,
            )
        except ForkFailed as error:
            line = f"{place.path}: no process can be started to read it; ask again in a moment"
            raise ResultUnreadable(line) from error
        except AsideFailed as error:
            if error.kind in _TOLD:
                raise _TOLD[error.kind](error.reason) from error
            raise ResultUnreadable(f"{place.path}: {_ENDS.get(error.kind, error.reason)}") from error


def results_as_arrow(place: dict[str, Any], offset: int, limit: int) -> bytes:
    """What `result_page` reads, as an Arrow stream; for a process of its own."""
    page = result_page(_place(place), offset, limit)
    return as_arrow(page.rows, page.next_offset is not None)


def rejects_as_arrow(place: dict[str, Any], offset: int, limit: int) -> bytes:
    """What `FoldersAside.rejects` gives, as an Arrow stream; for a process of its own."""
    columns = reject_columns(place)
    page = result_page(_place(place), offset, limit)
    ours = [name for name in page.rows.column_names if name not in columns]
    return as_arrow(page.rows.select([*ours, *columns]), page.next_offset is not None)


def reject_columns(place: dict[str, Any]) -> list[str]:
    """What `FoldersAside.reject_columns` gives; for a process of its own."""
    folder = _place(place)
    with opened_rejects(folder.path, folder.job_id, folder.within) as rejects:
        return rejects.input_columns()


def _place(given: dict[str, Any]) -> FolderResult:
    within = given["within"]
    bounds = None if within is None else Bounds(tuple(within["folders"]), tuple(within["closed"]))
    return FolderResult(given["path"], given["job_id"], bounds)
