"""aiortc's private names are where they are expected, and media gets through without aiortc as it would with it."""

import asyncio
import contextlib
import copy
import gc
import itertools
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aioice
import pylibsrtp
import pytest
from aioice.ice import CandidatePair
from aiortc import RTCDtlsTransport, RTCIceTransport, RTCPeerConnection, RTCRtpReceiver, RTCRtpSender
from aiortc.rtp import RtcpByePacket, RtcpPacket, RtcpReceiverInfo, RtcpSenderInfo, RtcpSrPacket

from audiomixer._core import Inlet, Mixer, Outlet, Participant, Session
from audiomixer.clock.pacer import clock
from audiomixer.webrtc.ice import LOOPBACK
from audiomixer.webrtc.peer import Peer
from tests.rooms.client import Microphone
from tests.webrtc.negotiation import stock_offer

SILENCE = b"\xf8\xff\xfe"
PROFILES = {
    bytes(range(30)): pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    bytes(range(28)): pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    bytes(range(44)): pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}
"""By a master key of theirs."""


async def test_the_names_are_there() -> None:
    receiver = vars(RTCRtpReceiver) | dict.fromkeys(RTCRtpReceiver.__init__.__code__.co_names)
    for name in ("_RTCRtpReceiver__started", "receive", "stop"):
        assert name in receiver, f"aiortc's RTCRtpReceiver.{name} has moved: see audiomixer/webrtc"
    sender = vars(RTCRtpSender) | dict.fromkeys(RTCRtpSender.__init__.__code__.co_names)
    for name in ("_RTCRtpSender__started", "_ssrc", "send", "stop"):
        assert name in sender, f"aiortc's RTCRtpSender.{name} has moved: see audiomixer/webrtc"
    transport = vars(RTCDtlsTransport) | dict.fromkeys(RTCDtlsTransport.__init__.__code__.co_names)
    names = ("_handle_rtp_data", "_register_rtp_receiver", "_register_rtp_sender", "_ssl", "_role")
    for name in (*names, "_srtp_profiles"):
        assert name in transport, f"aiortc's RTCDtlsTransport.{name} has moved: see audiomixer/webrtc"
    for name in ("_connection", "_recv", "_send"):
        assert name in RTCIceTransport.__init__.__code__.co_names
    connection = aioice.Connection(ice_controlling=True)
    agents = "_check_list _closing _event_waiter _local_username _nominated _protocols _query_consent_task _queue"
    for name in (*agents.split(), "_remote_candidates", "_tie_breaker", "get_component_candidates", "query_consent"):
        assert hasattr(connection, name), f"aioice's Connection.{name} has moved: see audiomixer/webrtc"


def srtp(key: bytes, ssrc_type: int) -> pylibsrtp.Session:
    return pylibsrtp.Session(pylibsrtp.Policy(key=key, ssrc_type=ssrc_type, srtp_profile=PROFILES[key]))


@pytest.mark.parametrize("key", PROFILES)
def test_what_is_sent_is_what_libsrtp_reads(key: bytes) -> None:
    outlet, libsrtp = Outlet(), srtp(key, pylibsrtp.Policy.SSRC_ANY_INBOUND)
    assert outlet.send(b"early", 0) is None
    outlet.open(key, 7, 111, 0xFFFE, 0xFFFF_FFFF)
    for n in range(4):
        packet = outlet.send(b"opus", 960 * n - 312)
        assert packet
        plain = libsrtp.unprotect(packet)
        assert plain[12:] == b"opus"
        assert int.from_bytes(plain[2:4]) == (0xFFFE + n) & 0xFFFF
        assert int.from_bytes(plain[4:8]) == (960 * n - 313) & 0xFFFF_FFFF
    assert (outlet.packets, outlet.octets) == (4, 16)


def rtcp_sender_report(ssrc: int, time: int) -> RtcpSrPacket:
    info = RtcpSenderInfo(ntp_timestamp=time, rtp_timestamp=1, packet_count=2, octet_count=3)
    return RtcpSrPacket(ssrc=ssrc, sender_info=info)


