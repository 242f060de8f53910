"""Sessions know the day on which they were last seen, and are found by their account with all that filters ask.

A day changes seldom: indexes that hold it are written once a day, and tell of all sessions but those of the day that a
filter begins or ends on whether they were seen in its time. PostgreSQL writes each index of a row that is seen anyway.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

KINDS = ("user", "client")
FACETS = ("country", "browser", "os", "device_kind")
# What lists are searched by, beside their times.
KEYS = ("ip_key", "device_key")
HAS_DEVICE = sa.text("device_id IS NOT NULL")
DAY = 86_400_000_000
SEEN_ON = f"last_seen_at / {DAY}"


def upgrade() -> None:
    is_postgres = op.get_bind().dialect.name == "postgresql"
    for kind in KINDS:
        table = f"{kind}_sessions"
        for key in KEYS:
            op.drop_index(op.f(f"ix_{table}_{key}"), table_name=table)
        op.add_column(table, sa.Column("seen_on", sa.Integer(), server_default="0", nullable=False))
        if is_postgres:
            # Written anew, where an UPDATE would leave each row's old version behind.
            op.execute(f"ALTER TABLE {table} ALTER COLUMN seen_on TYPE integer USING {SEEN_ON}")
        else:
            op.execute(f"UPDATE {table} SET seen_on = {SEEN_ON}")  # noqa: S608
        for key in ("account_id", *KEYS):
            make_index(table, key, "seen_on")
        remake_unique(table, sqlite_where=HAS_DEVICE, postgresql_where=HAS_DEVICE)
    if is_postgres:
        date_on_postgres()
    else:
        date_on_sqlite()


def downgrade() -> None:
    is_postgres = op.get_bind().dialect.name == "postgresql"
    for kind in KINDS:
        table = f"{kind}_sessions"
        if is_postgres:
            op.execute(f"DROP TRIGGER date_seen ON {table}")
        else:
            op.execute(f"DROP TRIGGER date_{kind}_started")
            op.execute(f"DROP TRIGGER date_{kind}_seen")
        remake_unique(table)
        for key in ("account_id", *KEYS):
            op.drop_index(op.f(f"ix_{table}_{key}"), table_name=table)
        op.drop_column(table, "seen_on")
        for key in KEYS:
            make_index(table, key)
    if is_postgres:
        op.execute("DROP FUNCTION date_seen()")


def make_index(table: str, key: str, *more: str) -> None:
    op.create_index(
        op.f(f"ix_{table}_{key}"),
        table,
        [key, "created_at", "id", *FACETS, *more],
        postgresql_include=["last_seen_at"],
    )


def remake_unique(table: str, **where) -> None:
    """A device has one session of an account, where it has an id."""
    name = op.f(f"ix_{table}_account_id_device_id")
    op.drop_index(name, table_name=table)
    op.create_index(name, table, ["account_id", "device_id"], unique=True, **where)


def date_on_postgres() -> None:
    op.execute(f"""
        CREATE FUNCTION date_seen() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.seen_on := NEW.{SEEN_ON};
            RETURN NEW;
        END $$
    """)
    for kind in KINDS:
        op.execute(f"""
            CREATE TRIGGER date_seen BEFORE INSERT OR UPDATE OF last_seen_at ON {kind}_sessions
            FOR EACH ROW EXECUTE FUNCTION date_seen()
        """)


def date_on_sqlite() -> None:
    for kind in KINDS:
        dated = f"BEGIN UPDATE {kind}_sessions SET seen_on = NEW.{SEEN_ON} WHERE id = NEW.id; END"  # noqa: S608
        op.execute(f"CREATE TRIGGER date_{kind}_started AFTER INSERT ON {kind}_sessions {dated}")
        op.execute(f"""
            CREATE TRIGGER date_{kind}_seen AFTER UPDATE OF last_seen_at ON {kind}_sessions
            WHEN OLD.{SEEN_ON} <> NEW.{SEEN_ON} {dated}
        """)
