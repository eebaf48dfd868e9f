"""Alembic's entry: migrations run on the connection that ``jobs.database.migrate`` hands in."""

from __future__ import annotations

from alembic import context

from jobs.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    compare_server_default=False,
    transaction_per_migration=True,  # locks of one are not held while the next one waits
)
with context.begin_transaction():
    context.run_migrations()
