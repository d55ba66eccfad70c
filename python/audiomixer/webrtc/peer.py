"""A connection with one audio stream each way, and optional data channels: what WHIP and WHEP need."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Any, Final, Literal, cast

from aiortc import RTCDataChannel, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp

from audiomixer.clock.tasks import spawn
from audiomixer.webrtc.connection import OPUS, Connection
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.offers import MOST_CANDIDATES, Offer, OfferError, is_reachable
from audiomixer.webrtc.trickle import Fragment, FragmentError

_A_MOMENT: Final = 1.0
"""Seconds."""
_BACKLOG: Final = 64 * 1024
"""Bytes that the other side may have under way by data channels, of which nobody wants any."""
_CHUNKS: Final = 64
"""Pieces of messages that may wait for the others."""
_STREAMS: Final = 64
"""Streams of messages, each of which aiortc keeps."""

Direction = Literal["sendrecv", "sendonly", "recvonly"]

_log = logging.getLogger(__name__)


class RestartError(Exception):
    """Candidates are of another ICE session than the one that there is, or there can be no other."""


class UnreachableError(Exception):
    """There is no address or port left for a connection."""


class Peer(Connection):
    """A connection with one audio stream.

    Args:
        ice: Where it is offered.
        direction: Of the media.
        on_channel: As of `Connection`.
        on_closed: As of `Connection`.
    """

    def __init__(
        self,
        ice: Ice,
        direction: Direction,
        *,
        on_channel: Callable[[RTCDataChannel], None] | None = None,
        on_closed: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(ice, on_channel=on_channel, on_closed=on_closed)
        self.session = secrets.token_urlsafe(8)
        """Names the ICE session."""
        self._offer: Offer | None = None
        self._credentials = ("", "")
        """The other side's username fragment and password."""
        self._room_for_candidates = MOST_CANDIDATES
        self._transceiver = self._pc.addTransceiver("audio", direction=direction)
        self._transceiver.setCodecPreferences([OPUS])
        self.media.take_over(self._transceiver)

    @property
    def sends(self) -> bool:
        """Whether the other side wants to hear anything."""
        return self._transceiver.currentDirection in {"sendrecv", "sendonly"}

    @property
    def receives(self) -> bool:
        """Whether the other side wants to be heard."""
        return self._transceiver.currentDirection in {"sendrecv", "recvonly"}

    @property
    def track_id(self) -> str:
        """The id under which an offer has the stream that is sent."""
        return str(cast("Any", self._transceiver.sender)._track_id)

    def open_channel(self, label: str, *, reliable: bool = True) -> RTCDataChannel:
        """Offers a data channel; to be called before `offer`."""
        return self._pc.createDataChannel(label, ordered=reliable, maxRetransmits=None if reliable else 0)

    async def answer(self, offer: str) -> str:
        """Answers an SDP offer, with all candidates in it.

        Raises:
            OfferError: The offer is no SDP, or has no Opus audio; the peer is closed then.
            UnreachableError: There is no port for it; likewise.
        """
        try:
            self._offer = Offer.parse(offer)
            self._credentials = self._offer.credentials
            self._room_for_candidates -= self._offer.candidates
            answer = await self._negotiate(self._offer)
        except (OfferError, UnreachableError):
            await self.close()
            raise
        except Exception as error:
            await self.close()
            _log.info("an offer cannot be answered: %r", error)
            raise OfferError("offer: expected one that can be answered") from error
        except BaseException:
            await self.close()
            raise
        self._expect()
        return answer

    async def _negotiate(self, offer: Offer) -> str:
        self.media.opus = offer.audio.opus
        await self._pc.setRemoteDescription(RTCSessionDescription(offer.shown, "offer"))
        self._restrict()
        if self._pc.sctp:
            self._limit(self._pc.sctp)
        await self._pc.setLocalDescription()
        answer = self._pc.localDescription.sdp
        if "a=candidate:" not in answer:
            raise UnreachableError("no address or port is left for a connection")
        return offer.answer(answer)

    async def trickle(self, fragment: Fragment) -> None:
        """Takes in candidates that come after the offer; what has no address, and what comes by TCP, is passed over.

        Raises:
            RestartError: They are of another ICE session.
            FragmentError: One is none.
        """
        if self._offer is None or (fragment.ufrag, fragment.password) != self._credentials:
            raise RestartError("fragment: expected the credentials of the ICE session; for a restart, If-Match: *")
        await self._take(self._offer, fragment)

    async def restart(self, fragment: Fragment) -> Fragment:
        """Begins another ICE session, to which the connection moves once it has come about; media goes on meanwhile.

        Args:
            fragment: The other side's new credentials, and its candidates as far as they are known.

        Returns:
            Ours, with all candidates. The session has another name from now on.

        Raises:
            RestartError: It is not connected, or not by one transport.
            FragmentError: A candidate is none.
        """
        offer = self._offer
        # The other side may have been connected a moment earlier.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), _A_MOMENT)
        if offer is None or not self.connected or len(self._transports()) != 1:
            raise RestartError("resource: expected a connection that has come about, with one transport for everything")
        for _, candidate in fragment.candidates:
            _check(candidate)
        try:
            agent = await self._begin_restart(fragment.ufrag, fragment.password)
        except ConnectionError as error:
            raise RestartError(f"resource: {error}") from error
        self._credentials = (fragment.ufrag, fragment.password)
        self.session = secrets.token_urlsafe(8)
        self._room_for_candidates = MOST_CANDIDATES
        await self._take(offer, fragment)
        candidates = tuple((offer.audio.mid, one.to_sdp()) for one in agent.local_candidates)
        return Fragment(agent.local_username, agent.local_password, candidates)

    async def _take(self, offer: Offer, fragment: Fragment) -> None:
        for mid, candidate in fragment.candidates:
            if self._room_for_candidates and is_reachable(f"a=candidate:{candidate}"):
                _check(candidate)
                self._room_for_candidates -= 1
                await self.add_candidate(candidate, offer.transport_of(mid), None)

    def _limit(self, sctp: Any) -> None:
        """Ends the connection of whoever sends messages without end, which aiortc would put together for ever."""
        receive, sctp._advertised_rwnd = sctp._receive_data_chunk, _BACKLOG

        async def receive_within_limits(chunk: Any) -> None:
            streams = sctp._inbound_streams
            waiting = sum(len(stream.reassembly) for stream in streams.values())
            if (
                max(waiting, len(sctp._sack_misordered)) > _CHUNKS
                or sctp._advertised_rwnd < len(chunk.user_data)
                or len(streams) > _STREAMS
            ):
                _log.warning("a connection is ended that sends too much by its data channels")
                spawn(self.close())
            else:
                await receive(chunk)

        sctp._receive_data_chunk = receive_within_limits

    async def offer(self) -> str:
        """Makes an SDP offer, with all candidates in it."""
        self._restrict()
        offer = await self._pc.createOffer()
        await self._pc.setLocalDescription(offer)
        return str(self._pc.localDescription.sdp)

    async def accept(self, answer: str) -> None:
        """Applies the answer to `offer`."""
        await self._pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        self._expect()
        await self._add_candidates()


def _check(candidate: str) -> None:
    """Sees that one with an address can be read."""
    if is_reachable(f"a=candidate:{candidate}"):
        try:
            candidate_from_sdp(candidate)
        except (ValueError, IndexError):
            raise FragmentError(f"fragment: expected a candidate, got {candidate!r}") from None
