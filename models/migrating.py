"""Migrations: the tables as this version expects them, by Alembic."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

# The revision that this version expects.
NEWEST = "0012"
MIGRATIONS = Path(__file__).parent.parent / "migrations"


class NewerTables(Exception):
    """The database was migrated by a newer version than this one."""


def upgrade(connection: Connection) -> None:
    """Run every migration that `connection`'s database lacks, in the transaction that it is in."""
    if connection.dialect.name == "postgresql":
        # Two that migrate at once: the second waits, and finds nothing left to do.
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('sessions migrations'))"))
    if is_current(connection):
        return
    # Eleven megabytes, for the one process that migrates.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    current = _read_revision(connection)
    if current and current not in known:
        raise NewerTables(f"The database's tables are of a newer version ({current}) than this program.")
    command.upgrade(config, "head")


def is_current(connection: Connection) -> bool:
    """Whether the newest migration was run."""
    return _read_revision(connection) == NEWEST


def _read_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
