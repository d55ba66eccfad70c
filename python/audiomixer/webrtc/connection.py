"""A WebRTC connection: how it comes about, is watched, and ends, whatever is negotiated over it."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, cast

import aioice.ice
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

from audiomixer.clock.tasks import spawn
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.media import Media
from audiomixer.webrtc.restart import Restart

_CONNECT_TIMEOUT = 10.0
"""Seconds within which a peer has to be connected."""
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
        self._ended = False
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
            try:
                await restart.agent.gather_candidates()
                if self._ended:
                    raise ConnectionError("the connection has ended")
            except BaseException:
                await restart.give_up()
                raise
            # Who looks for another way does not answer on the old one: its time begins anew.
            self.media.unsettle()
            self._restart = restart
            self._restarting = asyncio.create_task(self._finish_restart(restart))
            return restart.agent

    async def _finish_restart(self, restart: Restart) -> bool:
        has_moved = await restart.finish(_CONNECT_TIMEOUT)
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
        self._ice.restrict(agent, self.media.session, self.media.follow)
        agent.query_consent = _leave_it_to_the_hub

    async def close(self) -> None:
        """Ends the connection."""
        self._ended = True
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


async def _leave_it_to_the_hub() -> None:
    """Consent is asked for there, or by `Media` where there is a relay."""
