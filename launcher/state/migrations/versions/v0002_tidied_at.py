"""When an expired job was tidied away for good: a launcher may die, or a destination be away, in the middle of it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_UNTIDIED = sa.text("expired_at IS NOT NULL AND tidied_at IS NULL")


def upgrade() -> None:
    """Add the column; what expired before was tidied away."""
    op.add_column("jobs", sa.Column("tidied_at", sa.DateTime(), nullable=True))
    op.execute("UPDATE jobs SET tidied_at = expired_at WHERE expired_at IS NOT NULL")
    op.create_index(
        "ix_jobs_untidied", "jobs", ["expired_at"], unique=False, sqlite_where=_UNTIDIED, postgresql_where=_UNTIDIED
    )
