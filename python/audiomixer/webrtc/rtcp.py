"""Reports to the other side (RFC 3550, section 6.4), every few seconds: as often as browsers send theirs."""

import contextlib
import random
import time
from typing import Any, Final

from aiortc import clock as ntp
from aiortc.rtp import (
    RtcpByePacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
)

from audiomixer._core import Inlet, Outlet
from audiomixer.clock.tasks import doze

_INTERVAL: Final = 5.0
"""Seconds, varied by half."""
_MOST_BLOCKS: Final = 31
_CNAME: Final = 1


async def report_received(transceiver: Any, inlet: Inlet) -> None:
    """Tells the other side what has come of what it sends, until cancelled."""
    receiver = transceiver.receiver
    while True:
        await _pause()
        reports = inlet.reports()
        # Sender reports find their way by this.
        routes = receiver.transport._rtp_router.ssrc_table
        routes.clear()
        routes.update({report.ssrc: receiver for report in reports})
        blocks = [
            RtcpReceiverInfo(
                ssrc=report.ssrc,
                fraction_lost=report.fraction_lost,
                packets_lost=report.lost,
                highest_sequence=report.highest,
                jitter=report.jitter,
                lsr=receiver._RTCRtpReceiver__lsr.get(report.ssrc, 0),
                dlsr=_since(receiver._RTCRtpReceiver__lsr_time.get(report.ssrc)),
            )
            for report in reports
        ]
        for first in range(0, len(blocks), _MOST_BLOCKS):
            packet = RtcpRrPacket(ssrc=transceiver.sender._ssrc, reports=blocks[first : first + _MOST_BLOCKS])
            await _send(receiver.transport, bytes(packet))


async def report_sent(sender: Any, cname: str | None, outlet: Outlet) -> None:
    """Tells the other side how much was sent, until cancelled, and then that no more will come."""
    name = [(_CNAME, cname.encode())] if cname else []
    source = RtcpSdesPacket(chunks=[RtcpSourceInfo(ssrc=sender._ssrc, items=name)])
    try:
        while True:
            await _pause()
            counts = RtcpSenderInfo(
                ntp_timestamp=ntp.current_ntp_time(),
                rtp_timestamp=outlet.timestamp,
                packet_count=outlet.packets,
                octet_count=outlet.octets,
            )
            await _send(sender.transport, bytes(RtcpSrPacket(ssrc=sender._ssrc, sender_info=counts)) + bytes(source))
    finally:
        await _send(sender.transport, bytes(RtcpByePacket(sources=[sender._ssrc])))


async def _pause() -> None:
    await doze(_INTERVAL * random.uniform(0.5, 1.5))  # noqa: S311


def _since(then: float | None) -> int:
    """In 1/65536 s, which may be as many as 32 bits hold; 0 if never."""
    delay = time.time() - then if then else 0.0
    return round(delay * 65536) if 0 < delay < 65536 else 0


async def _send(transport: Any, packet: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        await transport._send_rtp(packet)
