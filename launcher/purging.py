"""Whether a job can be removed for good."""

import contextlib
from collections.abc import Iterator

from launcher.errors import JobUnknown, NotNow
from launcher.state.job import ACTIVE, Job
from launcher.state.store import Filter, JobStore, Position

# Active jobs of a tenant that are read together.
_READ_TOGETHER = 500


def check_purge(store: JobStore, job: Job) -> None:
    """Demand that a job of the service can be removed: nothing works on it, or adds to what is kept of it.

    Raises:
        NotNow: says what to do first.
    """
    if not job.managed:
        raise NotNow(f"{job.id} was run by `penstock run`; `penstock jobs delete {job.id}` removes it there")
    if not job.is_over:
        raise NotNow(f"{job.id} is {job.status}; cancel it first, and purge it once it is over")
    for each in _active(store, job.tenant):
        if job.id in _retried_by(store, each):
            raise NotNow(
                f"{each.id} scores rejected rows of {job.id} again and adds them to its result; cancel it first, or "
                "wait for its end"
            )


def _active(store: JobStore, tenant: str) -> Iterator[Job]:
    after: Position | None = None
    while True:
        some = store.page(Filter(tenant, tuple(ACTIVE)), _READ_TOGETHER, after)
        yield from some
        if len(some) < _READ_TOGETHER:
            return
        after = Position(some[-1].created_at, some[-1].id)


def _retried_by(store: JobStore, job: Job) -> Iterator[str]:
    """The jobs whose rejected rows a job scores again, the nearest first: a retry may be of a retry's rows."""
    with contextlib.suppress(JobUnknown):
        while job.retry_of is not None:
            yield job.retry_of
            job = store.get(job.retry_of)
