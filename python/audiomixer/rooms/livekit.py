"""Rooms of LiveKit servers: their signalling, https://docs.livekit.io/reference/internals/client-protocol."""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import websockets
from aiortc import RTCDataChannel
from livekit.protocol import models, rtc
from websockets.asyncio.client import ClientConnection, connect

from audiomixer._core import Participant
from audiomixer.clock.pacer import clock
from audiomixer.clock.tasks import spawn
from audiomixer.rooms.base import NoRoomError, RoomError
from audiomixer.rooms.livekit_credentials import LiveKitCredentials
from audiomixer.rooms.place import Place
from audiomixer.rooms.publication import Publication
from audiomixer.rooms.remote import LostError
from audiomixer.rooms.roster import Roster
from audiomixer.webrtc.ice import Ice, IceServer
from audiomixer.webrtc.peer import Peer
from audiomixer.webrtc.subscriber import Subscriber

MIX: Final = "audiomixer"
"""Name of the track that is published; mixers leave out those of this name."""
TOPIC: Final = "timed-metadata"
"""Of the data packets that have the payloads."""

_BACKLOG: Final = 16 * 1024
"""Bytes that may wait in the data channel; then payloads are dropped."""
_OFFERS: Final = 8
"""Offers that may wait; a server waits for each answer, and who makes more is not LiveKit."""
_PROTOCOL: Final = 16
_TOKEN: Final = re.compile(r"eyJ[\w.-]+")
_LONGEST_PROBLEM: Final = 300
_PUBLISH_TIMEOUT: Final = 10.0
_LARGEST_MESSAGE: Final = 16 * 2**20
_CLOSE_TIMEOUT: Final = 1.0
_PASSING: Final = {
    models.DisconnectReason.SERVER_SHUTDOWN,
    models.DisconnectReason.STATE_MISMATCH,
    models.DisconnectReason.JOIN_FAILURE,
    models.DisconnectReason.MIGRATION,
    models.DisconnectReason.SIGNAL_CLOSE,
    models.DisconnectReason.CONNECTION_TIMEOUT,
    models.DisconnectReason.MEDIA_FAILURE,
}
"""Why a server ends a session whose room may be joined again."""

_log = logging.getLogger(__name__)


