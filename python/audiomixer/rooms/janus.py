"""Rooms of Janus's VideoRoom plugin: https://janus.conf.meetecho.com/docs/videoroom.html.

A mixer has two handles: it is in the room as a publisher who publishes nothing, so as to be told who comes and goes,
and receives as a subscriber of every audio stream, over one connection.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any, Final

from audiomixer._core import Participant
from audiomixer.rooms.base import FullError, NoRoomError, RemovalError, RoomError
from audiomixer.rooms.janus_client import Event, JanusClient, JanusError
from audiomixer.rooms.place import Place
from audiomixer.rooms.remote import LostError
from audiomixer.rooms.roster import Roster
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.subscriber import Subscriber

_PLUGIN: Final = "janus.plugin.videoroom"
_NO_SUCH_ROOM: Final = 426
_ROOM_EXISTS: Final = 427
_NO_SUCH_FEED: Final = 428
_WRONG_TYPE: Final = 430
_FULL: Final = 432
_FINAL: Final = {403, _NO_SUCH_ROOM, 429, _WRONG_TYPE, 433}
"""Who is refused for these reasons, credentials or a pin that is wrong among them, need not try again."""
_PUBLISHERS: Final = 500
"""So many may speak in a room that is made here; three, if nothing is said."""
_TOGETHER: Final = 0.05
"""Seconds for which changes are collected: each takes an offer and an answer."""
_UPDATES: Final = 8
"""Offers that may wait; there is one for each request, and who makes more is not Janus."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Feed:
    """A participant, whom Janus names by a number, or a text."""

    id: int | str
    display: str
    streams: dict[str, bool | None] = field(default_factory=dict)
    """Audio that can be mixed, by its section: True while a moderator has it muted."""
    encrypted: set[str] = field(default_factory=set)
    """Sections of audio that cannot."""


def _track(feed: int | str, mid: str) -> str:
    """A name that is unique in the room."""
    return f"{feed}/{mid}"


