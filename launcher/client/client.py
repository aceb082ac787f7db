"""The service, as a Python program uses it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from launcher.client.answers import LIST_LIMIT, Estimate, Told, pages, read_estimate, read_job, read_submission
from launcher.client.errors import Misconfigured
from launcher.client.job import BATCH, Job
from launcher.client.registered import Connections, Models, Schedules
from launcher.client.wire import DEFAULT_URL, Wire

# Tries after the first: about six seconds of a server that is away.
_RETRIES = 5
# An estimate looks at the data first, and the service gives that a minute.
_ESTIMATE_S = 90.0


class Client:
    """A client of one service. Close it, or use it as a context; may be used from several threads.

    Requests that find the server away or busy are sent again, POSTs too: each carries a key of its own by which the
    server knows it again.

    Args:
        url: `http://host:port`; None: PENSTOCK_SERVER, or http://127.0.0.1:8080.
        api_key: None: PENSTOCK_API_KEY, or none. It is sent to this server only.
        timeout_s: for the server to answer a request.
        retries: how often a request is sent again.

    Raises:
        Misconfigured: the address or the key cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        *,
        retries: int = _RETRIES,
    ) -> None:
        key = os.environ.get("PENSTOCK_API_KEY") or None if api_key is None else api_key
        self._wire = Wire(url or os.environ.get("PENSTOCK_SERVER") or DEFAULT_URL, key, timeout_s, retries)
        self.models = Models(self._wire)
        self.connections = Connections(self._wire)
        self.schedules = Schedules(self._wire)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._wire.url

    def close(self) -> None:
        """Let go of the connections to the server."""
        self._wire.close()

    def submit(self, spec: Mapping[str, Any], idempotency_key: str | None = None) -> Job:
        """Submit a job. It waits in the tenant's queue when this returns.

        Args:
            spec: the body of the request.
            idempotency_key: the same key and spec give the same job, also from another client; None makes one up.

        Raises:
            RequestRefused: names each field that is wrong.
            Conflict: the key came with another spec before.
            Misconfigured: the spec has a schedule; `schedules.submit` takes it.
            PenstockError: see the tree.
        """
        if spec.get("schedule") is not None:
            raise Misconfigured("the spec has a schedule, so no job comes of it now; use client.schedules.submit")
        answer = self._wire.ask("POST", BATCH, body=dict(spec), idempotency_key=idempotency_key)
        submission = read_submission(Told(answer, f"POST {BATCH}"))
        return Job(self._wire, submission.job_id, submission=submission)

    def job(self, id: str) -> Job:
        """The job of an id. Nothing is asked yet.

        Raises:
            NotFound: the id is empty.
        """
        return Job(self._wire, id)

    def jobs(
        self,
        *,
        status: str | Sequence[str] = (),
        model_id: str | None = None,
        schedule_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        page_size: int = 50,
    ) -> Iterator[Job]:
        """The tenant's jobs, the newest first; each has where it stood in `seen`. Asks page by page.

        Args:
            status: only those in this state, or one of these.
            model_id, schedule_id: only those of this model or schedule.
            since, until: only those that were submitted in this time; aware.
            page_size: how many are asked for at once, at most 500.

        Raises:
            RequestRefused: there is no such state.
            PenstockError: see the tree.
        """
        query = {
            "status": [status] if isinstance(status, str) else list(status),
            "model_id": model_id,
            "schedule_id": schedule_id,
            "since": _time(since, "since"),
            "until": _time(until, "until"),
            "limit": min(page_size, LIST_LIMIT),
        }

        def ask(cursor: str | None) -> Told:
            return Told(self._wire.ask("GET", BATCH, query={**query, "cursor": cursor}), f"GET {BATCH}")

        for page in pages(ask, "jobs"):
            for each in page:
                seen = read_job(Told(each, f"GET {BATCH}"))
                yield Job(self._wire, seen.job_id, seen)

    def estimate(self, spec: Mapping[str, Any]) -> Estimate:
        """What a job would take: rows, time and memory, from a timed sample. Takes seconds, writes nothing.

        Raises:
            RequestRefused: names each field that is wrong, or says why the job could not run.
            PenstockError: see the tree.
        """
        path = f"{BATCH}/estimate"
        timeout_s = max(self._wire.timeout_s, _ESTIMATE_S)
        return read_estimate(Told(self._wire.ask("POST", path, body=dict(spec), timeout_s=timeout_s), f"POST {path}"))


def _time(at: datetime | None, name: str) -> str | None:
    if at is not None and at.tzinfo is None:
        raise Misconfigured(f"{name} has no time zone; give it one, such as datetime.UTC")
    return None if at is None else at.isoformat()
