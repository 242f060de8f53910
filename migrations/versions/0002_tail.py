"""Let workers follow the event log: on PostgreSQL by a notice with each event, and its transaction's number."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("tx", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_events_tx"), "events", ["tx"])
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("ALTER TABLE events ALTER COLUMN tx SET DEFAULT pg_current_xact_id()::text::bigint")
    op.execute("""
        CREATE FUNCTION tell_of_event() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('sessions_events', json_build_object(
                'id', NEW.id, 'kind', NEW.kind, 'account_id', NEW.account_id,
                'type', NEW.type, 'session_id', NEW.session_id, 'cause', NEW.cause)::text);
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER tell_of_event AFTER INSERT ON events
        FOR EACH ROW WHEN (NEW.account_id IS NOT NULL) EXECUTE FUNCTION tell_of_event()
    """)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER tell_of_event ON events")
        op.execute("DROP FUNCTION tell_of_event()")
    op.drop_index(op.f("ix_events_tx"), "events")
    op.drop_column("events", "tx")
