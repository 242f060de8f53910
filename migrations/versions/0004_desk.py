"""What the desk needs: viewers, what searches go by, cut-offs, counts that are kept, jobs, reasons."""

import ipaddress
import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
PLAIN = sa.String().with_variant(sa.String(collation="C"), "postgresql")
KINDS = ("user", "client")
FACETS = ("country", "browser", "os", "device_kind")
UNCONFIRMED = {
    "user": "NOT confirmed_email AND NOT confirmed_phone AND confirmed_by_staff_at IS NULL",
    "client": "NOT confirmed_phone AND confirmed_by_staff_at IS NULL",
}
FILLED_AT_ONCE = 5000
TOLD = "NEW.account_id IS NOT NULL"


def upgrade() -> None:
    is_postgres = op.get_bind().dialect.name == "postgresql"
    op.add_column("users", sa.Column("is_viewer", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("events", sa.Column("ip_key", sa.LargeBinary(), nullable=True))
    op.add_column("events", sa.Column("reason", sa.String(), nullable=True))
    for kind in KINDS:
        op.add_column(f"{kind}s", sa.Column("surname_key", PLAIN, server_default="", nullable=False))
        op.add_column(f"{kind}_sessions", sa.Column("device_key", PLAIN, server_default="", nullable=False))
        op.add_column(f"{kind}_sessions", sa.Column("ip_key", sa.LargeBinary(), nullable=True))
        fill(f"{kind}s", "surname", "surname_key", fold)
        fill(f"{kind}_sessions", "device", "device_key", lambda device: fold(device)[:64])
        fill(f"{kind}_sessions", "ip", "ip_key", make_key)
    fill("events", "ip", "ip_key", make_key)
    if is_postgres:
        for kind, contacts in (("user", ("email", "phone")), ("client", ("phone",))):
            for contact in contacts:
                op.alter_column(f"{kind}s", contact, type_=PLAIN)
    make_tables()
    make_indexes()
    count()
    if is_postgres:
        make_postgres_triggers()
        tell_of_events(f"{TOLD} OR NEW.type = 'emergency'")
    else:
        make_sqlite_triggers()


def fill(table: str, source: str, target: str, make) -> None:
    """Fill `target` in every row from `source`, some rows at a time."""
    connection, last = op.get_bind(), 0
    rows = sa.table(table, sa.column("id"), sa.column(source), sa.column(target))
    while True:
        found = connection.execute(
            sa.select(rows.c.id, rows.c[source])
            .where(rows.c.id > last, rows.c[source].is_not(None))
            .order_by(rows.c.id)
            .limit(FILLED_AT_ONCE)
        ).all()
        if not found:
            return
        last = found[-1][0]
        connection.execute(
            sa.update(rows).where(rows.c.id == sa.bindparam("row")).values({target: sa.bindparam("made")}),
            [{"row": number, "made": make(value)} for number, value in found],
        )


def fold(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip()).casefold()


def make_key(text: str) -> bytes | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = int(ipaddress.IPv6Address("::ffff:0.0.0.0")) if address.version == 4 else 0
    return (mapped + int(address)).to_bytes(16, "big")


def make_tables() -> None:
    op.create_table(
        "cutoffs",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_cutoffs")),
    )
    for kind in KINDS:
        op.execute(f"INSERT INTO cutoffs (kind, at) VALUES ('{kind}', 0)")  # noqa: S608
    op.create_table(
        "session_counts",
        *[sa.Column(name, sa.String(), nullable=False) for name in ("kind", *FACETS)],
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", *FACETS, name=op.f("pk_session_counts")),
    )
    op.create_table(
        "session_changes",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        *[sa.Column(name, sa.String(), nullable=False) for name in ("kind", *FACETS)],
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session_changes")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "event_counts",
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("at", "type", "cause", "kind", name=op.f("pk_event_counts")),
    )
    op.create_table(
        "event_marks",
        sa.Column("mark", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("mark", name=op.f("pk_event_marks")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("filter", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("by_id", ID, nullable=False),
        sa.Column("ip", sa.String(), nullable=False),
        sa.Column("country", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("place", sa.String(), nullable=True),
        sa.Column("taken_until", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("is_stopped", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sqlite_autoincrement=True,
    )


def list_indexes() -> list[tuple[str, str, list[str], str | None]]:
    """Each index: its name, its table, its columns, and which rows are in it where not all are."""
    indexes: list[tuple[str, str, list[str], str | None]] = [
        ("ix_events_type", "events", ["type", "at", "id"], None),
        ("ix_events_cause", "events", ["cause", "at", "id"], "cause IS NOT NULL"),
        ("ix_events_by", "events", ["by_kind", "by_id", "at", "id"], "by_id IS NOT NULL"),
        ("ix_events_ip_key", "events", ["ip_key", "at", "id"], "ip_key IS NOT NULL"),
        ("ix_users_staff", "users", ["id"], "is_staff OR is_viewer"),
        ("ix_jobs_open", "jobs", ["id"], "finished_at IS NULL"),
    ]
    for kind in KINDS:
        accounts, sessions = f"{kind}s", f"{kind}_sessions"
        indexes += [
            (f"ix_{accounts}_surname_key", accounts, ["surname_key", "id"], None),
            (f"ix_{accounts}_disabled", accounts, ["id"], "disabled_at IS NOT NULL"),
            (f"ix_{accounts}_unconfirmed", accounts, ["id"], f"disabled_at IS NULL AND {UNCONFIRMED[kind]}"),
            (f"ix_{sessions}_started", sessions, ["created_at", "id", *FACETS], None),
            (f"ix_{sessions}_seen", sessions, ["last_seen_at", "id", *FACETS, "created_at"], None),
            (f"ix_{sessions}_make", sessions, [*FACETS, "created_at", "id"], None),
        ]
        for name in ("ip_key", "device_key"):
            indexes.append((f"ix_{sessions}_{name}", sessions, [name, "created_at", "id"], None))
    return indexes


def make_indexes() -> None:
    # Every index is a page more to write when a session ends: these two have nothing that another lacks.
    for kind in KINDS:
        op.drop_index(op.f(f"ix_{kind}_sessions_account_id_id"), f"{kind}_sessions")
    op.drop_index(op.f("ix_events_tx"), "events")
    op.create_index(op.f("ix_events_tx"), "events", ["tx"], sqlite_where=sa.text("tx IS NOT NULL"))
    for name, table, columns, where in list_indexes():
        only = sa.text(where) if where else None
        op.create_index(op.f(name), table, columns, sqlite_where=only, postgresql_where=only)


def count() -> None:
    """Count what is there."""
    facets = ", ".join(FACETS)
    for kind in KINDS:
        op.execute(
            f"INSERT INTO session_counts (kind, {facets}, count)"  # noqa: S608
            f" SELECT '{kind}', {facets}, count(*) FROM {kind}_sessions GROUP BY {facets}"
        )
    hour = 3_600_000_000
    op.execute(
        "INSERT INTO event_counts (at, type, cause, kind, count)"  # noqa: S608
        f" SELECT at / {hour} * {hour}, type, coalesce(cause, ''), coalesce(kind, ''), count(*)"
        " FROM events GROUP BY 1, 2, 3, 4"
    )
    is_postgres = op.get_bind().dialect.name == "postgresql"
    newest = "pg_current_xact_id()::text::bigint" if is_postgres else "(SELECT coalesce(max(id), 0) + 1 FROM events)"
    op.execute(f"INSERT INTO event_marks (mark) SELECT {newest}")


def make_postgres_triggers() -> None:
    facets = ", ".join(FACETS)
    # Of a statement once: a row for each make and country, however many sessions came or went.
    op.execute(f"""
        CREATE FUNCTION count_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO session_changes (kind, {facets}, count)
            SELECT TG_ARGV[0], {facets}, TG_ARGV[1]::bigint * count(*) FROM changed GROUP BY {facets};
            RETURN NULL;
        END $$
    """)  # noqa: S608
    for kind in KINDS:
        for name, act, rows, sign in (("started", "INSERT", "NEW", 1), ("ended", "DELETE", "OLD", -1)):
            op.execute(f"""
                CREATE TRIGGER count_{name} AFTER {act} ON {kind}_sessions
                REFERENCING {rows} TABLE AS changed
                FOR EACH STATEMENT EXECUTE FUNCTION count_sessions('{kind}', '{sign}')
            """)


def make_sqlite_triggers() -> None:
    # One writes at a time: none waits for another's count, so each is added at once.
    facets = ", ".join(FACETS)
    for kind in KINDS:
        for name, act, row, sign in (("started", "INSERT", "NEW", 1), ("ended", "DELETE", "OLD", -1)):
            values = ", ".join(f"{row}.{facet}" for facet in FACETS)
            op.execute(f"""
                CREATE TRIGGER count_{kind}_{name} AFTER {act} ON {kind}_sessions BEGIN
                    INSERT INTO session_counts (kind, {facets}, count) VALUES ('{kind}', {values}, {sign})
                    ON CONFLICT DO UPDATE SET count = count + excluded.count;
                END
            """)  # noqa: S608


def tell_of_events(which: str) -> None:
    op.execute("DROP TRIGGER tell_of_event ON events")
    op.execute(f"""
        CREATE TRIGGER tell_of_event AFTER INSERT ON events
        FOR EACH ROW WHEN ({which}) EXECUTE FUNCTION tell_of_event()
    """)


def downgrade() -> None:
    is_postgres = op.get_bind().dialect.name == "postgresql"
    if is_postgres:
        tell_of_events(TOLD)
    for kind in KINDS:
        for name in ("started", "ended"):
            op.execute(
                f"DROP TRIGGER count_{name} ON {kind}_sessions" if is_postgres else f"DROP TRIGGER count_{kind}_{name}"
            )
    if is_postgres:
        op.execute("DROP FUNCTION count_sessions()")
    for name, table, _, _ in list_indexes():
        op.drop_index(op.f(name), table_name=table)
    for kind in KINDS:
        op.create_index(op.f(f"ix_{kind}_sessions_account_id_id"), f"{kind}_sessions", ["account_id", "id"])
    op.drop_index(op.f("ix_events_tx"), "events")
    op.create_index(op.f("ix_events_tx"), "events", ["tx"])
    for table in ("jobs", "event_marks", "event_counts", "session_changes", "session_counts", "cutoffs"):
        op.drop_table(table)
    if is_postgres:
        for kind, contacts in (("user", ("email", "phone")), ("client", ("phone",))):
            for contact in contacts:
                op.alter_column(f"{kind}s", contact, type_=sa.String(collation="default"))
    for kind in KINDS:
        op.drop_column(f"{kind}_sessions", "ip_key")
        op.drop_column(f"{kind}_sessions", "device_key")
        op.drop_column(f"{kind}s", "surname_key")
    op.drop_column("events", "reason")
    op.drop_column("events", "ip_key")
    op.drop_column("users", "is_viewer")