class LiveKitSession:
    """One stay in a room of LiveKit.

    Args:
        place: The room.
        credentials: What to join it by.
        ice: Where media is received, beside the servers that LiveKit names.
        roster: Whom to tell of participants.
        create: Whether a room that is not there is made.
        publication: What is published in the room, if anything.
    """

    def __init__(
        self,
        place: Place,
        credentials: LiveKitCredentials,
        ice: Ice,
        roster: Roster,
        *,
        create: bool = True,
        publication: Publication | None = None,
    ) -> None:
        self._place = place
        self._credentials = credentials
        self._ice = ice
        self._roster = roster
        self._create = create
        self._publication = publication
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._joined = rtc.JoinResponse()
        self._socket: ClientConnection | None = None
        self._subscriber: Subscriber | None = None
        self._publisher: Peer | None = None
        self._expected = asyncio.Event()
        """Set when the server expects what is published."""
        self._tasks: list[asyncio.Task[None]] = []
        self._sid = ""
        self._owners: dict[str, str] = {}
        """Of tracks that are subscribed to."""
        self._offers: asyncio.Queue[rtc.SessionDescription] = asyncio.Queue(_OFFERS)
        self._sections: dict[str, str] = {}
        """Tracks by section of the last offer."""
        self._answered = 0.0
        """When the server answered the last time."""

    async def join(self, *, again: bool) -> None:
        """Joins the room."""
        if not again and not self._create:
            await self._credentials.ensure(create=False)
        try:
            self._socket = await self._connect()
        except NoRoomError:
            if not self._create:
                raise
            # It is a server that makes no rooms for who joins.
            await self._credentials.ensure(create=True)
            self._socket = await self._connect()
        first = rtc.SignalResponse.FromString(_bytes(await self._receive(self._socket)))
        if first.WhichOneof("message") == "leave":
            raise self._refusal(first.leave)
        if first.WhichOneof("message") != "join":
            raise LostError(f"LiveKit began with {first.WhichOneof('message')}")
        self._joined = first.join
        if first.join.room.name != self._place.name:
            raise RoomError(f"room: the token is for {first.join.room.name!r}, not {self._place.name!r}")

    async def _connect(self) -> ClientConnection:
        url = f"{self._place.server}/rtc?protocol={_PROTOCOL}&auto_subscribe=0&sdk=go"
        headers = {"Authorization": f"Bearer {self._credentials.mint()}"}
        try:
            return await connect(url, additional_headers=headers, max_size=_LARGEST_MESSAGE)
        except websockets.InvalidStatus as error:
            status, body = error.response.status_code, bytes(error.response.body or b"").decode(errors="replace")
            # It repeats the token that it does not like.
            problem = f"LiveKit answered {status}: {_TOKEN.sub('…', body).strip()[:_LONGEST_PROBLEM]}"
            if status == 404 and "room" in body:  # Else it is some proxy's, before a server that starts.
                raise NoRoomError(f"room: there is no {self._place.name!r}: {problem}") from error
            if status in {401, 403}:
                raise RoomError(f"room: {self._place.name!r} cannot be joined: {problem}") from error
            raise LostError(problem) from error
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            raise LostError(f"LiveKit is out of reach: {error or type(error).__name__}") from error

    async def _receive(self, socket: ClientConnection) -> Any:
        try:
            return await socket.recv()
        except websockets.ConnectionClosed as error:
            raise LostError(f"LiveKit has hung up: {error}") from error

    def begin(self) -> None:
        """Begins to receive, and to tell the roster."""
        join = self._joined
        self._sid = join.participant.sid
        others = [other for other in join.other_participants if other.sid != self._sid]
        servers = list(_turn_servers(join.ice_servers))
        ice = self._ice.with_servers(servers)
        self._subscriber = Subscriber(ice, lambda: self._lose("the media connection is lost"))
        self._answered = clock()
        self._tasks = [
            asyncio.create_task(self._listen(others)),
            asyncio.create_task(self._negotiate(self._subscriber)),
            asyncio.create_task(self._ping(join.ping_interval or 5, join.ping_timeout or 15)),
        ]
        if self._publication:
            self._tasks.append(asyncio.create_task(self._publish(self._publication, ice)))

    def _lose(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_exception(LostError(reason))

    async def last(self) -> str:
        """Waits until the room has ended for the mixer."""
        return await asyncio.shield(self._over)

    async def _listen(self, others: list[models.ParticipantInfo]) -> None:
        """Does what the server says."""
        try:
            self._roster.renew((other.sid, other.identity) for other in others if not _only_listens(other))
            await self._take(others)
            while self._socket and not self._over.done():
                message = rtc.SignalResponse.FromString(_bytes(await self._receive(self._socket)))
                await self._handle(message)
        except LostError as error:
            self._lose(str(error))
        except Exception as error:
            _log.exception("room %s: a message from LiveKit was not understood", self._place.name)
            self._lose(repr(error))

    async def _handle(self, message: rtc.SignalResponse) -> None:
        match message.WhichOneof("message"):
            case "offer":
                self._offers.put_nowait(message.offer)
            case "trickle":
                await self._trickle(message.trickle)
            case "update":
                await self._take(message.update.participants)
            case "pong_resp" | "pong":
                self._answered = clock()
            case "subscription_response":
                self._skip(message.subscription_response.track_sid, message.subscription_response.err)
            case "refresh_token":
                self._credentials.token = message.refresh_token
            case "leave":
                self._end(message.leave)
            case "answer" if self._publisher:
                await self._publisher.accept(message.answer.sdp)
            case "track_published":
                self._expected.set()
            case "request_response" if message.request_response.HasField("add_track"):
                response = message.request_response
                self._refuse(response.message or _name(rtc.RequestResponse.Reason, response.reason))

    async def _negotiate(self, subscriber: Subscriber) -> None:
        """Answers one offer after the other; what else the server says may be needed meanwhile."""
        try:
            while True:
                offer = await self._offers.get()
                self._sections = dict(offer.mid_to_track_id)
                sdp = await subscriber.answer(offer.sdp, self._sources)
                await self._send(answer=rtc.SessionDescription(type="answer", sdp=sdp, id=offer.id))
        except Exception as error:
            _log.exception("room %s: an offer cannot be answered", self._place.name)
            self._lose(repr(error))

    def _sources(self) -> dict[str, Participant]:
        """Who is heard from which section."""
        found = {section: self._roster.source(track) for section, track in self._sections.items()}
        return {section: source for section, source in found.items() if source}

    async def _trickle(self, trickle: rtc.TrickleRequest) -> None:
        candidate = json.loads(trickle.candidateInit or "{}")
        told = candidate.get("candidate", ""), candidate.get("sdpMid"), candidate.get("sdpMLineIndex")
        if trickle.target == rtc.SignalTarget.SUBSCRIBER and self._subscriber:
            await self._subscriber.add_candidate(*told)
        elif trickle.target == rtc.SignalTarget.PUBLISHER and self._publisher:
            await self._publisher.add_candidate(*told)

    async def _take(self, participants: Iterable[models.ParticipantInfo]) -> None:
        """Takes note of participants, and subscribes to their audio."""
        for participant in participants:
            if participant.sid == self._sid:
                continue
            self._owners = {track: owner for track, owner in self._owners.items() if owner != participant.sid}
            if participant.state == models.ParticipantInfo.State.DISCONNECTED or _only_listens(participant):
                self._roster.remove(participant.sid)
                continue
            audio = [t for t in participant.tracks if t.type == models.TrackType.AUDIO and t.name != MIX]
            open_ones = {t.sid: t.muted for t in audio if t.encryption == models.Encryption.Type.NONE}
            new = [track for track in open_ones if self._roster.source(track) is None]
            self._roster.update(participant.sid, participant.identity, open_ones)
            self._owners |= dict.fromkeys(open_ones, participant.sid)
            for track in audio:
                if track.sid not in open_ones:
                    self._roster.skip(participant.sid, track.sid, "it is encrypted end to end")
            if new and self._roster.is_wanted(participant.sid):
                await self._send(subscription=rtc.UpdateSubscription(track_sids=new, subscribe=True))
        if self._subscriber:
            self._subscriber.route(self._sources())

    def _skip(self, track: str, error: int) -> None:
        self._roster.skip(self._owners.get(track, ""), track, _name(models.SubscriptionError, error))

    async def _ping(self, interval: float, timeout: float) -> None:
        while True:
            await asyncio.sleep(interval)
            if clock() - self._answered > timeout:
                self._lose("LiveKit does not answer")
                return
            await self._send(ping_req=rtc.Ping(timestamp=int(clock() * 1000)))

    def _end(self, leave: rtc.LeaveRequest) -> None:
        reason = _name(models.DisconnectReason, leave.reason)
        if leave.action != rtc.LeaveRequest.Action.DISCONNECT or leave.can_reconnect or leave.reason in _PASSING:
            self._lose(reason)
        elif not self._over.done():
            self._over.set_result(reason)

    def _refusal(self, leave: rtc.LeaveRequest) -> Exception:
        reason = _name(models.DisconnectReason, leave.reason)
        if leave.reason in _PASSING:
            return LostError(reason)
        return RoomError(f"room: {self._place.name!r} cannot be joined: {reason}")

    async def _publish(self, publication: Publication, ice: Ice) -> None:
        peer = self._publisher = Peer(ice, "sendonly", on_closed=lambda: self._lose("the mix is not heard"))
        channel = peer.open_channel("_reliable")
        peer.open_channel("_lossy", reliable=False)
        track = rtc.AddTrackRequest(
            cid=peer.track_id,
            name=MIX,
            type=models.TrackType.AUDIO,
            source=models.TrackSource.MICROPHONE,
            stereo=True,
            disable_red=True,
            disable_dtx=True,
        )
        try:
            async with asyncio.timeout(_PUBLISH_TIMEOUT):
                await self._send(add_track=track)
                await self._expected.wait()
                await self._send(offer=rtc.SessionDescription(type="offer", sdp=await peer.offer()))
            publication.carry(peer, partial(_send_payload, channel))
        except TimeoutError:
            self._refuse("LiveKit does not answer")
        except Exception as error:
            _log.exception("room %s: the mix cannot be published", self._place.name)
            self._refuse(repr(error))

    def _refuse(self, reason: str) -> None:
        """The mix is not published; the room is mixed all the same."""
        self._roster.tell("refused", track=MIX, reason=f"the mix cannot be published: {reason}")

    async def _send(self, **message: Any) -> None:
        if self._socket:
            with contextlib.suppress(websockets.ConnectionClosed):  # Who listens notices.
                await self._socket.send(rtc.SignalRequest(**message).SerializeToString())

    async def remove(self, identity: str) -> None:
        """Has the participants of an identity leave."""
        await self._credentials.remove(identity)

    async def close(self) -> None:
        """Leaves the room."""
        if not self._over.done():
            self._over.set_result("left")
        elif not self._over.cancelled():
            self._over.exception()  # Somebody may not have wanted to know.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._publication and self._publisher:
            self._publication.release(self._publisher)
        for peer in (self._publisher, self._subscriber):
            if peer:
                await peer.close()
        socket, self._socket = self._socket, None
        if socket:
            spawn(_hang_up(socket))


async def _hang_up(socket: ClientConnection) -> None:
    """Tells the server, which may not listen any more."""
    leave = rtc.LeaveRequest(reason=models.DisconnectReason.CLIENT_INITIATED, action=rtc.LeaveRequest.Action.DISCONNECT)
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await socket.send(rtc.SignalRequest(leave=leave).SerializeToString())
            await socket.close()


def _name(enum: Any, value: int) -> str:
    """What a value is called, if it is known."""
    return str(enum.Name(value)) if value in enum.values() else f"{enum.DESCRIPTOR.name} {value}"


def _only_listens(participant: models.ParticipantInfo) -> bool:
    """Whether somebody may not publish: there may be any number of them, and the metadata is of those who may."""
    return participant.HasField("permission") and not participant.permission.can_publish and not participant.tracks


def _send_payload(channel: RTCDataChannel, text: str) -> bool:
    if channel.readyState != "open" or channel.bufferedAmount > _BACKLOG:
        return False
    user = models.UserPacket(payload=text.encode(), topic=TOPIC)
    channel.send(models.DataPacket(user=user).SerializeToString())
    return True


def _bytes(message: str | bytes) -> bytes:
    if isinstance(message, str):
        raise LostError("LiveKit sent text, where binary messages were expected")
    return message


def _turn_servers(servers: Iterable[rtc.ICEServer]) -> Iterable[IceServer]:
    """Those that may be of use: what a STUN server would tell, LiveKit sees by itself."""
    for server in servers:
        for url in server.urls:
            try:
                parsed = IceServer.parse(url, server.username, server.credential)
            except ValueError as error:
                _log.debug("a server that LiveKit names is left out: %s", error)
                continue
            if parsed.kind == "turn":
                yield parsed
