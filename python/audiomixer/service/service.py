"""The service as a whole: what it consists of, how it starts, and how it stops."""

import asyncio
import contextlib
import fcntl
import hashlib
import hmac
import logging
from pathlib import Path
from typing import IO, Literal

from audiomixer.auth.turnstile import Turnstile
from audiomixer.clock.tasks import spawn
from audiomixer.service.jobs import LocalEngine
from audiomixer.service.outbound import Outbound
from audiomixer.service.resources.callbacks import Callbacks
from audiomixer.service.resources.lifecycles import Office
from audiomixer.service.resources.processor_lifecycle import ProcessorLifecycle
from audiomixer.service.resources.retention import keep_small
from audiomixer.service.resources.room_lifecycle import RoomLifecycle
from audiomixer.service.resources.store import Store, StoreClosedError, TakenError
from audiomixer.service.resources.streamer_lifecycle import StreamerLifecycle
from audiomixer.service.settings import Settings
from audiomixer.service.streams import Streams

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
        self.outbound = Outbound(settings.allowed_networks)
        self.store = Store(settings.database_url)
        self.ice = settings.ice(host)
        self.taken = asyncio.Event()
        """Set when another service has taken the database, and this one stops."""
        self._starting = asyncio.Lock()
        self._state: Literal["new", "started", "closed"] = "new"
        self._opened = contextlib.AsyncExitStack()
        """What is to be closed, the newest first."""

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
        self.ice.open()
        self.store.on_taken = self._lose
        await self.store.migrate()
        self.callbacks = Callbacks(self.store, settings.account_sid, settings.auth_token, self.outbound)
        office = Office(settings, self.store, self.callbacks)
        self.rooms = RoomLifecycle(office, settings.keyring())
        self.rooms.local.ice = self.ice
        self.turnstile = Turnstile(self.playback_key, settings.keyring())
        self.streams = Streams(self.rooms.local, self.turnstile, settings.max_listeners)
        self.engine = LocalEngine(self.streams, self.outbound, settings, self._prefix)
        self.streamers = StreamerLifecycle(office, self.streams)
        self.processors = ProcessorLifecycle(office, self.engine, self.rooms, self.streamers)
        self._opened.push_async_callback(self.callbacks.close)
        await self.callbacks.start()
        self._opened.push_async_callback(self.rooms.close)
        await self.rooms.start()
        self._opened.callback(self.streamers.close)
        await self.streamers.start()
        self._opened.push_async_callback(self.processors.close)
        await self.processors.start()
        self._opened.push_async_callback(_cancel, asyncio.create_task(keep_small(office)))
        if self.ice.servers:
            self._opened.push_async_callback(_cancel, asyncio.create_task(self.ice.watch()))
        self._opened.callback(self.streams.closed.set)

    def _lose(self, error: TakenError) -> None:
        """Another service goes on with everything: two would write over each other."""
        _log.critical("stopping: %s", error)
        self.taken.set()
        spawn(self.close())

    def _prefix(self, sid: str) -> str:
        """What the names of a stream's HLS segments begin with: the same in every process, and not to be guessed."""
        return hmac.new(self.settings.auth_token.encode(), sid.encode(), hashlib.sha256).hexdigest()[:16] + "-"

    async def close(self) -> None:
        """Stops everything, to be resumed by the next process."""
        state, self._state = self._state, "closed"
        await self._opened.aclose()
        await self.store.close()
        if state == "started":
            _log.info("stopped")
