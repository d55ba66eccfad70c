"""Takes RTP packets out of aiortc right after SRTP, before its jitter buffer and its decoder thread.

This module, `peer` and `track` are the only ones that know aiortc's private names; aiortc is pinned to a minor version,
and `tests/webrtc/test_rtp_tap.py` fails when the names move.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from aiortc import RTCRtpReceiver
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import RtpPacket

_CLOCK_RATE = 48_000

_MOST_JITTER = 2**32 - 1


class _Statistics(StreamStatistics):
    @property
    def jitter(self) -> int:
        """As aiortc has it, but within the 32 bits of a receiver report, whatever timestamps the sender makes up."""
        return min(super().jitter, _MOST_JITTER)


OnPacket = Callable[[int, int, bytes, int | None], None]
"""Called with sequence number, timestamp, Opus payload, and RFC 6464 level if the sender gave one."""


def tap(receiver: RTCRtpReceiver, on_packet: OnPacket) -> None:
    """Sends the Opus packets of `receiver` to `on_packet`, instead of decoding them.

    To be called before the answer is applied. Receiver reports keep flowing.
    """
    private: Any = receiver
    payload_types: set[int] = set()
    statistics: dict[int, StreamStatistics] = private._RTCRtpReceiver__remote_streams

    async def receive(parameters: RTCRtpReceiveParameters) -> None:
        if private._RTCRtpReceiver__started:
            return
        payload_types.update(
            codec.payloadType
            for codec in parameters.codecs
            if codec.name.lower() == "opus" and codec.payloadType is not None
        )
        receiver.transport._register_rtp_receiver(receiver, parameters)
        private._RTCRtpReceiver__rtcp_task = asyncio.ensure_future(private._run_rtcp())
        private._RTCRtpReceiver__started = True

    async def handle(packet: RtpPacket, arrival_time_ms: int) -> None:
        if packet.payload_type not in payload_types:
            return
        stream = statistics.get(packet.ssrc)
        if stream is None:
            # Statistics are of the newest stream only: a sender has one at a time.
            statistics.clear()
            stream = statistics[packet.ssrc] = _Statistics(_CLOCK_RATE)
        stream.add(packet)
        level = packet.extensions.audio_level
        on_packet(packet.sequence_number, packet.timestamp, packet.payload, None if level is None else level[1])

    private.receive = receive
    private._handle_rtp_packet = handle
