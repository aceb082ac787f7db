"""What requests with an `Idempotency-Key` were answered, so that one that is repeated is answered the same."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from launcher.errors import KeyBusy, KeyReused
from launcher.state import tables
from launcher.state.database import Database

_kept = tables.idempotency


class Answer(NamedTuple):
    """What a request was answered."""

    status_code: int
    body: str


@dataclass(frozen=True)
class Turn:
    """One answering of a request, perhaps not the first.

    Args:
        job_id: of the job that it makes: one that is there already under this id is the request's own. None leaves it
            open.
        since: when it was answered first, by the store's clock: what has happened since may be what it asks for, done
            by a launcher that could not say so. None where it comes once.
        until: nobody else answers it before then; after that, this turn may be over, and another's.
    """

    job_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Idempotency:
    """The answers in a database, by tenant and key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, tenant: str, key: str, request_hash: str, busy_s: float) -> Answer | Turn:
        """Ask whether to answer a request. A turn says: do, then `finish`, `abandon` or `put_off`. Of many one gets it.

        Args:
            request_hash: of all that makes it this request and no other.
            busy_s: how long answering may take; after that, whoever asks again is told to.

        Returns:
            What it was answered before, or the turn: job id and time are the same each time.

        Raises:
            KeyReused: the key was used for another request.
            KeyBusy: the request is being answered.
        """
        with self._database.transaction() as connection:
            while True:
                now = self._database.now(connection)
                until = now + timedelta(seconds=busy_s)
                insert = self._database.upsert(_kept).values(
                    tenant=tenant, key=key, request_hash=request_hash, created_at=now, busy_until=until
                )
                if connection.execute(insert.on_conflict_do_nothing().returning(_kept.c.key)).first():
                    return _turn(tenant, key, now, until)
                row = connection.execute(sa.select(_kept).where(*_is(tenant, key)).with_for_update()).first()
                if row is None:
                    # Abandoned since.
                    continue
                if row.request_hash != request_hash:
                    raise KeyReused(key)
                if row.status_code is not None:
                    return Answer(row.status_code, row.body)
                # Waiting for the row may have taken a while.
                now = self._database.now(connection)
                if row.busy_until > now:
                    raise KeyBusy(key)
                until = now + timedelta(seconds=busy_s)
                connection.execute(sa.update(_kept).where(*_is(tenant, key)).values(busy_until=until))
                return _turn(tenant, key, row.created_at, until)

    def finish(self, tenant: str, key: str, turn: Turn, status_code: int, body: str) -> None:
        """Keep what a request was answered, unless the turn is over and another's."""
        with self._database.transaction() as connection:
            update = sa.update(_kept).where(*_is_at(tenant, key, turn))
            connection.execute(update.values(status_code=status_code, body=body))

    def abandon(self, tenant: str, key: str, turn: Turn) -> None:
        """Let the key go: nothing came of the request, it may be corrected and tried again at once."""
        with self._database.transaction() as connection:
            connection.execute(sa.delete(_kept).where(*_is_at(tenant, key, turn)))

    def put_off(self, tenant: str, key: str, turn: Turn) -> None:
        """Have the same request answered when it comes again, at once: whether something came of it is not known."""
        with self._database.transaction() as connection:
            now = self._database.now(connection)
            connection.execute(sa.update(_kept).where(*_is_at(tenant, key, turn)).values(busy_until=now))

    def sweep(self, before: datetime) -> int:
        """Forget requests that began before a time. Returns how many."""
        with self._database.transaction() as connection:
            return connection.execute(sa.delete(_kept).where(_kept.c.created_at < before)).rowcount


def _is(tenant: str, key: str) -> "tuple[sa.ColumnElement[bool], ...]":
    return _kept.c.tenant == tenant, _kept.c.key == key


def _is_at(tenant: str, key: str, turn: Turn) -> "tuple[sa.ColumnElement[bool], ...]":
    # After its time a turn may be another's.
    return *_is(tenant, key), _kept.c.status_code.is_(None), _kept.c.busy_until == turn.until


def _turn(tenant: str, key: str, begun: datetime, until: datetime) -> Turn:
    name = f"{tenant} {begun.isoformat()} {key}"
    return Turn(f"batch-{hashlib.sha256(name.encode()).hexdigest()[:10]}", begun, until)
