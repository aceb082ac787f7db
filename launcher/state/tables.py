"""The tables of the job store, as SQLAlchemy knows them. `migrations/` makes them; a test holds the two together.

They hold for SQLite and PostgreSQL alike: text, whole numbers, reals, times without a zone (all are UTC), JSON as text.
"""

from datetime import UTC, datetime

import sqlalchemy as sa


class Utc(sa.types.TypeDecorator[datetime]):
    """An aware time, kept as UTC without its zone, as SQLite and PostgreSQL both can."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Out of any zone into none."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Into UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


metadata = sa.MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"},
)

_UNTIDIED = sa.text("expired_at IS NOT NULL AND tidied_at IS NULL")

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("working_dir", sa.Text, nullable=False),
    sa.Column("created_at", Utc, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text),
    sa.Column("started_at", Utc),
    sa.Column("finished_at", Utc),
    sa.Column("error", sa.Text),
    sa.Column("total_rows", sa.BigInteger),
    sa.Column("counts", sa.Text),
    sa.Column("already", sa.Text, nullable=False),
    sa.Column("seconds", sa.Text, nullable=False),
    sa.Column("output", sa.Text),
    sa.Column("rejects", sa.Text),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("pid", sa.BigInteger),
    sa.Column("pid_started", sa.Double),
    sa.Column("managed", sa.Boolean, nullable=False),
    sa.Column("model_id", sa.Text),
    sa.Column("model_version", sa.Integer),
    sa.Column("name", sa.Text),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("schedule_id", sa.Text),
    sa.Column("scheduled_at", Utc),
    sa.Column("retry_of", sa.Text),
    sa.Column("queued_at", Utc),
    sa.Column("not_before", Utc),
    sa.Column("retries", sa.Integer, nullable=False),
    sa.Column("memory_strikes", sa.Integer, nullable=False),
    sa.Column("deadline_at", Utc),
    sa.Column("cancel_requested_at", Utc),
    sa.Column("owner", sa.Text),
    sa.Column("lease_until", Utc),
    sa.Column("running_at", Utc),
    sa.Column("live", sa.Text, nullable=False),
    sa.Column("live_at", Utc),
    sa.Column("shown", sa.Text, nullable=False),
    sa.Column("snapshot_rows", sa.BigInteger),
    sa.Column("notices", sa.Text),
    sa.Column("estimated_seconds", sa.Double),
    sa.Column("speed", sa.Text),
    sa.Column("keeps_result", sa.Boolean, nullable=False),
    sa.Column("expired_at", Utc),
    sa.Column("webhook", sa.Text),
    # Never part of a `Job`: only the deliverer of webhooks asks for it.
    sa.Column("webhook_secret", sa.Text),
    sa.Column("traceparent", sa.Text),
    sa.Column("times", sa.Text, nullable=False),
    # Never part of a `Job` either: only the janitor cares. None while something may be left to delete.
    sa.Column("tidied_at", Utc),
    # Pages of a tenant's jobs, the newest first, as they are or, state by state, of one model or schedule.
    sa.Index(None, "tenant", "created_at", "id"),
    sa.Index(None, "tenant", "status", "created_at", "id"),
    sa.Index(None, "tenant", "model_id", "status", "created_at", "id"),
    # Begins with the schedule, whose jobs are counted without asking for the tenant.
    sa.Index(None, "schedule_id", "tenant", "status", "created_at", "id"),
    # The queue, and who is at work.
    sa.Index(None, "managed", "status", "tenant", "queued_at", "not_before"),
    # What has outlived its time, and what of that is not tidied away.
    sa.Index(None, "managed", "expired_at", "finished_at"),
    sa.Index("ix_jobs_untidied", "expired_at", sqlite_where=_UNTIDIED, postgresql_where=_UNTIDIED),
)

moves = sa.Table(
    "moves",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("source", sa.Text),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("at", Utc, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
)

# One row: what is true of the store as a whole.
facts = sa.Table(
    "facts",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    # Whose turn it is: the one served longest ago among those with the fewest jobs at work.
    sa.Column("served_at", Utc, nullable=False),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("name", sa.Text),
    # SHA-256 of a secret of 256 random bits: nothing slower is needed against guessing.
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("created_at", Utc, nullable=False),
    sa.Column("revoked_at", Utc),
)

models = sa.Table(
    "models",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("model_id", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("working_dir", sa.Text),
    sa.Column("description", sa.Text),
    sa.Column("created_at", Utc, nullable=False),
    # The row stays, so that its number is not given again: jobs go on naming it.
    sa.Column("deleted_at", Utc),
)

connections = sa.Table(
    "connections",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("created_at", Utc, nullable=False),
    sa.Column("updated_at", Utc, nullable=False),
)

schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("name", sa.Text),
    sa.Column("cron", sa.Text, nullable=False),
    sa.Column("timezone", sa.Text, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("missed", sa.Text, nullable=False),
    sa.Column("overlap", sa.Text, nullable=False),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("webhook_secret", sa.Text),
    # Whether an admin key wrote it: its jobs may do what that key may.
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("created_at", Utc, nullable=False),
    sa.Column("next_at", Utc),
    sa.Column("last_at", Utc),
    sa.Column("last_job_id", sa.Text),
    sa.Column("last_error", sa.Text),
    sa.Index(None, "tenant", "created_at", "id"),
    sa.Index(None, "enabled", "next_at"),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("request_hash", sa.Text, nullable=False),
    sa.Column("created_at", Utc, nullable=False),
    # Until then somebody is answering; after that, with no answer, the request may be tried again.
    sa.Column("busy_until", Utc, nullable=False),
    sa.Column("status_code", sa.Integer),
    sa.Column("body", sa.Text),
    sa.Index(None, "created_at"),
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("created_at", Utc, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    # None: delivered, or given up.
    sa.Column("next_at", Utc),
    sa.Column("delivered_at", Utc),
    sa.Column("last_error", sa.Text),
    sa.Index(None, "next_at"),
    sa.Index(None, "job_id"),
)

# Counters of all launchers together, for /metrics: added to in the transaction of what they count.
totals = sa.Table(
    "totals",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("label", sa.Text, primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
)
