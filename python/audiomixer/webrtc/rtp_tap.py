"""Takes RTP packets out of aiortc as soon as they come, before its queue, its jitter buffer and its decoder thread.

Datagrams are looked at where the sockets hand them out: those that are RTP are decrypted and handed on at once, all
others go the way they would without it. This module, `peer` and `track` are the only ones that know private names of
aiortc, which is pinned to a minor version; `tests/webrtc/test_rtp_tap.py` fails when the names move.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pylibsrtp
from aiortc import RTCRtpReceiver
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import StreamStatistics

from audiomixer._core import RtpPacket

_CLOCK_RATE: Final = 48_000
_MOST_JITTER: Final = 2**32 - 1
_AUDIO_LEVEL: Final = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
_RTCP_TYPES: Final = range(64, 96)
"""Where RTP has its payload type, RTCP has these on a shared port (RFC 5761, section 4)."""


class _Statistics(StreamStatistics):
    @property
    def jitter(self) -> int:
        """As aiortc has it, but within the 32 bits of a receiver report, whatever timestamps the sender makes up."""
        return min(super().jitter, _MOST_JITTER)


OnPacket = Callable[[RtpPacket], None]
"""Called with each packet of Opus, on the event loop."""


def tap(receiver: RTCRtpReceiver, on_packet: OnPacket) -> None:
    """Sends the Opus packets of `receiver` to `on_packet`, instead of decoding them.

    To be called before the answer is applied. Receiver reports keep flowing.
    """
    private: Any = receiver

    async def receive(parameters: RTCRtpReceiveParameters) -> None:
        if private._RTCRtpReceiver__started:
            return
        receiver.transport._register_rtp_receiver(receiver, parameters)
        _Tap(private, parameters, on_packet).install(receiver.transport)
        private._RTCRtpReceiver__rtcp_task = asyncio.ensure_future(private._run_rtcp())
        private._RTCRtpReceiver__started = True

    private.receive = receive


class _Tap:
    def __init__(self, receiver: Any, parameters: RTCRtpReceiveParameters, on_packet: OnPacket) -> None:
        self._receiver = receiver
        self._statistics: dict[int, Any] = receiver._RTCRtpReceiver__remote_streams
        self._on_packet = on_packet
        self._payload_types = {codec.payloadType for codec in parameters.codecs if codec.name.lower() == "opus"}
        extensions = parameters.headerExtensions
        # aiortc takes any number for an id; RFC 8285 has a byte.
        ids = (extension.id for extension in extensions if extension.uri == _AUDIO_LEVEL and 0 < extension.id < 256)
        self._level_extension: int | None = next(ids, None)

    def install(self, transport: Any) -> None:
        """Looks at the datagrams of a DTLS transport whose ICE has connected."""

        async def handle_rtp_data(data: bytes, arrival_time_ms: int) -> None:
            """What was queued before SRTP had its keys."""
            self._take(data)

        transport._handle_rtp_data = handle_rtp_data
        self._router = transport._rtp_router
        for protocol in transport.transport._connection._protocols:
            protocol.datagram_received = self._receive(transport, protocol.datagram_received)

    def _receive(self, transport: Any, others: Callable[[bytes, Any], None]) -> Callable[[bytes, Any], None]:
        def datagram_received(data: bytes, address: Any) -> None:
            if len(data) < 2:
                return  # aiortc would trip over an empty datagram.
            if not 127 < data[0] < 192 or data[1] & 0x7F in _RTCP_TYPES or not transport._rx_srtp:
                others(data, address)
                return
            try:
                plain = transport._rx_srtp.unprotect(data)
            except (pylibsrtp.Error, ValueError):
                return  # Not authentic, a replay, or longer than any packet.
            self._take(plain)

        return datagram_received

    def _take(self, data: bytes) -> None:
        packet = RtpPacket.parse(data, self._level_extension)
        if packet is None or packet.payload_type not in self._payload_types:
            return
        statistics = self._statistics.get(packet.ssrc)
        if statistics is None:
            # Statistics are of the newest stream only: a sender has one at a time.
            self._statistics.clear()
            statistics = self._statistics[packet.ssrc] = _Statistics(_CLOCK_RATE)
            # Sender reports find their way by this.
            self._router.ssrc_table.clear()
            self._router.ssrc_table[packet.ssrc] = self._receiver
        statistics.add(packet)  # type: ignore[arg-type] # It has what is needed.
        self._on_packet(packet)