@pytest.mark.parametrize("key", PROFILES)
def test_what_libsrtp_sends_is_received_and_mapped_by_ssrc(key: bytes) -> None:
    mixer, inlet, libsrtp = Mixer(), Inlet(), srtp(key, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
    alice, others = mixer.add_participant("alice"), mixer.add_participant("others")
    inlet.route(9, alice)
    inlet.route(None, others)
    level = bytes([0xBE, 0xDE, 0, 1, 0x10, 0x80 | 42, 0, 0])
    for n in range(0x1_0010):
        ssrc = 9 if n % 4 else 10
        sequence = (n & 0xFFFF).to_bytes(2)
        packet = libsrtp.protect(
            b"\x90\x6f" + sequence + (960 * n & 0xFFFF_FFFF).to_bytes(4) + bytes([0, 0, 0, ssrc]) + level + SILENCE
        )
        if n == 0:
            assert not inlet.take(packet, 0.0)
            inlet.agree(key, [111], 1)
        assert inlet.take(packet, n * 0.02)
        assert inlet.take(packet, n * 0.02)
    assert inlet.refused == 0x1_0010
    assert (alice.stats().received, others.stats().received) == (0xC00C, 0x4004)
    reports = {report.ssrc: report for report in inlet.reports()}
    assert reports[9].highest == 0x1_000F
    report = bytes(rtcp_sender_report(9, 0x0102_0304_0506_0708))
    assert inlet.take(libsrtp.protect_rtcp(report), 5.0)
    (told,) = (report for report in inlet.reports() if report.ssrc == 9)
    assert told.last_report == 0x0304_0506


@pytest.mark.parametrize("key", PROFILES)
def test_reports_are_what_libsrtp_reads(key: bytes) -> None:
    outlet, libsrtp = Outlet(), srtp(key, pylibsrtp.Policy.SSRC_ANY_INBOUND)
    session = Session(Inlet(), outlet)
    session.open(key, 7, "name")
    assert session.report() == [], "it is not time yet"
    outlet.open(key, 7, 111, 0, 0)
    outlet.send(SILENCE, 0)
    (bye,) = session.close()
    packets = RtcpPacket.parse(libsrtp.unprotect_rtcp(bye))
    assert isinstance(packets[-1], RtcpByePacket)
    assert packets[-1].sources == [7]
    assert session.close() == []


@contextlib.asynccontextmanager
async def heard(receiver: Peer, sender: Peer) -> AsyncIterator[Participant]:
    """Who receives what `sender` sends."""
    participant = Mixer().add_participant("alice")
    receiver.media.inlet.route(None, participant)
    try:
        await sender.accept(await receiver.answer(await sender.offer()))
        await until(lambda: send(sender, 1), lambda: participant.stats().received > 0)
        yield participant
    finally:
        await sender.close()
        await receiver.close()


async def send(peer: Peer, packets: int) -> None:
    for _ in range(packets):
        peer.media.send(SILENCE, round(clock() * 50) * 960)
        await asyncio.sleep(0.02)


async def until(attempt: Callable[[], Awaitable[None]], holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await attempt()


async def test_every_packet_arrives_and_nothing_is_decoded_on_the_way() -> None:
    sender = Peer(LOOPBACK, "sendonly")
    async with heard(Peer(LOOPBACK, "recvonly"), sender) as participant:
        before = participant.stats().received
        await send(sender, 50)
        await asyncio.sleep(0.1)
        assert participant.stats().received - before >= 49
        assert not [thread.name for thread in threading.enumerate() if "decoder" in thread.name]


async def test_a_closed_connection_keeps_no_socket() -> None:
    def sockets() -> int:
        return sum(path.is_socket() for path in Path("/proc/self/fd").iterdir() if path.exists())

    gc.collect()
    gc.disable()
    try:
        before = sockets()
        for _ in range(3):
            async with heard(Peer(LOOPBACK, "recvonly"), Peer(LOOPBACK, "sendonly")):
                assert sockets() >= before + 2
        await asyncio.sleep(0.1)
        assert sockets() == before
    finally:
        gc.enable()


async def test_media_follows_where_ice_goes() -> None:
    """The listener moves to another address of its own: packets come there, and consent is asked for there."""
    listener = Peer(LOOPBACK, "recvonly")
    sender = Peer(LOOPBACK, "sendonly")
    async with heard(listener, sender) as participant:
        connection = sender._transceiver.sender.transport.transport._connection
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as moved:
            moved.bind(("127.0.0.1", 0))
            moved.settimeout(2)
            pair = connection._nominated[1]
            elsewhere = copy.copy(pair.remote_candidate)
            elsewhere.port = moved.getsockname()[1]
            connection._nominated[1] = CandidatePair(pair.protocol, elsewhere)
            sender.media.follow()
            before = participant.stats().received
            await send(sender, 5)
            assert len(moved.recv(2000)) > 20
            await asyncio.sleep(0.1)
            assert participant.stats().received == before


async def test_datagrams_that_are_nothing_disturb_nothing() -> None:
    sender = Peer(LOOPBACK, "sendonly")
    receiver = Peer(LOOPBACK, "recvonly")
    async with heard(receiver, sender) as participant:
        connection = receiver._transceiver.receiver.transport.transport._connection
        port = sender._transceiver.sender.transport.transport._connection._protocols[0].transport
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for candidate in connection.local_candidates:
                for data in (b"", b"\x80", b"\x80\x6f" + b"\0" * 40, b"\x80" * 2000, b"\x17\xfe", b"\xff" * 20):
                    stranger.sendto(data, (candidate.host, candidate.port))
                    port.sendto(data, (candidate.host, candidate.port))
        before = participant.stats().received
        await send(sender, 10)
        await asyncio.sleep(0.1)
        assert participant.stats().received - before >= 9
        assert receiver.media.inlet.refused >= 2


async def test_reports_go_both_ways() -> None:
    """They come every 2.5 to 7.5 s. What a sender report says of the time agrees with the next to a millisecond."""
    here, there = Peer(LOOPBACK, "sendrecv"), RTCPeerConnection()
    heard: list[RtcpReceiverInfo | RtcpSrPacket | RtcpByePacket] = []
    there.addTransceiver(Microphone(440), direction="sendrecv")
    stock = there.getTransceivers()[0]

    async def handle(packet: object) -> None:
        if isinstance(packet, RtcpSrPacket | RtcpByePacket):
            heard.append(packet)
        heard.extend(getattr(packet, "reports", []))

    stock.sender._handle_rtcp_packet = handle
    stock.receiver._handle_rtcp_packet = handle

    async def talk() -> None:
        began, said = time.monotonic(), 0
        while True:
            here.media.send(SILENCE, 960 * said)
            said += 1
            # Late by any few milliseconds, as timers are.
            await asyncio.sleep(max(0.0, began + 0.02 * said - time.monotonic()))

    try:
        await stock_offer(there, here.answer)
        talking = asyncio.create_task(talk())
        async with asyncio.timeout(40):
            while len([report for report in heard if isinstance(report, RtcpSrPacket)]) < 3:
                await asyncio.sleep(0.1)
        talking.cancel()
        await here.close()
        await asyncio.sleep(0.2)
    finally:
        await there.close()
        await here.close()
    told = [report for report in heard if isinstance(report, RtcpReceiverInfo)]
    assert told[-1].highest_sequence & 0xFFFF
    assert told[-1].packets_lost == 0
    assert any(report.lsr and report.dlsr for report in told)
    sent = [report.sender_info for report in heard if isinstance(report, RtcpSrPacket)]
    assert sent[-1].packet_count > 100
    assert sent[-1].octet_count == sent[-1].packet_count * len(SILENCE)
    # The first packets may have come late, and none may have come as soon as it could.
    for one, next_one in itertools.pairwise(sent[1:]):
        passed = (next_one.ntp_timestamp - one.ntp_timestamp) / 2**32
        assert ((next_one.rtp_timestamp - one.rtp_timestamp) & 0xFFFF_FFFF) / 48_000 == pytest.approx(passed, abs=0.001)
    assert isinstance(heard[-1], RtcpByePacket)
