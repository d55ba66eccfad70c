"""The rooms of ours on all workers: where each is, and who is in it."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from audiomixer.audio.loudness import Loudness
from audiomixer.clock.pacer import clock
from audiomixer.clock.tasks import spawn
from audiomixer.rooms.base import NoRoomError, Vitals
from audiomixer.rooms.door import Doorkeeper
from audiomixer.rooms.source import SourceOrder, SourceState
from audiomixer.rooms.strip import Setting
from audiomixer.service.cluster.member import Member
from audiomixer.service.cluster.nodes import GoneError

_FRESH: Final = 5.0
"""Seconds for which a room's place is kept though its worker does not have the room yet, or has it no more."""
_OPENED: Final = 25.0
"""Seconds that it may take to open what is to be played: a little more than the worker itself has."""


class ClusterRooms:
    """Rooms by their names, and participants by the resources that they joined as."""

    def __init__(self) -> None:
        self.door: Doorkeeper
        """Who is told who joins and leaves."""
        self._places: dict[str, tuple[Member, float]] = {}
        """Where rooms are, and when somebody wanted to be there last."""
        self._members: dict[str, dict[str, str]] = {}
        self._at: dict[str, tuple[str, Member]] = {}
        """The room and the worker of each participant."""
        self._settings: dict[str, Mapping[str, Setting]] = {}
        """What hosts have set, by room and identity."""
        self._told: dict[str, Member] = {}
        """The workers that know of such settings, by room."""
        self._gone: deque[str] = deque(maxlen=1000)
        """Who has left lately: the answer to who joined may come after that."""

    def present(self) -> Mapping[str, Mapping[str, str]]:
        """The participants' identities, by room and resource."""
        return self._members

    def names(self) -> list[str]:
        """The rooms."""
        return list(self._places)

    def identities(self, name: str) -> list[str]:
        """The participants of a room."""
        return list(self._members.get(name, {}).values())

    def where(self, name: str) -> Member | None:
        """The worker that a room is on, if it is on one."""
        found = self._places.get(name)
        return found[0] if found else None

    def place(self, name: str, member: Member) -> None:
        """Somebody wants to be in a room, which is on that worker."""
        self._places[name] = (member, clock())

    def displace(self, name: str) -> None:
        """A room is on no worker any more; the next who comes chooses."""
        self._places.pop(name, None)

    def on(self, member: Member) -> list[str]:
        """The rooms on a worker."""
        return [room for room, (where, _) in self._places.items() if where is member]

    def told(self, member: Member, rooms: Iterable[str]) -> None:
        """These are the rooms that a worker has."""
        there = set(rooms)
        for room in there.difference(self._places):
            if member.status == "active":  # On one that is drained, it is being ended.
                self.place(room, member)
        for room in set(self.on(member)).difference(there):
            if clock() - self._places[room][1] > _FRESH:
                del self._places[room]

    def joined(self, member: Member, room: str, resource: str, identity: str, *, known: bool = False) -> None:
        """Somebody has joined; the door is told, unless that is known from before."""
        if resource in self._at or resource in self._gone:
            return
        self._members.setdefault(room, {})[resource] = identity
        self._at[resource] = room, member
        if not known:
            self.door.joined(room, resource, identity)

    def left(self, resource: str) -> None:
        """Somebody has left."""
        self._gone.append(resource)
        room, _ = self._at.pop(resource, ("", None))
        present = self._members.get(room, {})
        if present.pop(resource, None) is not None:
            if not present:
                del self._members[room]
            self.door.left(room, resource)

    def lost(self, member: Member) -> None:
        """A worker is gone, and everybody with it."""
        for room in self.on(member):
            del self._places[room]
        for resource in [resource for resource, (_, where) in self._at.items() if where is member]:
            self.left(resource)

    def of(self, resource: str) -> tuple[str, Member | None]:
        """The room, and the worker, of who joined as `resource`."""
        return self._at.get(resource, ("", None))

    async def end(self, name: str) -> None:
        """Ends a room."""
        self._settings.pop(name, None)
        if (told := self._told.pop(name, None)) and told.status != "lost":
            spawn(told.look("room", "adjust", name, {}))
        member = self.where(name)
        if member and member.status != "lost":
            try:
                await member.call("end_room", name)
            except GoneError:
                return

    async def adjust(self, name: str, settings: Mapping[str, Setting]) -> None:
        """Sets all that is set of identities in a room, wherever it is or will be."""
        self._settings.pop(name, None)
        if settings:
            self._settings[name] = settings
        if member := self.where(name):
            await self.set_up(name, member)

    async def set_up(self, name: str, member: Member) -> None:
        """Tells a worker what is set of identities in a room that is to be there.

        Raises:
            AwayError: It does not answer.
        """
        settings = self._settings.get(name, {})
        if settings or self._told.get(name) is member:
            self._told[name] = member
            await member.at_desk("room", "adjust", name, settings)

    async def vitals(self, name: str) -> Mapping[str, Vitals]:
        """How the participants of a room get on."""
        member = self.where(name)
        return (await member.look("room", "vitals", name)) if member else {}

    async def loudness(self, name: str) -> Loudness | None:
        """How loud the mix of a room is."""
        member = self.where(name)
        return (await member.look("room", "loudness", name) or None) if member else None

    async def remove(self, name: str, identity: str) -> None:
        """Has a participant leave a room."""
        if member := self.where(name):
            await member.at_desk("room", "remove", name, identity)

    async def play(self, name: str, order: SourceOrder, resource: str) -> SourceState:
        """Plays something in a room.

        Raises:
            AwayError: Its worker does not answer.
            NoRoomError: Nobody is in it.
        """
        member = self.where(name)
        if member is None:
            raise NoRoomError(f"room: nobody is in {name!r}")
        played = await member.at_desk("room", "play", name, order, resource, patience=_OPENED)
        state: SourceState = played
        self.joined(member, name, resource, state.identity)
        return state

    async def sources(self, name: str) -> Mapping[str, SourceState]:
        """What is being played in a room."""
        member = self.where(name)
        return (await member.look("room", "sources", name)) if member else {}

    async def steer(self, name: str, resource: str, **how: float | bool | None) -> None:
        """Does something with what is being played."""
        if member := self.where(name):
            await member.at_desk("room", "steer", name, resource, patience=_OPENED, **how)

    async def leave(self, resource: str) -> bool:
        """Has a participant leave.

        Raises:
            TimeoutError: Its worker does not answer.
        """
        _, member = self.of(resource)
        if member is None:
            return False
        try:
            return bool(await member.call("expel", resource))
        except GoneError:
            return False
