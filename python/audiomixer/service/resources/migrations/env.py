"""Runs migrations on the connection that `store.migrate` gives."""

from alembic import context

from audiomixer.service.resources.store import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
