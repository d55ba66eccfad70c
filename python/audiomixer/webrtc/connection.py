"""A WebRTC connection: how it comes about, is watched, and ends, whatever is negotiated over it."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import aioice.ice
import aioice.stun
from aiortc import (
    RTCBundlePolicy,
    RTCCertificate,
    RTCConfiguration,
    RTCDataChannel,
    RTCDtlsTransport,
    RTCIceCandidate,
    RTCPeerConnection,
    RTCRtpCodecCapability,
)
from aiortc.rtcdtlstransport import SRTP_PROFILES
from aiortc.rtcicetransport import candidate_to_aioice
from aiortc.sdp import candidate_from_sdp
from OpenSSL import SSL

from audiomixer.clock.tasks import doze, spawn
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.media import Media
from audiomixer.webrtc.restart import Restart

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
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES"
"""Of DTLS 1.2: with certificates of ECDSA and RSA, forward secret all of them."""
_PROFILES = sorted(SRTP_PROFILES, key=lambda profile: profile.key_length)
"""Of SRTP. AES-GCM of 128 bits comes first: it costs half of what AES-CM with SHA-1 does, which all peers have."""
OPUS = RTCRtpCodecCapability(mimeType="audio/opus", clockRate=48_000, channels=2)

_CHECKED = {aioice.ice.CandidatePair.State.SUCCEEDED, aioice.ice.CandidatePair.State.FAILED}

_log = logging.getLogger(__name__)


class _Certificate(RTCCertificate):
    """A certificate that whoever has one of RSA can shake hands with as well: GStreamer, and many hardware encoders."""

    def _create_ssl_context(self, srtp_profiles: Any) -> SSL.Context:
        context = super()._create_ssl_context(srtp_profiles)
        context.set_cipher_list(_CIPHERS)
        return context


class Connection:
    """A connection, whose `media` can be routed and sent; to be negotiated by those that inherit from it.

    Args:
        ice: Where it is offered.
        bundled: Whether everything takes one transport from the beginning.
        on_channel: Called with each data channel that the other side opens.
        on_closed: Called once, when the connection has ended from either side or never came about.
    """

    def __init__(
        self,
        ice: Ice,
        *,
        bundled: bool = False,
        on_channel: Callable[[RTCDataChannel], None] | None = None,
        on_closed: Callable[[], None] | None = None,
    ) -> None:
        self.media = Media()
        self._ice = ice
        self._on_closed = on_closed
        policy = RTCBundlePolicy.MAX_BUNDLE if bundled else RTCBundlePolicy.BALANCED
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=policy))
        cast("Any", self._pc)._RTCPeerConnection__certificates = [_Certificate.generateCertificate()]
        self._pc.on("connectionstatechange", self._on_state)
        if on_channel:
            self._pc.on("datachannel", on_channel)
        self._settled = asyncio.Event()
        """Set when it has come about, or failed to."""
        self._timeout: asyncio.TimerHandle | None = None
        self._candidates: list[RTCIceCandidate] = []
        """Those that came before the other side's description."""
        self._restart: Restart | None = None
        """The last one, if there was any."""
        self._restarting: asyncio.Task[bool] | None = None
        self._beginning = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether media can pass."""
        return self._pc.connectionState == "connected"

    async def add_candidate(self, candidate: str, mid: str | None, line: int | None) -> None:
        """The other side can be reached there as well (RFC 8838).

        Args:
            candidate: An SDP attribute; empty at the end of all.
            mid: Identification tag of its section.
            line: Number of its section.
        """
        if not candidate:
            return
        parsed = candidate_from_sdp(candidate.removeprefix("candidate:"))
        parsed.sdpMid, parsed.sdpMLineIndex = mid, line
        self._candidates.append(parsed)
        if self._pc.remoteDescription:
            await self._add_candidates()

    async def _add_candidates(self) -> None:
        candidates, self._candidates = self._candidates, []
        for candidate in candidates:
            if candidate.protocol.lower() != "udp":
                continue
            if self._restart:
                await self._restart.agent.add_remote_candidate(candidate_to_aioice(candidate))
            else:
                await self._pc.addIceCandidate(candidate)

    async def _begin_restart(self, ufrag: str, password: str) -> aioice.Connection:
        """Has another agent take the place of the only transport's; gives it, with its candidates."""
        async with self._beginning:
            await self._end_restart()
            (transport,) = self._transports()
            restart = Restart(transport, ufrag, password)
            self._prepare(restart.agent)
            await restart.agent.gather_candidates()
            self._restart = restart
            self._restarting = asyncio.create_task(self._finish_restart(restart))
            return restart.agent

    async def _finish_restart(self, restart: Restart) -> bool:
        has_moved = await restart.finish(_CONNECT_TIMEOUT)
        if has_moved:
            self.media.follow()
        return has_moved

    async def _end_restart(self) -> None:
        """What has not come about yet is for nobody any more."""
        if self._restart and self._restarting and not self._restarting.done():
            self._restarting.cancel()
            await asyncio.gather(self._restarting, return_exceptions=True)
            await self._restart.give_up()

    def _expect(self) -> None:
        """Gives up if it has not come about in time."""
        self._timeout = asyncio.get_running_loop().call_later(_CONNECT_TIMEOUT, self._give_up)

    def _give_up(self) -> None:
        if self._pc.connectionState != "connected":
            self._tell_failure(f"within {_CONNECT_TIMEOUT:.0f} s")
            spawn(self.close())

    def _on_state(self) -> None:
        if self._pc.connectionState != "connecting":
            self._settled.set()
        if self._pc.connectionState in {"closed", "failed"}:
            if self._pc.connectionState == "failed":
                self._tell_failure("as it failed")
            spawn(self.close())

    def _tell_failure(self, when: str) -> None:
        """A line that tells where it got stuck: whoever wrote the other side will ask."""
        for transport in self._transports():
            connection = cast("Any", transport.transport)._connection
            _log.warning(
                "no connection came about %s: ICE %s with %d of %d pairs of addresses checked (%d candidates offered),"
                " DTLS %s as %s",
                when,
                transport.transport.state,
                sum(pair.state in _CHECKED for pair in connection._check_list),
                len(connection._check_list),
                len(connection._remote_candidates),
                transport.state,
                cast("Any", transport)._role,
            )

    def _transports(self) -> set[RTCDtlsTransport]:
        """Those of all sections of the offer: one, if the other side bundles them."""
        transports = {transceiver.receiver.transport for transceiver in self._pc.getTransceivers()}
        return transports | ({self._pc.sctp.transport} if self._pc.sctp else set())

    def _restrict(self) -> None:
        """Gathers as it is told to, notices sooner when the other side is gone, and prefers what costs least."""
        for transport in self._transports():
            cast("Any", transport)._srtp_profiles = _PROFILES
            self._prepare(cast("Any", transport.transport.iceGatherer)._connection)

    def _prepare(self, agent: Any) -> None:
        self._ice.restrict(agent, self.media.inlet, self.media.follow)
        agent.query_consent = partial(_query_consent, agent, self.media)

    async def close(self) -> None:
        """Ends the connection."""
        if self._timeout:
            self._timeout.cancel()
        on_closed, self._on_closed = self._on_closed, None
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._end_restart()
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
        if connection._closing:
            return  # It was closed at the very moment at which it came about.
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
