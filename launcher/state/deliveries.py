"""Webhooks that are to be sent. A job's move records them; whoever sends them claims them for a while.

Each is sent at least once, unless it is given up; a receiver may see one twice, and in any order.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from launcher.state import tables
from launcher.state.database import Database

_deliveries = tables.deliveries


@dataclass(frozen=True)
class Delivery:
    """One event that one address is told of.

    Args:
        id: of the event; the same at each try.
        job_id, tenant: the job it is about, and whose that is.
        url: where it goes.
        event: what it says.
        created_at: when it came about.
        tries: how often it was claimed to be sent, this time included.
        next_at: when it is sent next; None when it was delivered, or given up.
        delivered_at: when it was.
        last_error: why the last try failed.
    """

    id: str
    job_id: str
    tenant: str
    url: str
    event: Mapping[str, Any]
    created_at: datetime
    tries: int
    next_at: datetime | None = None
    delivered_at: datetime | None = None
    last_error: str | None = None


class Deliveries:
    """The deliveries in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, limit: int, lease_s: float) -> list[tuple[Delivery, str | None]]:
        """Take deliveries that are due, the one that waits longest first, each with the secret that signs it.

        Args:
            limit: how many at most.
            lease_s: for so long nobody else gets them; what is neither `delivered` nor `failed` by then is due again.
        """
        jobs = tables.jobs.c
        with self._database.transaction() as connection:
            now = self._database.now(connection)
            query = (
                sa.select(_deliveries, jobs.webhook_secret)
                .outerjoin(tables.jobs, jobs.id == _deliveries.c.job_id)
                .where(_deliveries.c.next_at <= now)
                .order_by(_deliveries.c.next_at, _deliveries.c.id)
                .limit(limit)
                .with_for_update(of=_deliveries, skip_locked=True)
            )
            claimed: list[tuple[Delivery, str | None]] = []
            for row in connection.execute(query).all():
                values = {**row._mapping, "tries": row.tries + 1, "next_at": now + timedelta(seconds=lease_s)}
                secret = values.pop("webhook_secret")
                update = sa.update(_deliveries).where(_deliveries.c.id == row.id)
                connection.execute(update.values(tries=values["tries"], next_at=values["next_at"]))
                claimed.append((_delivery(values), secret))
            return claimed

    def delivered(self, delivery_id: str) -> None:
        """Record that it arrived."""
        with self._database.transaction() as connection:
            now = self._database.now(connection)
            update = sa.update(_deliveries).where(_deliveries.c.id == delivery_id)
            connection.execute(update.values(delivered_at=now, next_at=None, last_error=None))

    def failed(self, delivery_id: str, error: str, retry_in_s: float | None) -> None:
        """Record that it did not arrive. If it has arrived by another try, that stays.

        Args:
            error: why, in one line.
            retry_in_s: when it is due again; None gives it up.
        """
        with self._database.transaction() as connection:
            now = self._database.now(connection)
            next_at = None if retry_in_s is None else now + timedelta(seconds=retry_in_s)
            update = sa.update(_deliveries).where(_deliveries.c.id == delivery_id, _deliveries.c.delivered_at.is_(None))
            connection.execute(update.values(next_at=next_at, last_error=error))

    def of_job(self, job_id: str) -> list[Delivery]:
        """All deliveries about a job that are still kept, the oldest first."""
        query = sa.select(_deliveries).where(_deliveries.c.job_id == job_id)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(_deliveries.c.created_at, _deliveries.c.id))
            return [_delivery(dict(row._mapping)) for row in rows]

    def sweep(self, before: datetime) -> int:
        """Forget deliveries from before a time that are delivered or given up. Returns how many."""
        with self._database.transaction() as connection:
            done = sa.and_(_deliveries.c.next_at.is_(None), _deliveries.c.created_at < before)
            return connection.execute(sa.delete(_deliveries).where(done)).rowcount


def _delivery(values: Mapping[str, Any]) -> Delivery:
    return Delivery(**{**values, "event": json.loads(values["event"])})
