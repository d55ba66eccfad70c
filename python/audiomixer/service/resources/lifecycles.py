"""What the lifecycles of all resources share."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from audiomixer.clock.tasks import spawn
from audiomixer.service.http.errors import ApiError
from audiomixer.service.resources.callbacks import Callbacks
from audiomixer.service.resources.store import Base, Store
from audiomixer.service.settings import Settings

DURATION: Final = 300
"""Seconds that a resource lasts unless it is said otherwise."""
LONGEST_DURATION: Final = 90_000
_AGAIN: Final = 5.0
"""Seconds until what could not be done, since the database is away, say, is tried again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Office:
    """What every lifecycle needs."""

    settings: Settings
    store: Store
    callbacks: Callbacks


def make_sid(prefix: str) -> str:
    """A new SID."""
    return prefix + secrets.token_hex(16)


def check_room_for_more(session: Session, table: type[Base], most: int, *running: Any) -> None:
    """Sees that one more of a kind may be made, of those that are `running`.

    Raises:
        ApiError: There are as many as there may be.
    """
    if (session.scalar(select(func.count()).select_from(table).where(*running)) or 0) >= most:
        raise ApiError(429, f"expected at most {most} {getattr(table, '__tablename__', '').replace('_', ' ')} at once")


class Alarms:
    """Does something with a resource at a time, unless it is over before."""

    def __init__(self) -> None:
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def set(self, sid: str, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """In so many seconds; it replaces the alarm that the resource had."""
        self.clear(sid)
        loop = asyncio.get_running_loop()
        self._handles[sid] = loop.call_later(max(0.0, seconds), lambda: spawn(self._ring(sid, work)))

    async def _ring(self, sid: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._handles.pop(sid, None)
        try:
            await work()
        except Exception:
            _log.exception("an alarm has to ring again", extra={"sid": sid})
            self.set(sid, _AGAIN, work)

    def clear(self, sid: str) -> None:
        """Never mind."""
        handle = self._handles.pop(sid, None)
        if handle:
            handle.cancel()

    def close(self) -> None:
        """Clears all."""
        for sid in list(self._handles):
            self.clear(sid)
