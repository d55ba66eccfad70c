"""Workers that are to be empty: what they have goes on on others."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from audiomixer.clock.pacer import clock
from audiomixer.rooms.place import Place
from audiomixer.service.cluster.hosted import ClusterRooms
from audiomixer.service.cluster.member import Member

_LOOK: Final = 1.0

_log = logging.getLogger(__name__)


class Draining:
    """Empties workers, each in a task of its own.

    Args:
        rooms: The rooms of ours.
        is_room: Whether another worker has time for what is moved.
        seconds: After which rooms are ended in which there still are participants.
    """

    def __init__(self, rooms: ClusterRooms, is_room: Callable[[], bool], seconds: float) -> None:
        self.on_move: Callable[[str], Awaitable[None]]
        """Has a job go on elsewhere."""
        self._rooms = rooms
        self._is_room = is_room
        self._seconds = seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, member: Member) -> None:
        """Empties a worker; once is enough."""
        task = self._tasks.get(member.name)
        if task is None or task.done():
            self._tasks[member.name] = asyncio.create_task(self._empty(member))

    async def _empty(self, member: Member) -> None:
        until, told = clock() + self._seconds, False
        while member.status == "draining":
            if not self._is_room():
                if not told:
                    _log.warning("worker %s keeps what it has: no other has time for that", member.name)
                told = True
                await asyncio.sleep(_LOOK)
                continue
            try:
                await self._round(member, overdue=clock() > until)
            except Exception:
                _log.exception("worker %s is not drained yet", member.name)
            if not member.jobs and not self._rooms.on(member):
                _log.info("worker %s is drained", member.name)
                return
            await asyncio.sleep(_LOOK)

    async def _round(self, member: Member, *, overdue: bool) -> None:
        """Moves what can be, now; rooms of ours if nobody but mixers is there, or it takes too long."""
        for room in self._rooms.on(member):
            if overdue or not self._rooms.identities(room):
                self._rooms.displace(room)
                await member.call("end_room", room)
        for sid, job in list(member.jobs.items()):
            place = Place.parse(job.room) if job.room else None
            if place is None or place.kind != "local" or self._rooms.where(place.name) is not member:
                if member.status != "draining" or not self._is_room():
                    return
                await self.on_move(sid)

    def close(self) -> None:
        """Empties no more."""
        for task in self._tasks.values():
            task.cancel()
