"""One WebRTC connection with one audio stream each way, and an optional data channel: what WHIP and WHEP need."""

import asyncio
import contextlib
import logging
import random
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import aioice.ice
import aioice.stun
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCDtlsTransport,
    RTCPeerConnection,
    RTCRtpCodecCapability,
    RTCSessionDescription,
)
from aiortc.rtcdtlstransport import SRTP_AES128_CM_SHA1_80
from aiortc.sdp import SessionDescription

from audiomixer._core import Intake
from audiomixer.tasks import doze, spawn
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.media import Media

_LARGEST_OFFER = 64 * 1024
_CONNECT_TIMEOUT = 10.0
"""Seconds within which a peer has to be connected."""
_CONSENT_INTERVAL = 2.0
_CONSENT_UNASKED = 4
"""So many checks are left out in a row while anything comes from the other side; consent lasts for 30 s."""
_CONSENT_RETRY = 0.25
_CONSENT_FAILURES = 5
"""A peer that answers no check for about six seconds is gone (a check takes half a second to fail, and then another is
made soon); aioice would wait for half a minute."""
_CLOSE_TIMEOUT = 2.0
"""Seconds that aiortc may take to close in order."""
_SWEEP = 5.0
"""Seconds after which nothing that was under way when it closed can still begin."""
_OPUS = RTCRtpCodecCapability(mimeType="audio/opus", clockRate=48_000, channels=2)

_log = logging.getLogger(__name__)

Direction = Literal["sendrecv", "sendonly", "recvonly"]


class OfferError(ValueError):
    """An SDP offer that cannot be answered; the message begins with `offer:`."""


class Peer:
    """A connection, whose `media` can be routed and sent.

    Args:
        ice: Where it is offered.
        direction: Of the media.
        intake: Who polls it reads what the connection receives; without one, the event loop does, at a higher cost.
        on_channel: Called with each data channel that the other side opens.
        on_closed: Called once, when the connection has ended from either side or never came about.
    """

    def __init__(
        self,
        ice: Ice,
        direction: Direction,
        *,
        intake: Intake | None = None,
        on_channel: Callable[[RTCDataChannel], None] | None = None,
        on_closed: Callable[[], None] | None = None,
    ) -> None:
        self.media = Media(intake)
        self._ice = ice
        self._on_closed = on_closed
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._pc.on("connectionstatechange", self._on_state)
        if on_channel:
            self._pc.on("datachannel", on_channel)
        self._transceiver = self._pc.addTransceiver("audio", direction=direction)
        self._transceiver.setCodecPreferences([_OPUS])
        self.media.take_over(self._transceiver)
        self._timeout: asyncio.TimerHandle | None = None

    @property
    def connected(self) -> bool:
        """Whether media can pass."""
        return self._pc.connectionState == "connected"

    @property
    def sends(self) -> bool:
        """Whether the other side wants to hear anything."""
        return self._transceiver.currentDirection in {"sendrecv", "sendonly"}

    async def answer(self, offer: str) -> str:
        """Answers an SDP offer, with all candidates in it.

        Raises:
            OfferError: The offer is no SDP, or has no Opus audio; the peer is closed then.
        """
        try:
            _check(offer)
            answer = await self._negotiate(offer)
        except OfferError:
            await self.close()
            raise
        except Exception as error:
            await self.close()
            raise OfferError(f"offer: {error}") from error
        except BaseException:
            await self.close()
            raise
        self._expect()
        return answer

    async def _negotiate(self, offer: str) -> str:
        await self._pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        for other in self._pc.getTransceivers():
            if other is not self._transceiver:
                other.direction = "inactive"
        self._restrict()
        await self._pc.setLocalDescription()
        answer = _with_opus_parameters(self._pc.localDescription.sdp)
        if "a=candidate:" not in answer:
            raise OfferError("offer: expected an audio section that can be connected to")
        return answer

    async def offer(self) -> str:
        """Makes an SDP offer, with all candidates in it."""
        offer = await self._pc.createOffer()
        self._restrict()
        await self._pc.setLocalDescription(offer)
        return str(self._pc.localDescription.sdp)

    async def accept(self, answer: str) -> None:
        """Applies the answer to `offer`."""
        await self._pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        self._expect()

    def _expect(self) -> None:
        self._timeout = asyncio.get_running_loop().call_later(_CONNECT_TIMEOUT, self._give_up)

    def _give_up(self) -> None:
        if self._pc.connectionState != "connected":
            spawn(self.close())

    def _on_state(self) -> None:
        if self._pc.connectionState in {"closed", "failed"}:
            spawn(self.close())

    def _transports(self) -> set[RTCDtlsTransport]:
        """Those of all sections of the offer: one, if the other side bundles them."""
        transports = {transceiver.receiver.transport for transceiver in self._pc.getTransceivers()}
        return transports | ({self._pc.sctp.transport} if self._pc.sctp else set())

    def _restrict(self) -> None:
        """Gathers as it is told to, notices sooner when the other side is gone, and agrees on the SRTP we have."""
        for transport in self._transports():
            cast("Any", transport)._srtp_profiles = [SRTP_AES128_CM_SHA1_80]
            connection = cast("Any", transport.transport.iceGatherer)._connection
            self._ice.restrict(connection)
            connection.query_consent = partial(_query_consent, connection, self.media)

    async def close(self) -> None:
        """Ends the connection."""
        if self._timeout:
            self._timeout.cancel()
        on_closed, self._on_closed = self._on_closed, None
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._pc.close()
        except Exception as error:
            # What the other side sent has brought aiortc into disorder: it is gone all the same.
            _log.warning("a connection did not close in order: %r", error)
            for transport in self._transports():
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(_CLOSE_TIMEOUT):
                        await transport.stop()
                        await transport.transport.stop()
        finally:
            await self.media.stop()
            asyncio.get_running_loop().call_later(_SWEEP, lambda: spawn(self._sweep()))
            if on_closed:
                on_closed()

    async def _sweep(self) -> None:
        """Stops what aiortc was just about to start while it was closed, and would let run for ever."""
        for transceiver in self._pc.getTransceivers():
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await transceiver.stop()


