"""Durations to the second, and how fast a job gets on."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns; what was estimated in minutes is kept."""
    op.add_column("jobs", sa.Column("estimated_seconds", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("speed", sa.Text(), nullable=True))
    op.execute("UPDATE jobs SET estimated_seconds = 60.0 * estimated_minutes")
    op.drop_column("jobs", "estimated_minutes")
