"""A job's progress on the screen, drawn as `penstock run` draws it. What that needs is imported when it is drawn."""

import sys
from datetime import UTC, datetime
from typing import Any, Protocol

from launcher.client.answers import JobStatus


class Display(Protocol):
    """Something that shows progress; see `launcher.screen.Display`."""

    def draw(self, job: Any) -> None:
        """Show how far a job is, given what `standing` makes of it."""

    def close(self) -> None:
        """Leave the screen as it was."""


def display() -> Display:
    """A bar where the standard error is a terminal, else a line now and then."""
    from launcher.screen import display_for

    return display_for(sys.stderr, plain=False)


def standing(status: JobStatus) -> Any:
    """How far a job is, as a display takes it."""
    from launcher.report import Standing
    from transforms.counts import Counts

    completion = status.estimated_completion
    counts = Counts(status.counts.scored_rows, status.counts.rejected_rows, status.counts.skipped_rows)
    return Standing(
        status.job_id,
        status.status,  # type: ignore[arg-type]  # a newer server may have other states; they are only shown
        status.progress.total_rows,
        counts,
        status.rows_per_second,
        expected_s=None if completion is None else max(0.0, (completion - datetime.now(UTC)).total_seconds()),
    )
