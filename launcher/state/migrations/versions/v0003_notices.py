"""What was found about a job's data."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; of jobs that were before, nothing was found."""
    op.add_column("jobs", sa.Column("notices", sa.Text(), nullable=True))
