"""What hosts have set of identities in a room, who is as that when it comes back; whom a mixer mixes, and how loud."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the columns."""
    with op.batch_alter_table("media_processors") as table:
        table.add_column(sa.Column("include", sa.JSON, nullable=True))
        table.add_column(sa.Column("exclude", sa.JSON, nullable=True))
        table.add_column(sa.Column("denoise", sa.Boolean, nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("leveler", sa.Boolean, nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("loudness", sa.Float, nullable=True))
    with op.batch_alter_table("rooms") as table:
        table.add_column(sa.Column("settings", sa.JSON, nullable=True))


def downgrade() -> None:
    """Removes them."""
    with op.batch_alter_table("media_processors") as table:
        table.drop_column("loudness")
        table.drop_column("leveler")
        table.drop_column("denoise")
        table.drop_column("exclude")
        table.drop_column("include")
    with op.batch_alter_table("rooms") as table:
        table.drop_column("settings")
