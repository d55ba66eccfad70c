"""What outlives the process: resources and callbacks that wait, in SQLite or PostgreSQL."""

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import alembic.command
import alembic.config
from sqlalchemy import (
    JSON,
    BigInteger,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    create_engine,
    event,
    false,
)
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_SID: Final = String(34)
_CLAIM: Final = 0x617564696F6D6978
"""The advisory lock's number: `audiomix`."""
_CLAIM_IT: Final = f"SELECT pg_try_advisory_lock({_CLAIM})"
_END_FORMER: Final = (
    "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity"
    " WHERE application_name = current_setting('application_name') AND pid <> pg_backend_pid()"
)
_ON_SERVER: Final = {
    "statement_timeout": 10_000,
    "tcp_keepalives_idle": 5,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
}
"""Milliseconds for a statement; seconds, and tries, after which PostgreSQL takes a client for gone: two hours, if it is
not told."""

T = TypeVar("T")


class Base(DeclarativeBase):
    """The tables. All times are seconds since the epoch."""


class Resource:
    """What every resource has."""

    sid: Mapped[str] = mapped_column(_SID, primary_key=True)
    status: Mapped[str] = mapped_column(String(16))
    created: Mapped[float] = mapped_column(Float)
    updated: Mapped[float] = mapped_column(Float)
    ended: Mapped[float | None] = mapped_column(Float)
    status_callback: Mapped[str | None] = mapped_column(Text)
    status_callback_method: Mapped[str] = mapped_column(String(4))
    callbacks_made: Mapped[int] = mapped_column(Integer, default=0)
    """Sequence number of the next callback."""


