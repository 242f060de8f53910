"""Count guesses: what a refusal is counted by, and the tries that are under way."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
COLUMNS = ("target", "network")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("events", sa.Column(name, sa.String(), nullable=True))
        counted = sa.column(name).is_not(None)
        op.create_index(
            op.f(f"ix_events_{name}_at"), "events", [name, "at"], sqlite_where=counted, postgresql_where=counted
        )
    op.create_table(
        "guesses",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("network", sa.String(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_guesses")),
        sqlite_autoincrement=True,
    )
    for name in COLUMNS:
        op.create_index(op.f(f"ix_guesses_{name}_at"), "guesses", [name, "at"])


def downgrade() -> None:
    op.drop_table("guesses")
    for name in COLUMNS:
        op.drop_index(op.f(f"ix_events_{name}_at"), table_name="events")
        op.drop_column("events", name)
