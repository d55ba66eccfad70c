"""The embedded room: participants join by WHIP, and each hears everybody but themselves."""

import asyncio
import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audiomixer._core import Stats
from audiomixer.audio.decibels import gain_of
from audiomixer.audio.loudness import Loudness, measure
from audiomixer.clock.broadcast import Broadcast
from audiomixer.clock.bus import process_pacer, room_bus
from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.clock.tasks import spawn
from audiomixer.rooms.base import KeptOutError, NoRoomError, RoomError, RoomEvent, Vitals, What
from audiomixer.rooms.door import Doorkeeper
from audiomixer.rooms.door import OpenDoor as OpenDoor
from audiomixer.rooms.member import Member, PeerMember
from audiomixer.rooms.names import check_name
from audiomixer.rooms.pcm import Codec, PcmMember
from audiomixer.rooms.returns import Returns
from audiomixer.rooms.roster import COUNTED
from audiomixer.rooms.source import Open, Source, SourceError, SourceOrder, SourceState, play
from audiomixer.rooms.strip import Setting, Strip, set_all
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.peer import Peer

_MOST_SOURCES: Final = 32
_MOST_SET: Final = 10_000
"""Rooms of which settings are known."""

_log = logging.getLogger(__name__)


class LocalRoom:
    """A room in this process, to be made on the event loop. It ends when nobody is in it, participant or mixer.

    Args:
        name: What it is called.
        ice: Where participants reach it; on this machine only, if None.
        door: Who is told of participants that come and go.
        on_ended: Called when the room has ended.
        past: What happened to the packets of who has left is added to.

    Raises:
        ValueError: The name is none.
    """

    def __init__(
        self,
        name: str,
        ice: Ice | None = None,
        door: Doorkeeper | None = None,
        on_ended: Callable[["LocalRoom"], None] = lambda _: None,
        past: Counter[str] | None = None,
    ) -> None:
        check_name(name)
        self.name = name
        self.volumes: Broadcast[dict[str, int]] = Broadcast(limit=10)
        """The volumes, by identity, every 500 ms."""
        self.events: Broadcast[RoomEvent] = Broadcast(limit=1000)
        """Who comes and goes."""
        self.kept_out: set[str] = set()
        self._ice = ice or Ice(["127.0.0.1"])
        self._door = door or OpenDoor()
        self._on_ended = on_ended
        self._past = Counter() if past is None else past
        self._members: dict[str, Member] = {}
        self._sources: dict[str, Source] = {}
        """What is played, by the resource that it is."""
        self._played_before: dict[str, SourceState] = {}
        self._opening = 0
        """What is not played yet."""
        self._users = 0
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self.bus = room_bus(self._failed)
        self._returns = Returns(self.bus.mixer)
        self.bus.add(self)
        process_pacer().add(self.bus)

    def __repr__(self) -> str:
        return f"<LocalRoom {self.name!r}: {', '.join(self._members) or 'nobody'}>"

    @property
    def identities(self) -> list[str]:
        """The participants."""
        return list(self._members)

    @property
    def resources(self) -> dict[str, str]:
        """The participants' identities, by the resources that they joined as; what is played is one."""
        played = {resource: source.identity for resource, source in self._sources.items()}
        return {member.resource: identity for identity, member in self._members.items()} | played

    def stats(self) -> dict[str, Stats]:
        """What happened to each participant's packets, by identity."""
        members = self._members.items()
        return {identity: member.participant.stats() for identity, member in members if member.participant}

    def participant(self, identity: str) -> Strip:
        """What a host may set of a participant, whether or not it is there.

        Raises:
            ValueError: The identity is none.
        """
        return Strip(self, identity)

    def vitals(self) -> dict[str, Vitals]:
        """How everybody gets on who is in the mix, by identity."""
        muted, volumes = set(self.bus.mixer.muted), self.bus.volumes
        vitals = {
            identity: Vitals(volumes.get(identity, -1), identity in muted, codec="pcm")
            for identity in self.bus.mixer.identities
        }
        for identity, stats in self.stats().items():
            vitals[identity] = Vitals(
                volumes.get(identity, -1),
                identity in muted,
                stats.lost,
                stats.concealed,
                stats.delay,
                codec=self._members[identity].codec,
                client=self._members[identity].client,
            )
        return vitals

    def keep_out(self, identity: str) -> None:
        """Lets an identity not be in the room; who is is removed, soon."""
        self.kept_out.add(identity)
        if identity in self._members or any(source.identity == identity for source in self._sources.values()):
            spawn(self.remove(identity))

    async def remove(self, identity: str) -> None:
        """Has a participant leave."""
        member = self._members.get(identity)
        if member:
            await member.close()
        for source in [source for source in self._sources.values() if source.identity == identity]:
            await source.stop()
        if member is None and identity in self.bus.mixer.identities:
            self.bus.mixer.remove_participant(identity)

    @property
    def played(self) -> dict[str, SourceState]:
        """What has been played last, by the resource that it was: how it ended."""
        return dict(self._played_before)

    @property
    def sources(self) -> dict[str, Source]:
        """What is being played, by the resource that it is."""
        return dict(self._sources)

    async def play(self, order: SourceOrder, open_at: Open | None = None, resource: str = "") -> Source:
        """Plays a file or a stream, as a participant; it is heard as soon as this returns.

        Args:
            order: What.
            open_at: Opens it, if not as anybody may who has the URL.
            resource: What the doorkeeper knows it by, if not by a new one.

        Raises:
            RoomError: The room has ended, or keeps it out.
            SourceError: It cannot be played.
            ValueError: Something of the order is wrong.
        """
        self._check_welcome(order.identity)
        self._enter()
        try:
            if len(self._sources) + self._opening >= _MOST_SOURCES:
                raise SourceError(f"expected at most {_MOST_SOURCES} at once")
            self._opening += 1
            try:
                source = await play(self.bus, order, open_at)
            finally:
                self._opening -= 1
            if self._ended or source.identity in self.kept_out:
                await source.stop()
                self._check_welcome(source.identity)
                raise RoomError(f"room: {self.name!r} has ended")
            resource = resource or secrets.token_urlsafe(16)
            self._sources[resource] = source
            source.on_ended = lambda source: self._played(resource, source)
            self._door.joined(self.name, resource, source.identity)
            self._tell("participant-joined", source.identity)
        finally:
            await self.detach()
        return source

    def _played(self, resource: str, source: Source) -> None:
        del self._sources[resource]
        self._played_before[resource] = source.state
        while len(self._played_before) > _MOST_SOURCES:
            del self._played_before[next(iter(self._played_before))]
        self._door.left(self.name, resource)
        self._tell("participant-left", source.identity)

    async def attach(self) -> None:
        """A mixer joins."""
        self._enter()
        self._tell("joined")

    def _enter(self) -> None:
        if self._ended:
            raise RoomError(f"room: {self.name!r} has ended")
        self._users += 1

    async def quit(self) -> None:
        """A mixer that does not mix any more is none that the room knows of."""

    async def detach(self) -> None:
        """A mixer leaves."""
        self._users -= 1
        await self._end_if_empty()

    async def join(self, offer: str, identity: str, client: str = "") -> tuple[str, str]:
        """A participant joins, in the place of one with the same identity if there is one.

        Args:
            offer: The SDP offer.
            identity: Who it is.
            client: What it joins by, for hosts to see.

        Returns:
            The resource by which it can `leave`, and the SDP answer.

        Raises:
            OfferError: The offer cannot be answered. Nothing has changed then.
            KeptOutError: A host keeps it out.
            RoomError: The room has ended.
        """
        self._check_welcome(identity)
        self._enter()
        try:
            member = PeerMember(self._ice, client, self._closed)
            answer = await member.peer.answer(offer)
            await self._take_in(member, identity)
        finally:
            await self.detach()
        return member.resource, answer

    async def join_pcm(
        self, identity: str, codec: Codec = "pcm", sample_rate: int = 48_000, client: str = ""
    ) -> PcmMember:
        """A participant joins that sends and gets audio as it is, or Opus packets; otherwise as `join`.

        Args:
            identity: Who it is.
            codec: What it sends and gets.
            sample_rate: Of samples: 8000, 16000, 24000, 44100 or 48000.
            client: What it joins by, for hosts to see.

        Raises:
            KeptOutError: A host keeps it out.
            RoomError: The room has ended.
        """
        self._check_welcome(identity)
        self._enter()
        try:
            member = PcmMember(codec, sample_rate, client, self._closed)
            await self._take_in(member, identity)
        finally:
            await self.detach()
        return member

    async def _take_in(self, member: Member, identity: str) -> None:
        """Somebody whose connection there is comes in; it is closed if that cannot be."""
        if self._ended or identity in self.kept_out:
            await member.close()
            self._check_welcome(identity)
            raise RoomError(f"room: {self.name!r} has ended")
        # From here to the next await nothing can come between: the others hear one participant all along.
        previous = self._members.get(identity)
        if previous:
            self._remove(identity)
        for source in self._sources.values():
            if source.identity == identity:  # What is played makes place.
                source.leave()
                spawn(source.stop())
        try:
            member.participant = self.bus.mixer.add_participant(identity)
        except ValueError as error:
            # Something that is being opened is to be played as that, or an application has it.
            await member.close()
            raise RoomError(f"identity: {identity!r} is taken in this room") from error
        self._members[identity] = member
        self._count_listeners()
        self._door.joined(self.name, member.resource, identity)
        if not previous:
            self._tell("participant-joined", identity)
        if member.publishes:
            self._tell("published", identity, member.resource)
        _log.info("room %s: %s %s", self.name, identity, "is back" if previous else "joined")
        if previous:
            await previous.close()

    def _check_welcome(self, identity: str) -> None:
        if identity in self.kept_out:
            raise KeptOutError(f"identity: {identity!r} is kept out of this room")

    async def leave(self, resource: str) -> bool:
        """The participant leaves that joined as `resource`; False if there is none."""
        for member in self._members.values():
            if member.resource == resource:
                await member.close()
                return True
        source = self._sources.get(resource)
        if source:
            await source.stop()
        return source is not None

    def peer(self, resource: str) -> Peer | None:
        """The connection of the participant that joined as `resource`."""
        members = [member for member in self._members.values() if isinstance(member, PeerMember)]
        return next((member.peer for member in members if member.resource == resource), None)

    def _closed(self, member: Member) -> None:
        for identity, other in self._members.items():
            if other is member:
                self._remove(identity)
                self._tell("participant-left", identity)
                _log.info("room %s: %s left", self.name, identity)
                spawn(self._end_if_empty())
                return

    def _remove(self, identity: str) -> None:
        member = self._members.pop(identity)
        self._count_listeners()
        if member.publishes:
            self._tell("unpublished", identity, member.resource)
        if member.participant:
            self._past.update(_counted(member.participant.stats()))
            self._door.left(self.name, member.resource)
        # Packets may still come, until the connection is closed.
        member.participant = None
        self.bus.mixer.remove_participant(identity)

    def _count_listeners(self) -> None:
        """Sees who of the members wants to hear something."""
        self._returns.listeners = tuple(listener for member in self._members.values() if (listener := member.listener))

    async def close(self, reason: str = "the room has been closed") -> None:
        """Ends the room: everybody has to leave, and nobody can join any more. Mixers go on, with silence."""
        self._end(reason)
        for member in list(self._members.values()):
            await member.close()
        for source in self.sources.values():
            await source.stop()
        await self._end_if_empty()

    def _failed(self, reason: str) -> None:
        """Called by the bus."""
        with contextlib.suppress(RuntimeError):  # The event loop has ended.
            self._loop.call_soon_threadsafe(lambda: spawn(self.close(f"its mix failed: {reason}")))

    def _end(self, reason: str) -> None:
        if not self._ended:
            self._ended = True
            self._on_ended(self)
            self.volumes.close()
            self._tell("ended", reason=reason)
            self.events.close()

    def _tell(self, what: What, identity: str = "", track: str = "", reason: str = "") -> None:
        self.events.publish(RoomEvent(what, identity, track, reason))

    async def _end_if_empty(self) -> None:
        if not self._members and not self._users:
            self._end("everybody has left")
            for source in self.sources.values():
                await source.stop()
            await asyncio.to_thread(process_pacer().remove, self.bus)

    @property
    def patient(self) -> bool:
        """Whether nobody hears anything."""
        return not self._returns.listeners

    def on_frames(self, samples: NDArray[np.float32]) -> None:
        """Sends each participant what it hears of the last frame; called by the bus."""
        self._returns.send(samples[-FRAME_SIZE:])

    def on_volumes(self, volumes: dict[str, int]) -> None:
        """Publishes the volumes; called by the bus."""
        self._loop.call_soon_threadsafe(self.volumes.publish, volumes)