async def _query_consent(connection: aioice.Connection, media: Media) -> None:
    """RFC 7675, like aioice's own, but more often once nothing comes, and less often while something does."""
    inlet, failures, unasked = media.inlet, 0, 0
    authentic, noticed = inlet.authentic, inlet.noticed
    password = (connection.remote_password or "").encode()
    while failures < _CONSENT_FAILURES:
        pause = _CONSENT_RETRY if failures else _CONSENT_INTERVAL
        await doze(pause * random.uniform(0.8, 1.2))  # noqa: S311
        media.follow()
        is_there, is_noticed = inlet.authentic > authentic, inlet.noticed > noticed
        authentic, noticed = inlet.authentic, inlet.noticed
        # Once a check has failed, only an answer or a packet with the right key is believed.
        if (is_there or (is_noticed and not failures)) and unasked < _CONSENT_UNASKED:
            failures, unasked = 0, unasked + 1
            continue
        unasked = 0
        for pair in connection._nominated.values():
            request = connection.build_request(pair, nominate=False)
            try:
                await pair.protocol.request(request, pair.remote_addr, integrity_key=password, retransmissions=0)
                failures = 0
            except aioice.stun.TransactionError:
                failures += 1
    connection._query_consent_task = None
    await connection.close()


def _check(offer: str) -> None:
    if len(offer) > _LARGEST_OFFER:
        raise OfferError(f"offer: expected at most {_LARGEST_OFFER} bytes, got {len(offer)}")
    if not offer.startswith("v=0"):
        raise OfferError("offer: expected SDP, beginning with v=0")
    try:
        media = SessionDescription.parse(offer).media
    except Exception as error:
        raise OfferError(f"offer: expected SDP: {error}") from error
    audio = [m for m in media if m.kind == "audio" and m.port]
    if not audio:
        raise OfferError("offer: expected an audio section")
    if not any(codec.name.lower() == "opus" for m in audio for codec in m.rtp.codecs):
        raise OfferError("offer: expected Opus among the audio codecs")
    if not any(m.ice and m.ice.usernameFragment and m.dtls and m.dtls.fingerprints for m in media):
        raise OfferError("offer: expected ICE credentials and a DTLS fingerprint")


def _with_opus_parameters(sdp: str) -> str:
    """Asks for in-band FEC, and allows stereo, which aiortc has no way to say."""
    opus = re.search(r"a=rtpmap:(\d+) opus/48000/2\r\n", sdp)
    if not opus:
        return sdp
    sdp = re.sub(rf"a=fmtp:{opus[1]} .*\r\n", "", sdp)
    return sdp.replace(opus[0], f"{opus[0]}a=fmtp:{opus[1]} minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1\r\n")
