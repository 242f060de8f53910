"""Sessions by address or device, with what they are counted by: no row is read to count them."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

KEYS = ("ip_key", "device_key")
FACETS = ("country", "browser", "os", "device_kind")


def remake(*more: str) -> None:
    for table in ("user_sessions", "client_sessions"):
        for key in KEYS:
            name = op.f(f"ix_{table}_{key}")
            op.drop_index(name, table_name=table)
            op.create_index(name, table, [key, "created_at", "id", *more])


def upgrade() -> None:
    remake(*FACETS)


def downgrade() -> None:
    remake()
