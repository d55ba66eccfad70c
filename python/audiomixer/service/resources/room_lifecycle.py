"""Rooms as resources: made by the API or by who joins first, over when told to or when nobody is there."""

import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from audiomixer.auth.tokens import Keyring
from audiomixer.clock.tasks import spawn
from audiomixer.rooms.base import FullError, KeptOutError, NoRoomError, RoomEvent
from audiomixer.rooms.names import check_identity, check_name
from audiomixer.rooms.strip import Setting
from audiomixer.service.http.errors import ApiError
from audiomixer.service.jobs import Hosted
from audiomixer.service.resources import lives
from audiomixer.service.resources.lifecycles import Alarms, Office, check_room_for_more, make_sid
from audiomixer.service.resources.records import Records
from audiomixer.service.resources.room_account import RoomAccount, find_room, is_sid, settings_of
from audiomixer.service.resources.store import Heartbeat, Participant, Room, now

_log = logging.getLogger(__name__)

ROOM_EXISTS: Final = 53113
_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class RoomOrder:
    """What a new room shall be like."""

    unique_name: str = ""
    """Its SID, if empty."""
    type: str = "group"
    max_participants: int = 50
    max_participant_duration: int = 14_400
    """Seconds after which a participant has to leave."""
    empty_room_timeout: int = 5
    """Minutes after which a room ends that everybody has left."""
    unused_room_timeout: int = 5
    """Minutes after which a room ends that nobody has joined."""
    status_callback: str | None = None
    status_callback_method: str = "POST"


@dataclass(slots=True)
class _Told:
    """A participant of a room elsewhere, of whom mixers tell that are there."""

    sid: str
    by: set[str]
    """The mixers, by their SIDs as participants."""


@dataclass(slots=True)
class _Live:
    """A room in progress. Its participants are told by SID, mixers included."""

    room: Room
    present: set[str] = field(default_factory=set)
    told: dict[str, _Told] = field(default_factory=dict)
    """Participants elsewhere, by identity."""
    by_the_way: bool = False
    """Whether it was made for who joined first, and not by order."""
    joining: int = 0
    """Those who have been admitted, and are not present yet."""
    kept: list[Participant] = field(default_factory=list)
    """Who was there when the last process ended, and is still, until that has been told."""

    @property
    def taken(self) -> int:
        """Places that are not free."""
        return len(self.present) + self.joining


def _of(participants: list[Participant], identity: str) -> Participant | None:
    return next((participant for participant in participants if participant.identity == identity), None)