class MediaProcessor(Resource, Base):
    """A mixer at work, or its record."""

    __tablename__ = "media_processors"
    __table_args__ = (
        Index("media_processors_page", "created", "sid"),
        Index("media_processors_by_status", "status"),
    )

    extension: Mapped[str] = mapped_column(String(64))
    extension_context: Mapped[str] = mapped_column(Text)
    max_duration: Mapped[int] = mapped_column(Integer)
    ended_reason: Mapped[str | None] = mapped_column(String(64))
    identity: Mapped[str] = mapped_column(Text)
    audio_bitrate: Mapped[int] = mapped_column(Integer)
    outputs: Mapped[list[str]] = mapped_column(JSON)
    include: Mapped[list[str] | None] = mapped_column(JSON)
    """The only identities that it mixes; None if all."""
    exclude: Mapped[list[str] | None] = mapped_column(JSON)
    denoise: Mapped[bool] = mapped_column(default=False, server_default=false())
    leveler: Mapped[bool] = mapped_column(default=False, server_default=false())
    loudness: Mapped[float | None] = mapped_column(Float)
    """The target of its mix, in LUFS."""
    room_sid: Mapped[str | None] = mapped_column(_SID)
    """The room that it joined; None if there was none to join, which it tries once."""
    leaves: Mapped[float | None] = mapped_column(Float)
    """When its time in the room is over."""
    reserved: Mapped[int] = mapped_column(Integer, default=0)
    """No payload has had this sequence number yet, nor any above."""
    interruptions: Mapped[int] = mapped_column(Integer, default=0)
    """How often it was started again in a new process."""
    streamed: Mapped[float] = mapped_column(Float, default=0.0)
    """Seconds of stream made."""
    segments: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Number of the HLS segment that was being made."""


class PlayerStreamer(Resource, Base):
    """A stream that can be played, or its record."""

    __tablename__ = "player_streamers"
    __table_args__ = (
        Index("player_streamers_page", "created", "sid"),
        Index("player_streamers_by_status", "status"),
    )

    video: Mapped[bool]
    max_duration: Mapped[int] = mapped_column(Integer)
    ended_reason: Mapped[str | None] = mapped_column(String(64))
    source: Mapped[str | None] = mapped_column(_SID)
    """The MediaProcessor that feeds it, or fed it last."""
    streamed: Mapped[float] = mapped_column(Float, default=0.0)
    """Seconds of stream got."""
    grant: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """The last playback grant."""
    granted: Mapped[float | None] = mapped_column(Float)
    """When that was made."""


class Room(Resource, Base):
    """A room, or its record."""

    __tablename__ = "rooms"
    __table_args__ = (
        Index("rooms_page", "created", "sid"),
        Index("rooms_by_name", "unique_name", "status"),
        Index("rooms_by_status", "status"),
    )

    unique_name: Mapped[str] = mapped_column(Text)
    type: Mapped[str] = mapped_column(String(32))
    max_participants: Mapped[int] = mapped_column(Integer)
    max_participant_duration: Mapped[int] = mapped_column(Integer)
    empty_room_timeout: Mapped[int] = mapped_column(Integer)
    unused_room_timeout: Mapped[int] = mapped_column(Integer)
    used: Mapped[float | None] = mapped_column(Float)
    """When somebody was in it last, or joined; None while nobody has been."""
    settings: Mapped[dict[str, dict[str, Any]] | None] = mapped_column(JSON)
    """What hosts have set of identities."""


class Participant(Base):
    """Somebody in a room, or who was."""

    __tablename__ = "participants"
    __table_args__ = (Index("participants_page", "room_sid", "started", "sid"),)

    sid: Mapped[str] = mapped_column(_SID, primary_key=True)
    room_sid: Mapped[str] = mapped_column(_SID, ForeignKey("rooms.sid"))
    identity: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    started: Mapped[float] = mapped_column(Float)
    ended: Mapped[float | None] = mapped_column(Float)


class Recording(Resource, Base):
    """Something of a mix that is being recorded, or was."""

    __tablename__ = "recordings"
    __table_args__ = (
        Index("recordings_page", "created", "sid"),
        Index("recordings_by_status", "status"),
        Index("recordings_by_processor", "processor_sid"),
        Index("recordings_by_room", "room_sid"),
    )

    processor_sid: Mapped[str] = mapped_column(_SID)
    room_sid: Mapped[str | None] = mapped_column(_SID)
    key: Mapped[str] = mapped_column(Text)
    """What its files' names in the store begin with."""
    format: Mapped[str] = mapped_column(String(8))
    layout: Mapped[str] = mapped_column(String(8))
    identity: Mapped[str] = mapped_column(Text)
    """Who is on the left, if it is `dual`."""
    rotate: Mapped[float | None] = mapped_column(Float)
    error: Mapped[str | None] = mapped_column(Text)


