"""Sessions are counted by the days on which they were started and last seen, too."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KINDS = ("user", "client")
FACETS = ("country", "browser", "os", "device_kind")
DAY = 86_400_000_000
# What a move is counted by, and what of the session's row it is.
DAYS = {"started_on": f"created_at / {DAY}", "seen_on": f"last_seen_at / {DAY}"}
ACTS = (("started", "INSERT", "NEW", 1), ("ended", "DELETE", "OLD", -1))
# Of a row that has a time on another day than before.
TIMES = "created_at, last_seen_at"
IS_MOVED = " OR ".join(f"OLD.{day} <> NEW.{day}" for day in DAYS.values())


def upgrade() -> None:
    is_postgres = op.get_bind().dialect.name == "postgresql"
    if is_postgres:
        # Nobody may come or go until what is counted and what is there are the same.
        op.execute("LOCK TABLE user_sessions, client_sessions IN SHARE ROW EXCLUSIVE MODE")
    op.create_table(
        "session_days",
        sa.Column("kind", sa.String(), nullable=False),
        *[sa.Column(name, sa.Integer(), nullable=False, autoincrement=False) for name in DAYS],
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", *DAYS, name=op.f("pk_session_days")),
    )
    remake_moves("session_changes", "session_moves", *DAYS)
    for kind in KINDS:
        # Nobody is seen before he signed in. That a clock was set back is what older versions may have written.
        op.execute(f"UPDATE {kind}_sessions SET last_seen_at = created_at WHERE last_seen_at < created_at")  # noqa: S608
    count(FACETS, "session_counts", FACETS)
    count(DAYS, "session_days", DAYS.values())
    if is_postgres:
        count_on_postgres("session_moves", DAYS)
    else:
        count_on_sqlite("session_counts", "session_days")


def downgrade() -> None:
    is_postgres = op.get_bind().dialect.name == "postgresql"
    for kind in KINDS:
        op.execute(f"DROP TRIGGER count_seen ON {kind}_sessions" if is_postgres else f"DROP TRIGGER count_{kind}_seen")
    if is_postgres:
        op.execute("DROP FUNCTION count_seen()")
    remake_moves("session_moves", "session_changes")
    count(FACETS, "session_counts", FACETS)
    if is_postgres:
        count_on_postgres("session_changes", {})
    else:
        count_on_sqlite("session_counts")
    op.drop_table("session_days")


def remake_moves(old: str, new: str, *days: str) -> None:
    """Make the table of what came and went anew: what is in it is about to be counted.

    By another name: a server of the older version that still runs would take the moves and add up but half of each.
    """
    op.drop_table(old)
    op.create_table(
        new,
        sa.Column("id", ID, autoincrement=True, nullable=False),
        *[sa.Column(name, sa.String(), nullable=False) for name in ("kind", *FACETS)],
        *[sa.Column(name, sa.Integer(), nullable=False) for name in days],
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{new}")),
        sqlite_autoincrement=True,
    )


def count(keys, table: str, values) -> None:
    """Count the sessions that are there by `values` of their rows."""
    names, made = ", ".join(keys), ", ".join(values)
    op.execute(f"DELETE FROM {table}")  # noqa: S608
    for kind in KINDS:
        op.execute(
            f"INSERT INTO {table} (kind, {names}, count)"  # noqa: S608
            f" SELECT '{kind}', {made}, count(*) FROM {kind}_sessions GROUP BY {made}"
        )


def count_on_postgres(moves: str, days: dict[str, str]) -> None:
    """Have each move written beside the session's own row; a statement once, however many came or went."""
    names, made = ", ".join((*FACETS, *days)), ", ".join((*FACETS, *days.values()))
    op.execute(f"""
        CREATE OR REPLACE FUNCTION count_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO {moves} (kind, {names}, count)
            SELECT TG_ARGV[0], {made}, TG_ARGV[1]::bigint * count(*) FROM changed GROUP BY {made};
            RETURN NULL;
        END $$
    """)  # noqa: S608
    if not days:
        return
    before, after = (", ".join(f"{row}.{value}" for value in (*FACETS, *days.values())) for row in ("OLD", "NEW"))
    op.execute(f"""
        CREATE FUNCTION count_seen() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO {moves} (kind, {names}, count)
            VALUES (TG_ARGV[0], {before}, -1), (TG_ARGV[0], {after}, 1);
            RETURN NULL;
        END $$
    """)  # noqa: S608
    for kind in KINDS:
        op.execute(f"""
            CREATE TRIGGER count_seen AFTER UPDATE OF {TIMES} ON {kind}_sessions
            FOR EACH ROW WHEN ({IS_MOVED}) EXECUTE FUNCTION count_seen('{kind}')
        """)


def count_on_sqlite(*tables: str) -> None:
    """Have each move added to the counts at once: one writes at a time."""
    for kind in KINDS:
        for name, act, row, sign in ACTS:
            op.execute(f"DROP TRIGGER count_{kind}_{name}")
            added = " ".join(add(table, kind, row, sign) for table in tables)
            op.execute(f"CREATE TRIGGER count_{kind}_{name} AFTER {act} ON {kind}_sessions BEGIN {added} END")
        if "session_days" in tables:
            moved = add("session_days", kind, "OLD", -1) + add("session_days", kind, "NEW", 1)
            op.execute(f"""
                CREATE TRIGGER count_{kind}_seen AFTER UPDATE OF {TIMES} ON {kind}_sessions
                WHEN {IS_MOVED} BEGIN {moved} END
            """)


def add(table: str, kind: str, row: str, count: int) -> str:
    """The statement that adds to the count that a row belongs to."""
    keys = dict(zip(FACETS, FACETS, strict=True)) if table == "session_counts" else DAYS
    values = ", ".join(f"{row}.{value}" for value in keys.values())
    return (
        f"INSERT INTO {table} (kind, {', '.join(keys)}, count) VALUES ('{kind}', {values}, {count})"  # noqa: S608
        " ON CONFLICT DO UPDATE SET count = count + excluded.count;"
    )
