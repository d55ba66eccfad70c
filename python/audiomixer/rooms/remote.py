"""A room on a server elsewhere: joined once for each mixer, and joined again for as long as it is there."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from audiomixer.broadcast import Broadcast
from audiomixer.bus import Bus
from audiomixer.pacer import clock, process_pacer
from audiomixer.rooms.base import RoomError, RoomEvent
from audiomixer.rooms.roster import Roster

_JOIN_TIMEOUT: Final = 10.0
_PAUSES: Final = (0.25, 0.5, 1.0)
_LONGEST_PAUSE: Final = 2.0
"""Seconds between two attempts to join again, in the end: a server that is back has its mixers within 5 s."""
_EVENTS: Final = 1000

_log = logging.getLogger(__name__)


class LostError(Exception):
    """The server is out of reach, or does not answer; the message says why. It is worth another attempt."""


class Session(Protocol):
    """One stay in a room. It keeps a roster in step with what signalling tells, and routes media accordingly."""

    async def join(self, *, again: bool) -> None:
        """Joins the room.

        Args:
            again: The room has been joined before, by another session.

        Raises:
            RoomError: The room cannot be joined.
            LostError: Not now.
        """

    async def last(self) -> str:
        """Waits until the room has ended for the mixer; gives the reason.

        Raises:
            LostError: The connection has been lost.
        """

    async def close(self) -> None:
        """Leaves the room. May be called at any time, and more than once."""


MakeSession = Callable[[Roster, Bus], Session]


class RemoteRoom:
    """A room elsewhere, as one mixer has joined it; to be made on the event loop.

    While the server is out of reach it is tried again, for ever; the bus goes on, as it does when the room has ended.

    Args:
        name: What the room is called.
        make: Makes a session for each attempt to join.
        patient: Whether the first attempt may fail, too, for that the server is out of reach.
    """

    def __init__(self, name: str, make: MakeSession, *, patient: bool = False) -> None:
        self.name = name
        self.bus = Bus(clock())
        self.events: Broadcast[RoomEvent] = Broadcast(_EVENTS)
        self._roster = Roster(name, self.bus.mixer, self.events)
        self._make = make
        self._patient = patient
        self._session: Session | None = None
        self._staying: asyncio.Task[None] | None = None

    async def attach(self) -> None:
        """The mixer joins.

        Raises:
            RoomError: The room cannot be joined.
        """
        process_pacer().add(self.bus)
        try:
            await self._join(again=False)
        except LostError as error:
            if not self._patient:
                await self._close_bus()
                raise RoomError(f"room: {self.name!r} cannot be joined: {error}") from error
            self._roster.tell("reconnecting", reason=str(error))
        except BaseException:
            await self._close_bus()
            raise
        self._staying = asyncio.create_task(self._stay())

    async def _join(self, *, again: bool) -> None:
        session = self._make(self._roster, self.bus)
        try:
            async with asyncio.timeout(_JOIN_TIMEOUT):
                await session.join(again=again)
        except TimeoutError:
            await session.close()
            raise LostError(f"no answer within {_JOIN_TIMEOUT:.0f} s") from None
        except BaseException:
            await session.close()
            raise
        previous, self._session = self._session, session
        if previous:
            await previous.close()
        self._roster.tell("joined")

    async def _stay(self) -> None:
        """Stays in the room until it ends."""
        reason = ""
        try:
            while True:
                try:
                    if self._session:
                        reason = await self._session.last()
                        break
                except LostError as error:
                    self._roster.tell("reconnecting", reason=str(error))
                await self._return()
        except RoomError as error:
            reason = str(error)
        except Exception as error:
            _log.exception("room %s: left, since something is wrong with it", self.name)
            reason = repr(error)
        await self._end(reason)

    async def _return(self) -> None:
        """Joins again. Until the first attempt fails, what still comes from the last session is heard."""
        for pause in self._pauses():
            try:
                await self._join(again=True)
                return
            except LostError as error:
                _log.debug("room %s: %s", self.name, error)
                await self._close_session()
                self._roster.clear()
            await asyncio.sleep(pause)

    def _pauses(self) -> Iterator[float]:
        yield from _PAUSES
        while True:
            yield _LONGEST_PAUSE

    async def quit(self) -> None:
        """The mixer leaves, and does not come back."""
        if self._staying and not self._staying.done():
            self._staying.cancel()
            await asyncio.gather(self._staying, return_exceptions=True)
            await self._end("the mixer has left")

    async def _end(self, reason: str) -> None:
        await self._close_session()
        self._roster.clear()
        self._roster.tell("ended", reason=reason)

    async def _close_session(self) -> None:
        session, self._session = self._session, None
        if session:
            with contextlib.suppress(Exception):
                await session.close()

    async def detach(self) -> None:
        """The mixer leaves, and its mix ends."""
        await self.quit()
        await self._close_bus()

    async def _close_bus(self) -> None:
        self.events.close()
        await asyncio.to_thread(process_pacer().remove, self.bus)
