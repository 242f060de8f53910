"""Which contact of an account may be a stranger's although its code was typed in."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = ("users", "clients")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("doubtful_contact", sa.String(), nullable=True))


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "doubtful_contact")