def _counted(stats: Stats) -> dict[str, float]:
    return {name: getattr(stats, name) for name in COUNTED}


class LocalRooms:
    """The local rooms of one server: made when somebody wants to join, gone when everybody has left.

    Args:
        ice: Where participants reach them; on this machine only, if None.
        door: Who decides who may join; everybody, if None.
    """

    def __init__(self, ice: Ice | None = None, door: Doorkeeper | None = None) -> None:
        self.ice = ice or Ice(["127.0.0.1"])
        self.door: Doorkeeper = door or OpenDoor()
        self.opener: Callable[[SourceOrder], Open | None] = lambda order: None
        """How what others order is opened that is to be played."""
        self._rooms: dict[str, LocalRoom] = {}
        self._settings: dict[str, Mapping[str, Setting]] = {}
        self._past: Counter[str] = Counter()

    def __iter__(self) -> Iterator[LocalRoom]:
        """The rooms there are."""
        return iter(list(self._rooms.values()))

    def get(self, name: str) -> LocalRoom | None:
        """The room called `name`, if there is one."""
        return self._rooms.get(name)

    def open(self, name: str) -> LocalRoom:
        """The room called `name`, which is made if need be.

        Raises:
            ValueError: The name is none.
        """
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = LocalRoom(name, self.ice, self.door, self._forget, self._past)
            set_all(room, self._settings.get(name, {}), {})
        return room

    async def join(
        self, name: str, offer: str, token: str | None, identity: str | None, client: str = ""
    ) -> tuple[str, str]:
        """A participant joins the room called `name`, if the doorkeeper lets it.

        Returns:
            As `LocalRoom.join`.

        Raises:
            TokenError: A token is needed, and this is none or not good for the room.
            ValueError: The room's name or the identity is none, or the offer cannot be answered (`OfferError`).
            RoomError: The room cannot be joined.
        """
        async with self.door.admit(name, token, identity) as (room, admitted):
            return await self.open(room).join(offer, admitted, client)

    def identities(self, name: str) -> list[str]:
        """The participants of the room called `name`."""
        room = self.get(name)
        return room.identities if room else []

    def present(self) -> Mapping[str, Mapping[str, str]]:
        """The participants' identities, by room and by the resources that they joined as."""
        return {name: room.resources for name, room in self._rooms.items()}

    async def end(self, name: str) -> None:
        """Ends the room called `name`, if there is one."""
        self._settings.pop(name, None)
        room = self.get(name)
        if room:
            await room.close()

    async def adjust(self, name: str, settings: Mapping[str, Setting]) -> None:
        """Sets all that is set of participants in the room called `name`, until that has been ended by its name.

        Of too many rooms, those are forgotten of which something was set the longest ago.
        """
        before = self._settings.pop(name, {})
        if settings:
            self._settings[name] = dict(settings)
        while len(self._settings) > _MOST_SET:
            del self._settings[next(iter(self._settings))]
        room = self.get(name)
        if room:
            set_all(room, settings, before)

    async def play(self, name: str, order: SourceOrder, resource: str) -> SourceState:
        """Plays something in the room called `name`, as `LocalRoom.play`.

        Raises:
            NoRoomError: Nobody is there.
        """
        room = self.get(name)
        if room is None:
            raise NoRoomError(f"room: nobody is in {name!r}")
        return (await room.play(order, self.opener(order), resource)).state

    async def sources(self, name: str) -> dict[str, SourceState]:
        """What is being played in the room called `name`, and was last, by the resource that it is."""
        room = self.get(name)
        return room.played | {resource: source.state for resource, source in room.sources.items()} if room else {}

    async def steer(
        self,
        name: str,
        resource: str,
        *,
        paused: bool | None = None,
        gain_db: float | None = None,
        position: float | None = None,
    ) -> None:
        """Does something with what is being played in the room called `name`; with what has ended, nothing.

        Raises:
            SourceError: It cannot be opened at that position.
            ValueError: A number is none.
        """
        room = self.get(name)
        source = room.sources.get(resource) if room else None
        if source is None:
            return
        if gain_db is not None:
            source.gain = gain_of(gain_db)
        if paused is not None:
            (source.pause if paused else source.resume)()
        if position is not None:
            await source.seek(position)

    async def vitals(self, name: str) -> dict[str, Vitals]:
        """How participants of the room called `name` get on, by identity."""
        room = self.get(name)
        return room.vitals() if room else {}

    async def loudness(self, name: str) -> Loudness | None:
        """How loud the mix of the room called `name` is, measured from when this is asked first."""
        room = self.get(name)
        return measure(room.bus.mixer) if room else None

    async def remove(self, name: str, identity: str) -> None:
        """Has a participant leave the room called `name`, if there are both."""
        room = self.get(name)
        if room:
            await room.remove(identity)

    def packets(self) -> Counter[str]:
        """What happened to packets, of everybody so far; `concealed` is in seconds."""
        counted = self._past.copy()
        for room in self._rooms.values():
            for stats in room.stats().values():
                counted.update(_counted(stats))
        return counted

    async def leave(self, resource: str) -> bool:
        """The participant leaves that joined as `resource`, whatever room it is in; False if there is none."""
        for room in list(self._rooms.values()):
            if await room.leave(resource):
                return True
        return False

    def peer(self, resource: str) -> Peer | None:
        """The connection of the participant that joined as `resource`, whatever room it is in."""
        return next((peer for room in self._rooms.values() if (peer := room.peer(resource))), None)

    def _forget(self, room: LocalRoom) -> None:
        if self._rooms.get(room.name) is room:
            del self._rooms[room.name]

    async def close(self) -> None:
        """Everybody has to leave."""
        for room in list(self._rooms.values()):
            await room.close()