class RoomLifecycle:
    """Keeps account of rooms and of who is in them; the doorkeeper of the local rooms.

    Args:
        office: Where account is kept.
        keyring: What access tokens are signed with.
    """

    def __init__(self, office: Office, keyring: Keyring) -> None:
        self.hosted: Hosted
        """The rooms of ours."""
        self.on_completed: Callable[[str], None] = lambda sid: None
        """Told of the SID of a room that has ended."""
        self._office = office
        self._keyring = keyring
        self._live: dict[str, _Live] = {}
        self._participants: dict[str, tuple[str, str]] = {}
        """Room and participant by WHIP resource."""
        self._alarms = Alarms()
        self._records = Records(office)
        self._account = RoomAccount(office.callbacks)

    @property
    def in_progress(self) -> int:
        """How many rooms are."""
        return len(self._live)

    @property
    def participants(self) -> int:
        """How many are in a room, mixers included."""
        return sum(len(live.present) for live in self._live.values())

    async def start(self, present: Mapping[str, Counter[str]]) -> None:
        """Goes on with the rooms of the last process, which all have left but who is still present.

        Args:
            present: How many of each identity, by the room's name; `everybody_told` has to follow when all of these
                have been told of again.
        """

        def load(session: Session) -> list[tuple[Room, list[Participant]]]:
            rooms = list(session.scalars(select(Room).where(Room.status.in_(lives.ROOM.open))))
            heartbeat = session.get(Heartbeat, 1)
            when = heartbeat.at if heartbeat else now()
            return [
                (room, self._account.left_but(session, room, when, present.get(room.unique_name, Counter())))
                for room in rooms
            ]

        self._records.start()
        for room, kept in await self._office.store.run(load):
            live = self._live[room.sid] = _Live(room, kept=kept)
            live.present.update(participant.sid for participant in kept)
            self._office.callbacks.deliver(room.sid)
            self._await_somebody(room)

    def everybody_told(self) -> None:
        """Whoever was present has been told of; of whom nobody has, has left."""
        for live in self._live.values():
            while live.kept:
                self._drop(live.room.sid, live.kept.pop().sid)

    async def close(self) -> None:
        """Keeps account no more; the rooms stay in progress."""
        self._alarms.close()
        await self._records.close()

    async def create(self, order: RoomOrder) -> Room:
        """Makes a room.

        Raises:
            ApiError: There is one of this name, or there are too many.
            ValueError: The name is none.
        """
        sid, made = make_sid("RM"), now()
        if order.unique_name:
            check_name(order.unique_name)
            if is_sid(order.unique_name):
                raise ValueError("expected a name that is no SID")

        def add(session: Session) -> Room:
            if order.unique_name and find_room(session, order.unique_name):
                raise ApiError(
                    400, f"UniqueName: expected a new one, there is a room {order.unique_name!r}", ROOM_EXISTS
                )
            check_room_for_more(session, Room, self._office.settings.max_rooms, Room.status.in_(lives.ROOM.open))
            room = Room(
                sid=sid,
                status=lives.ROOM.begins,
                created=made,
                updated=made,
                unique_name=order.unique_name or sid,
                type=order.type,
                max_participants=order.max_participants,
                max_participant_duration=order.max_participant_duration,
                empty_room_timeout=order.empty_room_timeout,
                unused_room_timeout=order.unused_room_timeout,
                status_callback=order.status_callback,
                status_callback_method=order.status_callback_method,
                callbacks_made=0,
            )
            session.add(room)
            self._account.tell(session, room, "room-created")
            return room

        room = await self._office.store.run(add)
        self._live[sid] = _Live(room)
        self._office.callbacks.deliver(sid)
        self._await_somebody(room)
        return room

    async def find(self, name: str) -> Room | None:
        """The room of this SID, whatever its status, or the one in progress of this name."""
        return await self._office.store.run(lambda session: find_room(session, name))

    async def complete(self, sid: str) -> None:
        """Ends a room, unless it has ended: everybody has to leave, except that mixers go on with silence."""

        def end(session: Session) -> bool:
            room = session.get(Room, sid)
            if room is None or room.status not in lives.ROOM.open:
                return False
            self._account.everybody_left(session, room, now())
            lives.ROOM.happens(room, "completed")
            self._account.tell(session, room, "room-ended", RoomDuration=str(round(now() - room.created)))
            return True

        if await self._office.store.run(end):
            self._alarms.clear(sid)
            name = self._live.pop(sid).room.unique_name
            self._office.callbacks.deliver(sid)
            await self.hosted.end(name)
            self.on_completed(sid)

    async def enter(self, name: str, identity: str) -> tuple[Room, str] | None:
        """A mixer wants to join: gives the room, made if need be and allowed, and the mixer's SID as a participant.

        None if there is none to join.
        """
        room = await self._find_or_create(name)
        if room is None or room.sid not in self._live:
            return None
        return room, self._add(room, identity)

    def exit(self, room_sid: str, participant: str) -> None:
        """A mixer leaves, unless it has left."""
        self._drop(room_sid, participant)
        live = self._live.get(room_sid)
        for identity in list(live.told) if live else ():
            self._untell(room_sid, participant, identity)

    async def over(self, room_sid: str, participant: str, *, joined: bool) -> None:
        """A room elsewhere has ended, or was not there, as a mixer says, who leaves.

        If no other mixer is in it, it is completed; but one that was made by order may still be joined.
        """
        self.exit(room_sid, participant)
        live = self._live.get(room_sid)
        if live and not live.present and (joined or live.by_the_way):
            await self.complete(room_sid)

    def told(self, room_sid: str, by: str, event: RoomEvent) -> None:
        """A mixer tells of a participant of its room elsewhere."""
        live = self._live.get(room_sid)
        if live is None:
            return
        if event.what == "participant-joined":
            known = live.told.get(event.identity)
            if known:
                known.by.add(by)
            else:
                live.told[event.identity] = _Told(self._add(live.room, event.identity), {by})
        elif event.what == "participant-left":
            self._untell(room_sid, by, event.identity)

    def _untell(self, room_sid: str, by: str, identity: str) -> None:
        """A mixer tells of a participant no more."""
        live = self._live.get(room_sid)
        told = live.told.get(identity) if live else None
        if live and told:
            told.by.discard(by)
            if not told.by:
                del live.told[identity]
                self._drop(room_sid, told.sid)

    @property
    def is_open(self) -> bool:
        """Whether anybody may join: nobody without a token."""
        return False

    @contextlib.asynccontextmanager
    async def admit(self, room: str, token: str | None, identity: str | None) -> AsyncGenerator[tuple[str, str]]:
        """Somebody wants to join a room, with an access token."""
        access = self._keyring.verify(token)
        if self._office.settings.elsewhere:
            raise NoRoomError(f"room: rooms are elsewhere, there is no {room!r} here")
        found = await self.find(room)
        access.check_room(room, *([found.unique_name, found.sid] if found else []))
        identity = check_identity(access.identity)
        if found is None:
            found = await self._find_or_create(room)
        if found is None or found.sid not in self._live:
            raise NoRoomError(f"room: there is no {room!r}")
        if settings_of(found).get(identity, Setting()).kept_out:
            raise KeptOutError(f"identity: {identity!r} is kept out of this room")
        live, most = self._live[found.sid], self._office.settings.max_participants
        if identity not in self.hosted.identities(found.unique_name):
            if live.taken >= found.max_participants:
                raise FullError(f"room: expected at most {found.max_participants} participants")
            if sum(other.taken for other in self._live.values()) >= most:
                raise FullError(f"server: expected at most {most} participants")
        live.joining += 1
        try:
            yield found.unique_name, identity
        finally:
            live.joining -= 1

    async def check(self, room: str, token: str | None) -> str:
        """Somebody wants to know who is in a room, with an access token."""
        access = self._keyring.verify(token)
        found = await self.find(room)
        access.check_room(room, *([found.unique_name, found.sid] if found else []))
        return found.unique_name if found else room

    def joined(self, room: str, resource: str, identity: str) -> None:
        """A participant has joined."""
        live = next((live for live in self._live.values() if live.room.unique_name == room), None)
        if live is None:
            spawn(self.hosted.end(room))  # It has ended since.
            return
        kept = _of(live.kept, identity)
        stayed = now() - kept.started if kept else 0.0
        sid = self._add(live.room, identity)
        self._participants[resource] = live.room.sid, sid

        async def has_to_leave() -> None:
            await self.hosted.leave(resource)

        self._alarms.set(resource, live.room.max_participant_duration - stayed, has_to_leave)

    def left(self, room: str, resource: str) -> None:
        """A participant has left."""
        self._alarms.clear(resource)
        found = self._participants.pop(resource, None)
        if found:
            self._drop(*found)

    async def _find_or_create(self, name: str) -> Room | None:
        room = await self.find(name)
        # Whether there is a room elsewhere turns out when it is joined.
        may_be = self._office.settings.room_creation or self._office.settings.elsewhere
        if room is None and may_be and not is_sid(name):
            try:
                room = await self.create(RoomOrder(name))
                self._live[room.sid].by_the_way = True
                return room
            except ApiError as error:
                if error.code == ROOM_EXISTS:
                    return await self.find(name)
                raise FullError(str(error.detail)) from error
        return room

    def _add(self, room: Room, identity: str) -> str:
        live = self._live[room.sid]
        self._alarms.clear(room.sid)
        if kept := _of(live.kept, identity):
            live.kept.remove(kept)
            return kept.sid
        sid, joined = make_sid("PA"), now()
        live.present.add(sid)

        def add(session: Session) -> None:
            stored = session.get_one(Room, room.sid)
            if stored.status not in lives.ROOM.open:
                return  # It has ended meanwhile, which has been told.
            participant = Participant(sid=sid, room_sid=room.sid, identity=identity, status="connected", started=joined)
            self._account.enter(session, stored, participant)

        self._records.add(room.sid, add)
        return sid

    def _drop(self, room_sid: str, sid: str) -> None:
        live = self._live.get(room_sid)
        if live:
            live.present.discard(sid)
            live.room.used = now()
            if not live.present:
                self._await_somebody(live.room)

        left = now()

        def end(session: Session) -> None:
            participant = session.get(Participant, sid)
            room = session.get_one(Room, room_sid)
            if participant and participant.status == "connected":
                self._account.leave(session, room, participant, left)

        self._records.add(room_sid, end)

    async def recorded(self) -> None:
        """Waits until everything that has happened is stored."""
        await self._records.stored()

    def _await_somebody(self, room: Room) -> None:
        """The room ends if nobody comes."""
        minutes = room.unused_room_timeout if room.used is None else room.empty_room_timeout

        async def nobody_came() -> None:
            live = self._live.get(room.sid)
            if live and not live.taken:
                await self.complete(room.sid)

        self._alarms.set(room.sid, _MINUTE * minutes, nobody_came)
