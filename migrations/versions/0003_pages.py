"""What the pages need: when a password was given, what is new about a device, known devices, pictures."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KINDS = ("user", "client")


def upgrade() -> None:
    for kind in KINDS:
        op.add_column(f"{kind}_sessions", sa.Column("password_at", sa.BigInteger(), nullable=True))
        op.add_column(f"{kind}_sessions", sa.Column("novelty", sa.String(), server_default="", nullable=False))
        op.add_column(
            f"{kind}s", sa.Column("tells_new_devices", sa.Boolean(), server_default=sa.true(), nullable=False)
        )
        op.add_column(f"{kind}s", sa.Column("language", sa.String(), server_default="", nullable=False))
    op.create_table(
        "known_devices",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("mark", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_known_devices")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_known_devices_kind_account_id_mark"), "known_devices", ["kind", "account_id", "mark"], unique=True
    )
    op.create_table(
        "pictures",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("file", sa.String(), nullable=False),
        sa.Column("jpeg", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pictures")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_pictures_kind_account_id"), "pictures", ["kind", "account_id"], unique=True)


def downgrade() -> None:
    op.drop_index(op.f("ix_pictures_kind_account_id"), table_name="pictures")
    op.drop_table("pictures")
    op.drop_index(op.f("ix_known_devices_kind_account_id_mark"), table_name="known_devices")
    op.drop_table("known_devices")
    for kind in KINDS:
        op.drop_column(f"{kind}s", "language")
        op.drop_column(f"{kind}s", "tells_new_devices")
        op.drop_column(f"{kind}_sessions", "novelty")
        op.drop_column(f"{kind}_sessions", "password_at")
