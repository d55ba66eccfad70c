"""Recordings, and the files that each consists of."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "recordings",
        sa.Column("sid", sa.String(34), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("updated", sa.Float, nullable=False),
        sa.Column("ended", sa.Float),
        sa.Column("status_callback", sa.Text),
        sa.Column("status_callback_method", sa.String(4), nullable=False),
        sa.Column("callbacks_made", sa.Integer, nullable=False),
        sa.Column("processor_sid", sa.String(34), nullable=False),
        sa.Column("room_sid", sa.String(34)),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("format", sa.String(8), nullable=False),
        sa.Column("layout", sa.String(8), nullable=False),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("rotate", sa.Float),
        sa.Column("error", sa.Text),
    )
    op.create_index("recordings_page", "recordings", ["created", "sid"])
    op.create_index("recordings_by_status", "recordings", ["status"])
    op.create_index("recordings_by_processor", "recordings", ["processor_sid"])
    op.create_index("recordings_by_room", "recordings", ["room_sid"])
    op.create_table(
        "recording_files",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("recording_sid", sa.String(34), sa.ForeignKey("recordings.sid"), nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("loudness", sa.Float),
        sa.Column("true_peak", sa.Float),
        sa.Column("outline", sa.JSON, nullable=False),
        sa.Column("stored", sa.Float, nullable=False),
    )
    op.create_index("recording_files_of", "recording_files", ["recording_sid", "id"])


def downgrade() -> None:
    """Drops them."""
    op.drop_table("recording_files")
    op.drop_table("recordings")
