"""How many HLS segments a MediaProcessor has made: players find their way over an interruption by their numbers."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the column."""
    with op.batch_alter_table("media_processors") as table:
        table.add_column(sa.Column("segments", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Removes it."""
    with op.batch_alter_table("media_processors") as table:
        table.drop_column("segments")
