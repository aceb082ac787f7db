"""A job's progress as it is seen: a live bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from launcher.report import Standing, clock, standing, standing_line
from launcher.state.job import Job
from launcher.worker.progress import Live, Snapshot, counts_of

# Lines of a log are read by people, later; more often than this they are noise.
_LINE_EVERY_S = 5.0
# Workers report once a second; a shorter look says nothing.
_PACE_AFTER_S = 1.0


class Display(Protocol):
    """Something that shows progress."""

    def show(self, job: Job, live: Live, snapshot: Snapshot | None) -> None:
        """Show how far a job of this machine is. Called a few times a second."""

    def draw(self, job: Standing) -> None:
        """The same of any job."""

    def close(self) -> None:
        """Leave the screen as it was."""


class Pace:
    """Rows per second of one attempt, since it was first seen running."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began: tuple[float, int] | None = None

    def rows_per_s(self, job: Job, live: Live) -> float | None:
        """The mean so far: steady, as it looks back to the beginning. None before there is one."""
        if job.status != "running":
            return None
        now, rows = self._now(), counts_of(job, live).total
        if self._began is None:
            self._began = now, rows
        spent_s, done = now - self._began[0], rows - self._began[1]
        return done / spent_s if spent_s >= _PACE_AFTER_S and done > 0 else None


class Lines:
    """Plain lines: one at each change of state, and one every five seconds between."""

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._now = now
        self._pace = Pace(now)
        self._said: str | None = None
        self._said_at = 0.0

    def show(self, job: Job, live: Live, snapshot: Snapshot | None) -> None:
        """Print a line if it is time."""
        self.draw(standing(job, live, snapshot, self._pace.rows_per_s(job, live)))

    def draw(self, job: Standing) -> None:
        """Print a line if it is time."""
        now = self._now()
        if job.is_over or (job.status == self._said and now - self._said_at < _LINE_EVERY_S):
            return
        self._said, self._said_at = job.status, now
        print(f"{job.job_id} {standing_line(job)}", file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing to do."""


class Bar:
    """A live bar: rows, rows per second, time left, rejects. Gone when closed."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._pace = Pace()
        self._named = False
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            # The bar takes the room that the numbers leave.
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            TextColumn("{task.fields[said]}", markup=False),
            console=Console(file=stream),
            expand=True,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, said="")
        self._progress.start()

    def show(self, job: Job, live: Live, snapshot: Snapshot | None) -> None:
        """Draw the bar as it is now."""
        self.draw(standing(job, live, snapshot, self._pace.rows_per_s(job, live)))

    def draw(self, job: Standing) -> None:
        """Draw the bar as it is now."""
        if not self._named:
            self._named = True
            self._progress.console.print(job.job_id, highlight=False, markup=False)
        said, total, completed = "", None, 0
        if job.status == "preparing" and job.snapshot is not None:
            copied = job.snapshot
            total, completed = copied.total, min(copied.rows, copied.total or copied.rows)
            said = f"{copied.rows:,} rows copied"
        elif job.status in ("running", "completing"):
            total, completed = job.total_rows, job.counts.total
            said = f"{completed:,} of {total or 0:,} rows"
            if job.rows_per_s:
                said += f" · {job.rows_per_s:,.0f}/s"
            if job.left_s is not None:
                said += f" · {clock(job.left_s)} left"
            if job.counts.rejected:
                said += f" · {job.counts.rejected:,} rejects"
        self._progress.update(self._task, description=job.status, total=total, completed=completed, said=said)
        self._progress.refresh()

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def display_for(stream: TextIO, plain: bool) -> Display:
    """A bar where there is a terminal and nothing speaks against it, else lines."""
    return Lines(stream) if plain or not stream.isatty() else Bar(stream)


@contextmanager
def counting_rows(stream: TextIO) -> Iterator[Callable[[int], None]]:
    """What to tell how many rows there are so far; shown in a terminal only, and gone at the end."""
    if not stream.isatty():
        yield lambda rows: None
        return
    from rich.console import Console

    with Console(file=stream).status("0 rows") as status:
        yield lambda rows: status.update(f"{rows:,} rows")


def print_summary(heading: str, lines: list[tuple[str, str]], status: str, stream: TextIO | None = None) -> None:
    """Print labelled lines: framed in a terminal, bare elsewhere."""
    stream = stream or sys.stdout
    width = max((len(label) for label, _ in lines), default=0)
    if not stream.isatty():
        print(heading, file=stream)
        for label, text in lines:
            print(f"  {label:<{width}}  {text}", file=stream)
        return
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    # Paths and commands are to be copied whole: long ones are folded, never cut.
    grid.add_column(overflow="fold")
    for label, text in lines:
        grid.add_row(label, Text(text))
    colour = {"completed": "green", "failed": "red"}.get(status, "yellow")
    panel = Panel(grid, title=Text(heading, style=f"bold {colour}"), title_align="left", border_style=colour)
    Console(file=stream).print(panel)
