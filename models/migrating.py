"""Migrations: the tables as this version expects them, by Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

MIGRATIONS = Path(__file__).parent.parent / "migrations"


class NewerTables(Exception):
    """The database was migrated by a newer version than this one."""


def upgrade(connection: Connection) -> None:
    """Run every migration that `connection`'s database lacks, in the transaction that it is in."""
    if connection.dialect.name == "postgresql":
        # Two that migrate at once: the second waits, and finds nothing left to do.
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('sessions migrations'))"))
    config = _config()
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    if current and current not in {revision.revision for revision in script.walk_revisions()}:
        raise NewerTables(f"The database's tables are of a newer version ({current}) than this program.")
    command.upgrade(config, "head")


def is_current(connection: Connection) -> bool:
    """Whether the newest migration was run."""
    current = MigrationContext.configure(connection).get_current_revision()
    return current == ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config
