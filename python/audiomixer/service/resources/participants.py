"""Participants as a host has them: what is set of each identity in a room, how they get on, and who has to leave."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from audiomixer.audio.loudness import Loudness
from audiomixer.rooms.base import RemovalError, Vitals
from audiomixer.rooms.strip import Setting
from audiomixer.service.http.errors import ApiError
from audiomixer.service.jobs import Desk, Engine
from audiomixer.service.resources import lives
from audiomixer.service.resources.lifecycles import Office
from audiomixer.service.resources.processor_lifecycle import ProcessorLifecycle
from audiomixer.service.resources.room_account import settings_of
from audiomixer.service.resources.room_lifecycle import RoomLifecycle
from audiomixer.service.resources.store import Participant, Room

_TOLD: Final = 2.0
"""Seconds until who has been removed is told to have left."""
_LOOK: Final = 0.05
_MOST: Final = 1000
"""Identities of which something is set, in a room."""


class Participants:
    """What is stored of identities, and told to where they are mixed.

    Args:
        office: Where it is stored.
        rooms: Who comes and goes.
        processors: What mixes rooms elsewhere.
        engine: Where rooms of ours are mixed.
    """

    def __init__(self, office: Office, rooms: RoomLifecycle, processors: ProcessorLifecycle, engine: Engine) -> None:
        self._office = office
        self._rooms = rooms
        self._processors = processors
        self._engine = engine

    async def start(self) -> None:
        """Sets what has been set before, in the rooms of ours; the jobs of others bring it along."""
        running = select(Room).where(Room.status.in_(lives.ROOM.open), Room.settings.is_not(None))
        for room in await self._office.store.run(lambda session: list(session.scalars(running))):
            if not self._office.settings.elsewhere:
                await self._engine.rooms.adjust(room.unique_name, settings_of(room))

    async def set(self, room: Room, identity: str, changes: Mapping[str, Any]) -> Room:
        """Sets something of an identity, whether or not it is there; gives the room as it is then.

        Args:
            room: The room.
            identity: Whose.
            changes: Of the fields of `Setting`.

        Raises:
            ApiError: The room has ended, or something is set of too many.
        """

        def store(session: Session) -> Room:
            stored = session.get_one(Room, room.sid)
            if stored.status not in lives.ROOM.open:
                raise ApiError(409, "Room: expected one in progress")
            settings = settings_of(stored)
            settings[identity] = replace(settings.get(identity, Setting()), **changes)
            told = {name: asdict(setting) for name, setting in settings.items() if setting != Setting()}
            if len(told) > _MOST:
                raise ApiError(429, f"expected settings of at most {_MOST} identities in a room")
            stored.settings = told
            return stored

        stored = await self._office.store.run(store)
        settings = settings_of(stored)
        for place, desk in self._places(room):
            await desk.adjust(place, settings)
        return stored

    async def vitals(self, room: Room) -> Mapping[str, Vitals]:
        """How those get on who are mixed, by identity."""
        found: dict[str, Vitals] = {}
        if room.status in lives.ROOM.open:
            for place, desk in self._places(room):
                found |= await desk.vitals(place)
        return found

    async def loudness(self, room: Room) -> Loudness | None:
        """How loud the mix of a room is, if it is mixed."""
        if room.status in lives.ROOM.open:
            for place, desk in self._places(room):
                if measured := await desk.loudness(place):
                    return measured
        return None

    async def remove(self, room: Room, participant: Participant) -> None:
        """Has a participant leave; it has been told that it has left then, unless that takes seconds.

        Raises:
            ApiError: It cannot be removed.
        """
        places = list(self._places(room))
        if not places:
            raise ApiError(409, "Status: expected a room that is mixed")
        place, desk = places[0]
        try:
            await desk.remove(place, participant.identity)
        except RemovalError as error:
            raise ApiError(409, str(error)) from error
        for _ in range(round(_TOLD / _LOOK)):
            await self._rooms.recorded()
            found = await self._office.store.run(lambda session: session.get_one(Participant, participant.sid))
            if found.status != "connected":
                return
            await asyncio.sleep(_LOOK)

    def _places(self, room: Room) -> Iterator[tuple[str, Desk]]:
        """Where a room is mixed."""
        if not self._office.settings.elsewhere:
            yield room.unique_name, self._engine.rooms
        else:
            for sid in self._processors.in_room(room.sid):
                yield sid, self._engine
