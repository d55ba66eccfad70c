"""The service as a whole: what it consists of, how it starts, and how it stops."""

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
from collections import Counter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from audiomixer.auth.tokens import Access, TokenError
from audiomixer.auth.turnstile import Turnstile
from audiomixer.clock.tasks import spawn
from audiomixer.rooms.local import LocalRooms
from audiomixer.rooms.place import Place
from audiomixer.service.jobs import Engine
from audiomixer.service.local_engine import LocalEngine
from audiomixer.service.outbound import Outbound
from audiomixer.service.playing import Opener
from audiomixer.service.recorder import Recorder, place_of
from audiomixer.service.resources.callbacks import Callbacks
from audiomixer.service.resources.lifecycles import Office
from audiomixer.service.resources.participants import Participants
from audiomixer.service.resources.processor_lifecycle import ProcessorLifecycle
from audiomixer.service.resources.recording_lifecycle import RecordingLifecycle
from audiomixer.service.resources.retention import keep_small
from audiomixer.service.resources.room_lifecycle import RoomLifecycle
from audiomixer.service.resources.store import Store, StoreClosedError, TakenError
from audiomixer.service.resources.streamer_lifecycle import StreamerLifecycle
from audiomixer.service.settings import Settings
from audiomixer.service.streams import Streams

if TYPE_CHECKING:
    from audiomixer.service.cluster.cluster import Cluster

_log = logging.getLogger(__name__)


def _lock(data: Path) -> IO[str]:
    """Keeps other processes from serving from a folder, until it is closed, or this process ends."""
    file = (data / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ValueError(f"data: {data} is in use by another audiomixer") from None
    return file


def _cluster(settings: Settings, host: str) -> "Cluster":
    """The engine on Ray."""
    if not settings.ray_address:
        # Whoever may call Ray may do anything, and it listens on all addresses. It reads this when it is imported.
        token = settings.data / "ray-token"
        with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(hashlib.sha256(f"ray {settings.auth_token}".encode()).hexdigest())
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token.absolute()))
    from audiomixer.service.cluster.cluster import Cluster
    from audiomixer.service.cluster.forward import Forwarder
    from audiomixer.service.cluster.nodes import Nodes
    from audiomixer.service.cluster.worker import cluster_secret

    return Cluster(Nodes(settings, host), Forwarder(cluster_secret(settings.auth_token)), settings.drain_seconds)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class Service:
    """Everything behind the API. To be made anywhere, started and closed on one event loop.

    Args:
        settings: Complete ones.
        host: The address that the server listens on, where media is offered unless settings say otherwise.
    """

    def __init__(self, settings: Settings, host: str) -> None:
        self.settings = settings
        self.playback_key = settings.playback_key()
        self.keyring = settings.keyring()
        self.outbound = Outbound(settings.allowed_networks)
        self.recordings_place = place_of(settings.recordings)
        self.store = Store(settings.database_url)
        self.ice = settings.ice(host)
        self.cluster = _cluster(settings, host) if settings.engine == "ray" else None
        self.taken = asyncio.Event()
        """Set when another service has taken the database, and this one stops."""
        self._starting = asyncio.Lock()
        self._state: Literal["new", "started", "closed"] = "new"
        self._opened = contextlib.AsyncExitStack()
        """What is to be closed, the newest first."""

    def host_of(self, token: str) -> Access:
        """What a host's token grants.

        Raises:
            TokenError: It is not good, or no host's.
        """
        access = self.keyring.verify(token)
        if not access.hosts:
            raise TokenError("token: grants.video.host: expected true, for what hosts may do")
        return access

    async def start(self) -> None:
        """Goes on where the last process stopped. Once is enough.

        Raises:
            ValueError: Another process serves from the same folder.
            StoreClosedError: It has been closed.
        """
        if self._state == "started":
            return
        async with self._starting:
            if self._state == "closed":
                raise StoreClosedError
            if self._state == "new":
                try:
                    await self._start()
                except BaseException:
                    # It may be tried again.
                    await self._opened.aclose()
                    raise
                self._state = "started"

    async def _start(self) -> None:
        settings = self.settings
        self._opened.callback(_lock(settings.data).close)
        self._opened.callback(self.ice.close)
        if self.cluster is None:
            self.ice.open()
        self.store.on_taken = self._lose
        await self.store.migrate()
        self.callbacks = Callbacks(self.store, settings.account_sid, settings.auth_token, self.outbound)
        office = Office(settings, self.store, self.callbacks)
        self.rooms = RoomLifecycle(office, self.keyring)
        self.turnstile = Turnstile(self.playback_key, self.keyring)
        self.streams = Streams(LocalRooms(self.ice, self.rooms), self.turnstile, settings.max_listeners)
        self.streams.rooms.opener = Opener(self.outbound)
        self.engine: Engine = self.cluster or self._local_engine()
        self.rooms.hosted = self.engine.rooms
        if self.cluster:
            self.cluster.rooms.door = self.rooms
        self.streamers = StreamerLifecycle(office, self.streams)
        self.recordings = RecordingLifecycle(office, self.engine, self.recordings_place)
        self.processors = ProcessorLifecycle(office, self.engine, self.rooms, self.streamers, self.recordings)
        self.participants = Participants(office, self.rooms, self.processors, self.engine)
        if self.cluster:
            self.cluster.draining.on_move = self.processors.move
        self._opened.push_async_callback(self.callbacks.close)
        await self.callbacks.start()
        self._opened.push_async_callback(self.rooms.close)
        self._opened.push_async_callback(self.engine.close)
        await self.engine.open()
        await self.rooms.start(self._present())
        await self.participants.start()
        for name, resources in self.engine.rooms.present().items():
            for resource, identity in resources.items():
                self.rooms.joined(name, resource, identity)
        self._opened.callback(self.streamers.close)
        await self.streamers.start()
        self._opened.push_async_callback(self.processors.close)
        self.engine.begin()
        await self.processors.start()
        self._opened.push_async_callback(self.recordings.close)
        await self.recordings.start()
        self.rooms.everybody_told()
        self._opened.push_async_callback(_cancel, asyncio.create_task(keep_small(office)))
        if self.ice.servers:
            self._opened.push_async_callback(_cancel, asyncio.create_task(self.ice.watch()))
        self._opened.callback(self.streams.closed.set)

    def _local_engine(self) -> LocalEngine:
        folder = self.settings.spool or self.settings.data / "spool"
        recorder = Recorder(self.recordings_place, folder, self.settings.spool_limit)
        return LocalEngine(self.streams, self.outbound, self.settings, recorder)

    def _present(self) -> dict[str, Counter[str]]:
        """How many of each identity are in which room already, mixers included."""
        present = {name: Counter(resources.values()) for name, resources in self.engine.rooms.present().items()}
        elsewhere: dict[str, set[str]] = {}
        for sid, job in self.engine.working().items():
            if job.room:
                name = Place.parse(job.room).name
                present.setdefault(name, Counter())[job.identity] += 1
                # Several mixers tell of the same ones.
                elsewhere.setdefault(name, set()).update(self.engine.whoever(sid))
        for name, identities in elsewhere.items():
            present[name].update(identities)
        return present

    def _lose(self, error: TakenError) -> None:
        """Another service goes on with everything: two would write over each other."""
        _log.critical("stopping: %s", error)
        self.taken.set()
        spawn(self.close())

    async def close(self) -> None:
        """Stops everything, to be resumed by the next process."""
        state, self._state = self._state, "closed"
        await self._opened.aclose()
        await self.store.close()
        if state == "started":
            _log.info("stopped")
