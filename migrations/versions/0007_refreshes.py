"""When the last refresh tokens were used: each gives its successor again for a moment, not the last one alone."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = ("user_sessions", "client_sessions")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("refreshed_before", sa.JSON(), nullable=True))


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "refreshed_before")
