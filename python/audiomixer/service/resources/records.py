"""What has happened already, and is stored in the order in which it did, whenever the database takes it."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from audiomixer.service.resources.lifecycles import Office
from audiomixer.service.resources.store import StoreClosedError

_MOST: Final = 10_000
"""Records that may wait for the database; then they are not accounted for."""
_LAST: Final = 5.0
"""Seconds for which they may wait in the end."""
_AGAIN: Final = 1.0

_log = logging.getLogger(__name__)


class Records:
    """Joins and leaves of rooms.

    Args:
        office: Where account is kept.
    """

    def __init__(self, office: Office) -> None:
        self._office = office
        self._waiting: asyncio.Queue[tuple[str, Callable[[Session], None]]] = asyncio.Queue(_MOST)
        self._storing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to store."""
        self._storing = asyncio.create_task(self._store_for_ever())

    def add(self, sid: str, work: Callable[[Session], None]) -> None:
        """Has something stored, and then the callbacks of resource `sid` delivered."""
        try:
            self._waiting.put_nowait((sid, work))
        except asyncio.QueueFull:
            _log.error("the database is away for too long: a participant is not accounted for", extra={"sid": sid})

    async def _store_for_ever(self) -> None:
        while True:
            sid, work = await self._waiting.get()
            while True:
                try:
                    await self._office.store.run(work)
                    break
                except OperationalError:
                    _log.exception("a participant has to be accounted for later", extra={"sid": sid})
                    await asyncio.sleep(_AGAIN)
                except StoreClosedError:
                    break
                except Exception:
                    _log.exception("a participant cannot be accounted for", extra={"sid": sid})
                    break
            self._office.callbacks.deliver(sid)
            self._waiting.task_done()

    async def stored(self) -> None:
        """Waits until everything is stored."""
        await self._waiting.join()

    async def close(self) -> None:
        """Waits for a while, and ceases to store."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST):
                await self._waiting.join()
        if self._storing:
            self._storing.cancel()
            await asyncio.gather(self._storing, return_exceptions=True)
