"""The gate before publishing: a job passes it once, and cannot be cancelled after."""

from collections.abc import Callable
from dataclasses import dataclass, field

from launcher.errors import Conflict, StoreUnavailable
from launcher.home import Home
from launcher.state.store import JobStore
from transforms.errors import Cancelled, PipelineError


@dataclass(frozen=True)
class JobGate:
    """A `transforms.publish.Gate` that is a move of the job: running → completing. Cancelling is another; one wins.

    Picklable, and opened in whatever process publishes; a second opening by the same attempt does nothing. An attempt
    that is no longer the job's, as one that slept while another took its place, finds it shut.

    Args:
        open_store: opens the job store anew. Holds the store's password, if it has one: kept out of `repr`.
    """

    home: Home
    job_id: str
    attempt: int
    open_store: Callable[[], JobStore] = field(repr=False)

    def open(self) -> None:
        """Let the result be published.

        Raises:
            Cancelled: the job was stopped first.
            PipelineError: the job's state could not be written, so nothing may be published.
        """
        try:
            self._move()
        except StoreUnavailable:
            # Perhaps the job filled the disk that its own state is on.
            self.home.job(self.job_id).give_up_reserve()
            try:
                self._move()
            except StoreUnavailable as error:
                raise PipelineError(str(error)) from error

    def _move(self) -> None:
        store = self.open_store()
        try:
            store.move(self.job_id, "running", "completing", "all rows are staged", attempt=self.attempt)
        except Conflict as conflict:
            job = store.get(self.job_id)
            if (job.status, job.attempt) != ("completing", self.attempt):
                raise Cancelled(f"{self.job_id} was stopped before its result was published") from conflict
        finally:
            store.close()
