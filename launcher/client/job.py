"""A job of the service, to be watched, waited for, cancelled, tried again, and its rows read."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from typing import Any, Literal

import launcher.client.showing as showing
from launcher.client.answers import Event, JobStatus, Submission, Told, pages, read_job
from launcher.client.errors import AnswerUnreadable
from launcher.client.events import read_events
from launcher.client.following import Deadline, follow
from launcher.client.saving import check_target, save
from launcher.client.wire import ARROW, DEFAULT_URL, Wire, part

BATCH = "/api/v1/inference/batch"
# The most rows that the service gives at once.
PAGE_ROWS = 10_000
# Between two looks at the log of a job that is not over.
_LOG_EVERY_S = 1.0

# The service gives a destination a minute to remove what is staged there.
_PURGE_S = 90.0


class Job:
    """A job. Made by the `Client`; asks only when it is told to.

    Args:
        wire: the connection to its service.
        id: which job.
        seen: where it stood when it was last heard of; None where it was not.
        submission: what the service said when it took the job in, if that was by this object's client.
    """

    def __init__(
        self, wire: Wire, id: str, seen: JobStatus | None = None, submission: Submission | None = None
    ) -> None:
        self._wire = wire
        self._path = f"{BATCH}/{part(id, 'job')}"
        self.id = id
        self.seen = seen
        self.submission = submission

    def __repr__(self) -> str:
        return f"Job({self.id!r})" if self.seen is None else f"Job({self.id!r}, {self.seen.status})"

    def status(self) -> JobStatus:
        """Where it stands now.

        Raises:
            NotFound: there is no such job.
            PenstockError: see the tree.
        """
        return self._heard(self._wire.ask("GET", self._path), "GET")

    def wait(self, timeout_s: float | None = None, show_progress: bool | None = None) -> JobStatus:
        """Wait until it is over; returns how it ended, also when it failed. Outages of the server are borne.

        Ctrl-C ends the waiting, not the job.

        Args:
            timeout_s: None waits for ever.
            show_progress: on the standard error: a bar in a terminal, else a line now and then. None: only in a
                terminal.

        Raises:
            StillRunning: it was not over in time; it goes on.
            ServerUnavailable: nothing was heard of the server for five minutes.
            PenstockError: see the tree.
        """
        shown = sys.stderr.isatty() if show_progress is None else show_progress
        display = showing.display() if shown else None
        try:
            with closing(follow(self._wire, self._path, Deadline(timeout_s))) as news:
                for seen in news:
                    self.seen = seen
                    if display is not None:
                        display.draw(showing.standing(seen))
        except KeyboardInterrupt:
            if display is not None:
                # Taken away before anything is said below it.
                display.close()
                display = None
                print(f"{self.id} goes on; `penstock cancel {self.id}{self._words()}` ends it", file=sys.stderr)
            raise
        finally:
            if display is not None:
                display.close()
        return seen

    def cancel(self) -> JobStatus:
        """Tell it to stop; it has within five seconds, see `wait`. What is staged is kept for `retry`.

        Raises:
            Conflict: it is over.
            PenstockError: see the tree.
        """
        return self._heard(self._wire.ask("POST", f"{self._path}/cancel"), "POST")

    def purge(self) -> None:
        """Remove it, once it is over: its record, its log, what the service keeps of it and what it has staged.

        What it published where you wanted it stays. It can be repeated where it was cut off.

        Raises:
            Conflict: it is not over, or its rejected rows are being scored again.
            ServerUnavailable: the destination is away where rows of it are staged.
            PenstockError: see the tree.
        """
        timeout_s = max(self._wire.timeout_s, _PURGE_S)
        self._wire.ask("DELETE", self._path, query={"purge": "true"}, timeout_s=timeout_s)
        self.seen = None

    def retry(self, only_rejected: bool = False, max_reject_ratio: float | None = None) -> "Job":
        """Go on with it after it failed or was cancelled. What is staged is not scored again.

        Args:
            only_rejected: score the rejected rows of a job that is over again, as another job; that one is returned.
            max_reject_ratio: bear this share of rejected rows from now on.

        Returns:
            The job that runs: this one, or the new one.

        Raises:
            Conflict: it is not over, or there is nothing to do.
            PenstockError: see the tree.
        """
        query = {"only": "rejected" if only_rejected else None, "max_reject_ratio": max_reject_ratio}
        path = f"{self._path}/retry"
        started = read_job(Told(self._wire.ask("POST", path, query=query), f"POST {path}"))
        if started.job_id != self.id:
            return Job(self._wire, started.job_id, started)
        self.seen = started
        return self

    def events(self) -> Iterator[Event]:
        """What happened to it so far, then what happens, until it is over or the connection breaks.

        Raises:
            ServerUnavailable: the connection broke; `wait` would have gone on.
            PenstockError: see the tree.
        """
        with closing(read_events(self._wire, f"{self._path}/events")) as events:
            yield from (event for event in events if event is not None)

    def logs(self, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        """The lines of its log so far.

        Args:
            follow: then the lines to come, until it is over.
            tail: begin with this many lines before the end.

        Raises:
            PenstockError: see the tree.
        """
        path = f"{self._path}/logs"
        query: dict[str, Any] = {"tail": tail}
        patience = Deadline(None)
        while True:
            told = Told(self._wire.ask("GET", path, query=query), f"GET {path}")
            lines = told.listed("lines")
            yield from map(str, lines)
            offset = told.whole("next_offset") or 0
            stands_still = not lines and offset == query.get("offset", 0)
            if told.truth("complete") or (stands_still and not follow):
                return
            if stands_still:
                patience.pause(_LOG_EVERY_S)
            query = {"offset": offset}

    def rejects(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Its rejected rows: position, error_type and error, then the input's columns.

        Args:
            limit: how many at most; None is all.

        Raises:
            Conflict: it has not published any yet.
            Gone: they are not there any more.
            PenstockError: see the tree.
        """
        return self._rows("rejects", limit)

    def results(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """The rows of its result, in the order in which they lie there, as JSON has them: times and decimals as texts.

        Args:
            limit: how many at most; None is all.

        Raises:
            Conflict: it is not completed.
            Gone: they are not there any more, or another job's result has taken their place.
            PenstockError: see the tree.
        """
        return self._rows("results", limit)

    def results_arrow(self) -> Any:
        """All rows of its result as a `pyarrow.Table`, with their types. They have to fit into memory.

        Raises:
            Conflict, Gone: as `results`.
            PenstockError: see the tree.
        """
        import pyarrow as pa

        return pa.concat_tables(self._arrow_pages())

    def save_results(
        self,
        path: str | os.PathLike[str],
        overwrite: bool = False,
        saved: Callable[[int], None] = lambda rows: None,
    ) -> int:
        """Write all rows of its result into a file, which appears once it is whole; any number of rows.

        Args:
            path: ends in `.parquet`, `.csv` or `.arrow` (an Arrow IPC file).
            overwrite: whether a file that is there already is replaced.
            saved: is told how many rows are written, again and again.

        Returns:
            How many rows there are.

        Raises:
            Misconfigured: the name says no format, or the file is there already.
            Unwritable: the file cannot be written, or its format cannot hold a column.
            Conflict, Gone: as `results`.
            PenstockError: see the tree.
        """
        target = check_target(path, overwrite)
        return save(self._arrow_pages(), target, saved)

    def _arrow_pages(self) -> Iterator[Any]:
        """All rows of its result as tables, at least one."""
        import pyarrow as pa

        path = f"{self._path}/results"
        cursor: str | None = None
        while True:
            query = {"limit": PAGE_ROWS, "cursor": cursor}
            answer = self._wire.fetch("GET", path, query=query, accept=ARROW)
            try:
                with pa.ipc.open_stream(answer.body) as reader:
                    table = reader.read_all()
            except (pa.ArrowException, OSError) as error:
                raise AnswerUnreadable(f"GET {path}", "is no Arrow stream; is that Penstock?") from error
            yield table
            before, cursor = cursor, answer.headers.get(NEXT_CURSOR)
            if not cursor:
                return
            if cursor == before:
                raise AnswerUnreadable(f"GET {path}", "has the same cursor twice; it would never end")

    def _rows(self, name: Literal["rejects", "results"], limit: int | None) -> Iterator[dict[str, Any]]:
        path = f"{self._path}/{name}"
        page_rows = PAGE_ROWS if limit is None else max(1, min(limit, PAGE_ROWS))

        def ask(cursor: str | None) -> Told:
            return Told(self._wire.ask("GET", path, query={"limit": page_rows, "cursor": cursor}), f"GET {path}")

        rows = (dict(Told(row, f"GET {path}").values) for page in pages(ask, "rows") for row in page)
        return islice(rows, limit)

    def _words(self) -> str:
        """What a command has to be called with to ask the same service, with a blank before it."""
        by_default = (os.environ.get("PENSTOCK_SERVER") or DEFAULT_URL).strip().rstrip("/")
        return "" if self._wire.url == by_default else f" --server {self._wire.url}"

    def _heard(self, values: Mapping[str, Any], method: str) -> JobStatus:
        self.seen = read_job(Told(values, f"{method} {self._path}"))
        return self.seen


# Where the cursor of the next page is told when the body is Arrow.
NEXT_CURSOR = "x-next-cursor"
