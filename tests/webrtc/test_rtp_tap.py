"""aiortc's private names are where the tap expects them, and the tap does what it replaces."""

import asyncio
import socket
import threading
from itertools import pairwise

import aioice
from aiortc import RTCDtlsTransport, RTCIceTransport, RTCRtpReceiver, RTCRtpSender
from aiortc.rtcrtpreceiver import StreamStatistics

from audiomixer._core import RtpPacket
from audiomixer.encoding import EncodedPacket, Encoder, Encoding, to_av_frame
from audiomixer.webrtc.ice import LOOPBACK
from audiomixer.webrtc.peer import Peer
from tests.signals import frames, noise


async def test_the_names_are_there() -> None:
    names = vars(RTCRtpReceiver) | dict.fromkeys(RTCRtpReceiver.__init__.__code__.co_names)
    for name in (
        "_RTCRtpReceiver__remote_streams",
        "_RTCRtpReceiver__rtcp_task",
        "_RTCRtpReceiver__started",
        "_run_rtcp",
        "receive",
    ):
        assert name in names, f"aiortc's RTCRtpReceiver.{name} has moved: see audiomixer/webrtc/rtp_tap.py"
    transport = vars(RTCDtlsTransport) | dict.fromkeys(RTCDtlsTransport.__init__.__code__.co_names)
    for name in ("_handle_rtp_data", "_register_rtp_receiver", "_rtp_router", "_rx_srtp"):
        assert name in transport, f"aiortc's RTCDtlsTransport.{name} has moved: see audiomixer/webrtc/rtp_tap.py"
    assert "_connection" in RTCIceTransport.__init__.__code__.co_names
    connection = aioice.Connection(ice_controlling=True)
    for name in ("_protocols", "get_component_candidates", "query_consent", "_query_consent_task", "_nominated"):
        assert hasattr(connection, name), f"aioice's Connection.{name} has moved: see audiomixer/webrtc"
    assert {"add", "packets_received"} <= set(dir(StreamStatistics(48_000)))


def test_a_packet_and_its_level_are_read() -> None:
    header = bytes([0x90, 0x80 | 111, 0, 7, 0, 0, 3, 192, 0, 0, 0, 9])
    level = bytes([0xBE, 0xDE, 0, 1, 0x10, 0x80 | 42, 0, 0])
    packet = RtpPacket.parse(header + level + b"opus", 1)
    assert packet
    assert (packet.payload_type, packet.sequence_number, packet.timestamp, packet.ssrc) == (111, 7, 960, 9)
    assert (packet.audio_level, packet.payload) == (42, b"opus")
    assert RtpPacket.parse(b"no packet") is None


async def test_datagrams_that_are_nothing_disturb_nothing() -> None:
    received: list[RtpPacket] = []
    receiver = Peer(LOOPBACK, "recvonly", on_packet=received.append)
    sender = Peer(LOOPBACK, "sendonly")
    await sender.accept(await receiver.answer(await sender.offer()))
    await asyncio.sleep(0.5)
    connection = receiver._transceiver.receiver.transport.transport._connection
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for candidate in connection.local_candidates:
            for data in (b"", b"\x80", b"\x80\x6f" + b"\0" * 40, b"\x80" * 2000, b"\x17\xfe", b"\xff" * 20):
                stranger.sendto(data, (candidate.host, candidate.port))
    packet = EncodedPacket(b"\xf8\xff\xfe", 0, 960)
    for _ in range(10):
        sender.track.send(packet.to_av())
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    await sender.close()
    await receiver.close()
    assert len(received) >= 8


async def test_packets_come_through_and_reports_go_back_and_nothing_is_decoded() -> None:
    received: list[RtpPacket] = []
    receiver = Peer(LOOPBACK, "recvonly", on_packet=received.append)
    sender = Peer(LOOPBACK, "sendonly")
    await sender.accept(await receiver.answer(await sender.offer()))
    encoder = Encoder(Encoding("opus", 32, channels=1))
    for n, frame in enumerate(frames(noise(-20, 2))):
        for packet in encoder.encode(to_av_frame(frame[:, None], n * 960)):
            sender.track.send(packet.to_av())
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    rtp_sender: RTCRtpSender = sender._transceiver.sender
    reports = [report for report in (await rtp_sender.getStats()).values() if report.type == "remote-inbound-rtp"]
    names = [thread.name for thread in threading.enumerate()]
    await sender.close()
    await receiver.close()
    assert len(received) > 80
    numbers = [packet.sequence_number for packet in received]
    assert numbers == [(numbers[0] + n) & 0xFFFF for n in range(len(numbers))]
    assert {(b.timestamp - a.timestamp) & 0xFFFF_FFFF for a, b in pairwise(received)} == {960}
    assert reports
    assert reports[0].packetsReceived > 20
    assert not [name for name in names if "decoder" in name]