class JanusSession:
    """One stay in a VideoRoom.

    Args:
        place: The room.
        identity: The mixer's display name.
        ice: Where media is received.
        roster: Whom to tell of participants.
        create: Whether a room that is not there is made.
    """

    def __init__(self, place: Place, identity: str, ice: Ice, roster: Roster, *, create: bool = True) -> None:
        self._place = place
        self._identity = identity
        self._create = create
        self._roster = roster
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        given = place.parameters
        credentials = {"apisecret": given.get("api_secret"), "token": given.get("token")}
        self._entry: dict[str, Any] = {name: given[name] for name in ("pin", "token") if name in given}
        self._client = JanusClient(
            f"{place.server}/", {name: value for name, value in credentials.items() if value}, self._lose
        )
        self._room: int | str = int(place.name) if place.name.isdecimal() else place.name
        self._encrypted = False
        """Whether everybody has to encrypt end to end."""
        self._observer = 0
        self._listener = 0
        """The handle that receives, once there is something to receive."""
        self._receiving = False
        self._private_id = 0
        self._joined: dict[str, Any] = {}
        """Who was there when the room was joined."""
        self._subscriber = Subscriber(ice.with_servers(()), lambda: self._lose("the media connection is lost"))
        self._feeds: dict[str, _Feed] = {}
        self._subscribed: set[str] = set()
        """Tracks that are received, or asked for."""
        self._sections: dict[str, str] = {}
        """Tracks by section of the last offer."""
        self._changed = asyncio.Event()
        self._updated: asyncio.Queue[Event] = asyncio.Queue(_UPDATES)
        self._subscribing: asyncio.Task[None] | None = None

    async def join(self, *, again: bool) -> None:
        """Joins the room."""
        try:
            await self._client.open()
            self._observer = await self._client.attach(_PLUGIN, self._observe)
            await self._ensure(create=self._create)
            joined = await self._client.ask(
                self._observer,
                request="join",
                ptype="publisher",
                room=self._room,
                display=self._identity,
                **self._entry,
            )
        except JanusError as error:
            if again and error.code not in _FINAL:
                raise LostError(str(error)) from error
            kind = {_NO_SUCH_ROOM: NoRoomError, _FULL: FullError}.get(error.code, RoomError)
            raise kind(f"room: {self._place.name!r} cannot be joined: {error}") from error
        self._private_id = joined.data["private_id"]
        self._joined = joined.data

    async def _ensure(self, *, create: bool) -> None:
        """Sees that there is the room."""
        try:
            found = await self._client.ask(self._observer, request="exists", room=self._room)
        except JanusError as error:
            if error.code != _WRONG_TYPE:
                raise
            # A server has rooms that are named by numbers, or by texts.
            self._room = self._place.name
            found = await self._client.ask(self._observer, request="exists", room=self._room)
        if found.data["exists"]:
            # Janus tells of encryption by the room only; a participant may encrypt in other rooms without its knowing.
            rooms = (await self._client.ask(self._observer, request="list")).data["list"]
            self._encrypted = any(room["room"] == self._room and room.get("require_e2ee") for room in rooms)
            return
        if not create:
            raise NoRoomError(f"room: there is no {self._place.name!r}")
        given = self._place.parameters
        more: dict[str, Any] = {name: given[name] for name in ("admin_key", "pin") if name in given}
        try:
            await self._client.ask(
                self._observer,
                request="create",
                room=self._room,
                publishers=_PUBLISHERS,
                audiocodec="opus",
                opus_fec=True,
                notify_joining=True,
                **more,
            )
        except JanusError as error:
            if error.code != _ROOM_EXISTS:
                raise

    def begin(self) -> None:
        """Begins to receive, and to tell the roster."""
        self._note(self._joined)
        self._roster.renew((key, feed.display) for key, feed in self._seen().items())
        self._show()
        self._subscribing = asyncio.create_task(self._subscribe_for_ever())

    def _lose(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_exception(LostError(reason))

    async def last(self) -> str:
        """Waits until the room has ended for the mixer."""
        return await asyncio.shield(self._over)

    def _end(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)

    def _observe(self, event: Event) -> None:
        """Something has happened in the room."""
        data = event.data
        if data.get("videoroom") == "destroyed":
            self._end("the room has been destroyed")
        elif data.get("leaving") == "ok":
            self._end(f"the mixer was {data.get('reason', 'sent away')}")
        elif event.hangup:
            self._lose(event.hangup)
        else:
            self._note(data)
            self._show()

    def _note(self, data: dict[str, Any]) -> None:
        """Takes note of participants, those that publish and others."""
        for attendee in [*data.get("attendees", []), *([data["joining"]] if "joining" in data else [])]:
            self._feed(attendee)
        for publisher in data.get("publishers", []):
            feed = self._feed(publisher)
            audio = [s for s in publisher.get("streams", []) if s.get("type") == "audio" and not s.get("disabled")]
            feed.encrypted = {s["mid"] for s in audio if self._encrypted}
            feed.streams = {
                s["mid"]: s.get("moderated") or None
                for s in audio
                if s["mid"] not in feed.encrypted and s.get("codec", "opus") == "opus"
            }
        if "unpublished" in data and (silent := self._feeds.get(str(data["unpublished"]))):
            silent.streams = {}
        if "moderation" in data and (moderated := self._feeds.get(str(data.get("id")))):
            if data.get("mid") in moderated.streams:
                moderated.streams[data["mid"]] = data["moderation"] == "muted" or None
        elif "display" in data and (renamed := self._feeds.get(str(data.get("id")))):
            renamed.display = data["display"]
        for gone in (str(data[what]) for what in ("leaving", "kicked") if what in data):
            if gone in self._feeds:
                del self._feeds[gone]
                self._roster.remove(gone)

    def _feed(self, told: dict[str, Any]) -> _Feed:
        key = str(told["id"])
        feed = self._feeds.setdefault(key, _Feed(told["id"], key))
        feed.display = told.get("display") or key
        return feed

    def _seen(self) -> dict[str, _Feed]:
        """The participants, without other mixers of the same name."""
        return {key: feed for key, feed in self._feeds.items() if feed.streams or feed.display != self._identity}

    def _show(self) -> None:
        """Tells the roster, and has received what is new."""
        seen = self._seen()
        for key in self._feeds.keys() - seen.keys():
            self._roster.remove(key)
        for key, feed in seen.items():
            self._roster.update(key, feed.display, {_track(feed.id, mid): muted for mid, muted in feed.streams.items()})
            for mid in feed.encrypted:
                self._roster.skip(key, _track(feed.id, mid), "it is encrypted end to end")
        # What is published again later is subscribed to again.
        self._subscribed &= self._published().keys()
        self._subscriber.route(self._sources())
        self._changed.set()

    def _published(self) -> dict[str, dict[str, Any]]:
        """Tracks, and how each is asked for."""
        return {
            _track(feed.id, mid): {"feed": feed.id, "mid": mid}
            for key, feed in self._feeds.items()
            if self._roster.is_wanted(key)
            for mid in feed.streams
        }

    async def _subscribe_for_ever(self) -> None:
        """Has received what is published, one negotiation after the other."""
        try:
            while True:
                await self._changed.wait()
                await asyncio.sleep(_TOGETHER)
                self._changed.clear()
                await self._subscribe()
        except LostError as error:
            self._lose(str(error))
        except Exception as error:
            _log.exception("room %s: cannot be received any more", self._place.name)
            self._lose(repr(error))

    async def _subscribe(self) -> None:
        new = {track: stream for track, stream in self._published().items() if track not in self._subscribed}
        if not new:
            return
        # What is asked for twice comes twice.
        self._subscribed |= new.keys()
        try:
            await self._negotiate(list(new.values()))
        except JanusError as error:
            if error.code != _NO_SUCH_FEED:
                raise
            # Somebody has left, which will be told.
            for track, stream in new.items():
                try:
                    await self._negotiate([stream])
                except JanusError as gone:
                    if gone.code != _NO_SUCH_FEED:
                        raise
                    self._subscribed.discard(track)

    async def _negotiate(self, new: list[dict[str, Any]]) -> None:
        event = await self._ask_for(new)
        while event.jsep is None and event.data.get("videoroom") == "updating":
            event = await self._updated.get()
        if event.jsep is None:
            return
        streams = [stream for stream in event.data["streams"] if stream["type"] == "audio" and stream.get("active")]
        self._sections = {stream["mid"]: _track(stream["feed_id"], stream["feed_mid"]) for stream in streams}
        answer = {"type": "answer", "sdp": await self._subscriber.answer(event.jsep["sdp"], self._sources)}
        await self._client.ask(self._listener, answer, request="start")

    async def _ask_for(self, streams: list[dict[str, Any]]) -> Event:
        if self._receiving:
            return await self._client.ask(self._listener, request="update", subscribe=streams)
        self._listener = self._listener or await self._client.attach(_PLUGIN, self._hear)
        event = await self._client.ask(
            self._listener,
            request="join",
            ptype="subscriber",
            room=self._room,
            private_id=self._private_id,
            autoupdate=False,
            use_msid=True,
            streams=streams,
            **self._entry,
        )
        self._receiving = True
        return event

    def _hear(self, event: Event) -> None:
        """Something has happened to what is received."""
        if event.hangup:
            self._lose(event.hangup)
        elif event.data.get("videoroom") == "updated" and event.jsep:
            self._updated.put_nowait(event)

    def _sources(self) -> dict[str, Participant]:
        """Who is heard from which section."""
        found = {section: self._roster.source(track) for section, track in self._sections.items()}
        return {section: source for section, source in found.items() if source}

    async def remove(self, identity: str) -> None:
        """Has the participants of an identity leave."""
        given = self._place.parameters
        secret: dict[str, Any] = {"secret": given["secret"]} if "secret" in given else {}
        try:
            for key in self._roster.keys(identity):
                if feed := self._feeds.get(key):
                    await self._client.ask(self._observer, request="kick", room=self._room, id=feed.id, **secret)
        except JanusError as error:
            raise RemovalError(f"Status: Janus refused: {error}") from error

    async def close(self) -> None:
        """Leaves the room."""
        self._end("left")
        if not self._over.cancelled():
            self._over.exception()  # Somebody may not have wanted to know.
        if self._subscribing:
            self._subscribing.cancel()
            await asyncio.gather(self._subscribing, return_exceptions=True)
        await self._client.close()
        await self._subscriber.close()
