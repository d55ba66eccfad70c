"""A room on a server elsewhere: joined once for each mixer, and joined again for as long as it is there.

From joining until the end there is always one of two: a session, which alone tells the roster, or a pause until the
next attempt. A session that is lost (`LostError`) is followed by another: at once if it has lasted, else after a pause
that grows. Until the first attempt fails, what still comes from the lost one is heard. The stay ends when the room does
(`last` returns), when a session is told that it may not join (`RoomError`), or by `quit`.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from audiomixer.clock.broadcast import Broadcast
from audiomixer.clock.bus import Bus, process_pacer, room_bus
from audiomixer.clock.pacer import clock
from audiomixer.clock.tasks import spawn
from audiomixer.rooms.base import RemovalError, RoomError, RoomEvent, Vitals
from audiomixer.rooms.roster import Roster
from audiomixer.rooms.source import Source, SourceOrder, play
from audiomixer.rooms.strip import Strip

_JOIN_TIMEOUT: Final = 10.0
_PAUSES: Final = (0.25, 0.5, 1.0)
_LONGEST_PAUSE: Final = 2.0
"""Seconds between two attempts to join again, in the end: a server that is back has its mixers within 5 s."""
_LASTED: Final = 10.0
"""Seconds after which a session was a good one."""
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

    def begin(self) -> None:
        """Tells the roster, from now on, of those who are there; once it has joined."""

    async def last(self) -> str:
        """Waits until the room has ended for the mixer; gives the reason.

        Raises:
            LostError: The connection has been lost.
        """

    async def remove(self, identity: str) -> None:
        """Has all participants of an identity leave.

        Raises:
            RemovalError: The server does not let the mixer do so.
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
        is_wanted: Which identities are mixed; of the others only their coming and going is told.
    """

    def __init__(
        self,
        name: str,
        make: MakeSession,
        *,
        patient: bool = False,
        is_wanted: Callable[[str], bool] = lambda identity: True,
    ) -> None:
        self.name = name
        self.bus = room_bus(self._failed)
        self._loop = asyncio.get_running_loop()
        self.events: Broadcast[RoomEvent] = Broadcast(_EVENTS)
        self.kept_out: set[str] = set()
        self._sources: set[Source] = set()
        self._is_over = False
        """Whether the bus does not run any more."""
        self._roster = Roster(name, self.bus.mixer, self.events, is_wanted)
        self._roster.on_joining = self._somebody_joins
        self._make = make
        self._patient = patient
        self._session: Session | None = None
        self._since: float | None = None
        """When the room was joined the last time, if it has been."""
        self._staying: asyncio.Task[None] | None = None

    def packets(self) -> Counter[str]:
        """What happened to the packets of everybody so far: some of `Stats`, by their names."""
        return self._roster.packets()

    def participant(self, identity: str) -> Strip:
        """What a host may set of a participant, whether or not it is there.

        Raises:
            ValueError: The identity is none.
        """
        return Strip(self, identity)

    def vitals(self) -> dict[str, Vitals]:
        """How those get on who are mixed, by identity."""
        return self._roster.vitals(self.bus.volumes)

    def keep_out(self, identity: str) -> None:
        """Lets an identity not be in the room; who is is removed, soon."""
        self.kept_out.add(identity)
        if self._roster.keys(identity):
            spawn(self._keep_out(identity))

    async def remove(self, identity: str) -> None:
        """Has the participants of an identity leave.

        Raises:
            RemovalError: The server does not let the mixer do so, or is away.
        """
        if self._roster.keys(identity):
            if self._session is None:
                raise RemovalError("Status: expected a server that is there, which it is not just now")
            try:
                await self._session.remove(identity)
            except LostError as error:
                raise RemovalError(f"Status: {identity!r} cannot be removed: {error}") from error

    async def play(self, order: SourceOrder) -> Source:
        """Plays a file or a stream into this mix; nobody hears it in the room.

        Raises:
            RoomError: The mixer has left.
            SourceError: It cannot be played.
            ValueError: Something of the order is wrong.
        """
        source = await play(self.bus, order)
        if self._is_over:
            await source.stop()
            raise RoomError(f"room: {self.name!r} has been left")
        self._sources.add(source)
        source.on_ended = self._sources.discard
        return source

    def _somebody_joins(self, identity: str) -> None:
        for source in [source for source in self._sources if source.identity == identity]:
            # What is played makes place.
            source.leave()
            spawn(source.stop())
        if identity in self.kept_out:
            spawn(self._keep_out(identity))

    async def _keep_out(self, identity: str) -> None:
        """Removes whoever has come, once the roster knows."""
        await asyncio.sleep(0)
        try:
            await self.remove(identity)
        except RemovalError as error:
            _log.error("room %s: %s", self.name, error)

    async def attach(self) -> None:
        """The mixer joins.

        Raises:
            RoomError: The room cannot be joined.
        """
        process_pacer().add(self.bus)
        try:
            await self._join()
        except LostError as error:
            if not self._patient:
                await self._close_bus()
                raise RoomError(f"room: {self.name!r} cannot be joined: {error}") from error
            self._roster.tell("reconnecting", reason=str(error))
        except BaseException:
            await self._close_bus()
            raise
        self._staying = asyncio.create_task(self._stay())

    async def _join(self) -> None:
        session = self._make(self._roster, self.bus)
        try:
            async with asyncio.timeout(_JOIN_TIMEOUT):
                await session.join(again=self._since is not None)
        except BaseException as error:
            await _close(session)
            if isinstance(error, TimeoutError):
                raise LostError(f"no answer within {_JOIN_TIMEOUT:.0f} s") from None
            if isinstance(error, Exception) and not isinstance(error, (RoomError, LostError)):
                _log.exception("room %s: the server is not understood", self.name)
                raise LostError(repr(error)) from error
            raise
        previous, self._session = self._session, session
        self._since = clock()
        if previous:
            await _close(previous)
        self._roster.tell("joined")
        session.begin()

    async def _stay(self) -> None:
        """Stays in the room until it ends."""
        pauses, reason = _pauses(), None
        try:
            while reason is None:
                try:
                    if self._session is None:
                        await self._join()
                    else:
                        reason = await self._session.last()
                except LostError as error:
                    if self._session:
                        self._roster.tell("reconnecting", reason=str(error))
                        lasted = clock() - (self._since or 0.0) >= _LASTED
                        pauses = _pauses() if lasted else pauses
                        if lasted and await self._joined_at_once():
                            continue
                        await self._forget()
                    await asyncio.sleep(next(pauses))
        except RoomError as error:
            reason = str(error)
        except Exception as error:
            _log.exception("room %s: left, since something is wrong with it", self.name)
            reason = repr(error)
        await self._end(reason)

    async def _joined_at_once(self) -> bool:
        try:
            await self._join()
        except LostError:
            return False
        return True

    async def quit(self) -> None:
        """The mixer leaves, and does not come back."""
        staying, self._staying = self._staying, None
        if staying:
            was_over = staying.done()
            staying.cancel()
            await asyncio.gather(staying, return_exceptions=True)
            if not was_over:
                await self._end("the mixer has left")

    def _failed(self, reason: str) -> None:
        """Called by the bus."""

        async def end() -> None:
            self._staying, staying = None, self._staying
            if staying:
                staying.cancel()
                await asyncio.gather(staying, return_exceptions=True)
            await self._end(f"its mix failed: {reason}")

        with contextlib.suppress(RuntimeError):  # The event loop has ended.
            self._loop.call_soon_threadsafe(lambda: spawn(end()))

    async def _end(self, reason: str) -> None:
        await self._forget()
        self._roster.tell("ended", reason=reason)

    async def _forget(self) -> None:
        """There is no session any more, and nobody that it told of."""
        session, self._session = self._session, None
        if session:
            await _close(session)
        self._roster.clear()

    async def detach(self) -> None:
        """The mixer leaves, and its mix ends."""
        await self.quit()
        await self._close_bus()

    async def _close_bus(self) -> None:
        self._is_over = True
        for source in list(self._sources):
            await source.stop()
        self.events.close()
        await asyncio.to_thread(process_pacer().remove, self.bus)


def _pauses() -> Iterator[float]:
    yield from _PAUSES
    while True:
        yield _LONGEST_PAUSE


async def _close(session: Session) -> None:
    """Closes it to the end, even if whoever wants it is cancelled."""

    async def close() -> None:
        with contextlib.suppress(Exception):
            await session.close()

    await asyncio.shield(spawn(close()))