class RecordingFile(Base):
    """A file of a recording, in the store."""

    __tablename__ = "recording_files"
    __table_args__ = (Index("recording_files_of", "recording_sid", "id"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    recording_sid: Mapped[str] = mapped_column(_SID, ForeignKey("recordings.sid"))
    key: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float] = mapped_column(Float)
    loudness: Mapped[float | None] = mapped_column(Float)
    true_peak: Mapped[float | None] = mapped_column(Float)
    outline: Mapped[list[int]] = mapped_column(JSON)
    stored: Mapped[float] = mapped_column(Float)


class Heartbeat(Base):
    """When the service was last known to be alive."""

    __tablename__ = "heartbeats"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[float] = mapped_column(Float)


class Callback(Base):
    """A status callback that has not been delivered yet."""

    __tablename__ = "callbacks"
    __table_args__ = (Index("callbacks_by_resource", "resource_sid", "id"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    resource_sid: Mapped[str] = mapped_column(_SID)
    url: Mapped[str] = mapped_column(Text)
    method: Mapped[str] = mapped_column(String(4))
    parameters: Mapped[dict[str, str]] = mapped_column(JSON)
    created: Mapped[float] = mapped_column(Float)


def now() -> float:
    """The time of what is stored."""
    return time.time()


class TakenError(ValueError):
    """Another service uses the database."""


class StoreClosedError(Exception):
    """The service is stopping, or another has its database."""


class Store:
    """The database. Work is done in one thread, off the event loop, a transaction after the other.

    Args:
        url: `sqlite:///FILE`, or `postgresql://…` with the extra `postgresql` installed.

    Raises:
        ValueError: The URL names no database.
    """

    def __init__(self, url: str) -> None:
        self.on_taken: Callable[[TakenError], None] = lambda error: None
        """Called once when another service has taken the database while this one could not reach it."""
        try:
            self._engine = create_engine(
                url, pool_size=1, max_overflow=0, pool_pre_ping=True, connect_args=_limits(url)
            )
        except (ArgumentError, ImportError) as error:
            hint = " (which needs the extra `postgresql`)" if url.startswith("postgresql") else ""
            raise ValueError(f"database_url: expected sqlite:///FILE or postgresql://…{hint}: {error}") from None
        if self._engine.dialect.name == "postgresql":
            event.listen(self._engine, "do_connect", _connect_and_claim)
        # Of SQLite's, the data folder has a lock.
        if self._engine.dialect.name == "sqlite":
            _keep_to_oneself(self._engine.url.database)
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        self._sessions = sessionmaker(self._engine, expire_on_commit=False)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._closed = False

    async def migrate(self) -> None:
        """Claims the database, and brings the schema up to date.

        Raises:
            TakenError: Another service uses it.
            ValueError: It is damaged.
        """

        def work() -> None:
            try:
                migrate(self._engine)
            except DatabaseError as error:
                if isinstance(error, OperationalError):
                    raise
                raise ValueError(f"database_url: expected a database of audiomixer: {error.orig}") from None

        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def run(self, work: Callable[[Session], T]) -> T:
        """Does `work` in a transaction, which is committed unless it raises; objects it returns may be read after.

        Raises:
            StoreClosedError: Nothing is written any more.
        """

        def transaction() -> T:
            with self._sessions.begin() as session:
                return work(session)

        if self._closed:
            raise StoreClosedError
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, transaction)
        except TakenError as error:
            if not self._closed:
                self._closed = True
                self.on_taken(error)
            raise StoreClosedError from error

    async def close(self) -> None:
        """Finishes what is under way."""
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)
        self._engine.dispose()


def migrate(engine: Engine) -> None:
    """Brings a database's schema up to date."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")


def _limits(url: str) -> dict[str, Any]:
    """A server that hangs is an error within seconds."""
    if not url.startswith("postgresql"):
        return {}
    options = " ".join(f"-c {setting}={value}" for setting, value in _ON_SERVER.items())
    name = f"audiomixer {secrets.token_hex(8)}"
    return {"connect_timeout": 5, "tcp_user_timeout": 10_000, "options": options, "application_name": name}


def _connect_and_claim(dialect: Any, record: Any, arguments: Any, parameters: Any) -> Any:
    """Connects, with an advisory lock, which ends with the connection: what writes is what has the claim.

    The server may still have the connection that was lost: that is ended first, which has no effect on others'.

    Raises:
        TakenError: Another service has it.
    """
    connection = dialect.connect(*arguments, **parameters)
    try:
        connection.execute(_END_FORMER)
        (claimed,) = connection.execute(_CLAIM_IT).fetchone()
        connection.commit()
        if not claimed:
            raise TakenError("database_url: another audiomixer uses this database")
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up_sqlite(connection: Any, record: Any) -> None:
    # Python's module would begin transactions by itself, and leave changes of the schema out of them.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # What was answered is on disk, also after a power cut.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _keep_to_oneself(file: str | None) -> None:
    """Makes the file of a database, if need be, for nobody else to read: SQLite gives those beside it the same mode.

    Raises:
        ValueError: It cannot be made.
    """
    if not file or file == ":memory:":
        return
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        if Path(file).stat().st_uid == os.geteuid():
            Path(file).chmod(0o600)
    except OSError as error:
        raise ValueError(f"database_url: expected a file that can be written, {file}: {error.strerror}") from None
