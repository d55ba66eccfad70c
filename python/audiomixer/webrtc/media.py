"""Takes a connection's media out of aiortc's hands, once ICE and DTLS are done.

What comes from the other side is read from a socket of its own, once per tick, decrypted and handed to participants;
what is sent is encrypted and sent. Both happen in Rust (`Inlet`, `Outlet`), and cost a tenth of what aiortc's queues,
parsers and decoder threads do. Everything that is no RTP goes back to aiortc. Where there is no such socket (behind a
TURN server, or from an address that has changed) datagrams take the way through aiortc's sockets.

Only this module, `connection`, `peer`, `rtcp` and `ice` know private names of aiortc and aioice, which are pinned to a
minor version; `tests/webrtc/test_media.py` fails when the names move.
"""

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

from aiortc import RTCRtpTransceiver
from aiortc.rtcdtlstransport import SRTP_PROFILES

from audiomixer._core import Inlet, Intake, Outlet, Port
from audiomixer.clock.pacer import clock
from audiomixer.clock.tasks import spawn
from audiomixer.webrtc.rtcp import report_received, report_sent

_AUDIO_LEVEL: Final = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"

_ENOUGH: Final = 400_000
"""Bytes of a receive buffer: 0.2 s of fifty streams."""

_log = logging.getLogger(__name__)

Receive = Callable[[bytes, Any], None]


class Media:
    """The media of one connection.

    Args:
        intake: Who polls it reads the connection's socket; without one, the event loop does.
    """

    def __init__(self, intake: Intake | None = None) -> None:
        self.inlet = Inlet()
        """What is received, to be routed to participants."""
        self.outlet = Outlet()
        """What is sent; by `send`, or through a `Distributor` with `send_unsent` for what it could not send."""
        self.opus: int | None = None
        """The payload type of Opus, where it is not what aiortc was told."""
        self._intake = intake
        self._remote: Any = None
        """The address that the port is connected to, if there is one."""
        self._transport: Any = None
        self._port: Port | None = None
        self._key: Callable[[int], bytes]
        """Gives the master keys: the client's, and the server's."""
        self._receives = False
        self._reports: list[asyncio.Task[None]] = []

    def take_over(self, transceiver: RTCRtpTransceiver) -> None:
        """Has a transceiver receive and send this way. To be called before its connection comes about."""
        private: Any = transceiver
        private.receiver.receive = partial(self._receive, private)
        private.receiver.stop = self.stop
        private.sender.send = partial(self._send, private)
        private.sender.stop = self.stop

    def send(self, payload: bytes, timestamp: int) -> None:
        """Sends a packet; until the connection is up, it is for nobody. In any thread.

        Args:
            payload: Opus.
            timestamp: In 1/48000 s, from any beginning; its lowest 32 bits count.
        """
        packet = self.outlet.send(payload, timestamp)
        if packet:
            self.send_unsent([packet])

    def send_unsent(self, packets: list[bytes]) -> None:
        """Sends encrypted packets for which there is no port. In any thread."""
        with contextlib.suppress(RuntimeError):  # The event loop has ended.
            self._loop.call_soon_threadsafe(lambda: spawn(self._send_through_ice(packets)))

    async def _send_through_ice(self, packets: list[bytes]) -> None:
        for packet in packets:
            if self._transport:
                with contextlib.suppress(ConnectionError):
                    await self._transport.transport._send(packet)

    async def stop(self) -> None:
        """Ends both directions; once is enough."""
        self._close_port()
        self._transport = None
        self.outlet.close()
        reports, self._reports = self._reports, []
        for report in reports:
            report.cancel()
        await asyncio.gather(*reports, return_exceptions=True)

    async def _receive(self, transceiver: Any, parameters: Any) -> None:
        receiver = transceiver.receiver
        if receiver._RTCRtpReceiver__started:
            return
        receiver._RTCRtpReceiver__started = True
        transport = receiver.transport
        transport._register_rtp_receiver(receiver, parameters)
        self._connect(transport)
        if self._receives:
            return  # The inlet has the streams of all transceivers.
        self._receives = True
        # aiortc takes any number for an id; RFC 8285 has a byte.
        levels = (e.id for e in parameters.headerExtensions if e.uri == _AUDIO_LEVEL and 0 < e.id < 256)
        self.inlet.agree(
            self._own_key(sending=False),
            [self.opus] if self.opus is not None else [c.payloadType for c in parameters.codecs if c.name == "opus"],
            next(levels, None),
        )
        self._reports.append(asyncio.create_task(report_received(transceiver, self.inlet)))

    async def _send(self, transceiver: Any, parameters: Any) -> None:
        sender = transceiver.sender
        if sender._RTCRtpSender__started:
            return
        sender._RTCRtpSender__started = True
        transport = sender.transport
        transport._register_rtp_sender(sender, parameters)
        self._connect(transport)
        self.outlet.open(
            self._own_key(sending=True),
            sender._ssrc,
            self.opus if self.opus is not None else parameters.codecs[0].payloadType,
            random.randrange(2**15),  # noqa: S311
            random.randrange(2**32),  # noqa: S311
        )
        self.follow()
        self._reports.append(asyncio.create_task(report_sent(sender, parameters.rtcp.cname, self.outlet)))

    def _own_key(self, *, sending: bool) -> bytes:
        is_server = self._transport._role == "server"
        return self._key(int(sending == is_server))

    def _connect(self, transport: Any) -> None:
        """Takes the way through Rust from now on; DTLS has come about."""
        if self._transport is transport:
            return
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        chosen = transport._ssl.get_selected_srtp_profile()
        profile = next(profile for profile in SRTP_PROFILES if profile.openssl_profile == chosen)
        length = 2 * (profile.key_length + profile.salt_length)
        keys = transport._ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", length)
        self._key = lambda which: bytes(profile.get_key_and_salt(keys, which))

        async def handle_rtp_data(data: bytes, arrival_time_ms: int) -> None:
            """What was queued before, and comes decrypted: a few packets, of which nobody has heard the first."""

        transport._handle_rtp_data = handle_rtp_data
        self.follow()
        for protocol in transport.transport._connection._protocols:
            protocol.datagram_received = partial(self._datagram_received, protocol.datagram_received)

    def follow(self) -> None:
        """Reads and sends where ICE has come to now: the other side may have moved."""
        if self._transport is None:
            return
        pair: Any = next(iter(self._transport.transport._connection._nominated.values()), None)
        is_direct = pair is not None and pair.protocol.local_candidate.type == "host"
        if self._intake and is_direct and self._remote == pair.remote_addr:
            self.outlet.redirect(self._port)
            return
        # The outlet must not keep the old port open: it would be in the way of the new one.
        self.outlet.redirect(None)
        self._close_port()
        if self._intake and is_direct:
            self._open_port(self._intake, pair)
        self.outlet.redirect(self._port)

    def _close_port(self) -> None:
        if self._intake:
            self._intake.remove(self.inlet)
        self._port = self._remote = None

    def _datagram_received(self, others: Receive, data: bytes, address: Any) -> None:
        if len(data) > 1 and not self.inlet.take(data, clock()):  # aiortc would trip over an empty datagram.
            others(data, address)

    def _open_port(self, intake: Intake, pair: Any) -> None:
        transport, remote = pair.protocol.transport, pair.remote_addr
        try:
            # asyncio's sockets are not to be changed; this is another handle of the same one.
            with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as shared:
                shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    port = Port.beside(transport.get_extra_info("sockname")[:2], remote[:2])
                finally:
                    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            intake.add(port, self.inlet, partial(self._hand_back, pair.protocol.datagram_received, remote))
        except (OSError, ValueError) as error:
            # As many files are open as may be, say. The way through asyncio is slower, and goes on.
            _log.debug("no port of its own for a connection with %s: %s", remote, error)
            return
        self._port, self._remote = port, remote
        _log_receive_buffer(port.receive_buffer)

    def _hand_back(self, others: Receive, remote: Any, datagrams: list[bytes]) -> None:
        """Called by whoever polls the intake."""

        def hand() -> None:
            for data in datagrams:
                if len(data) > 1:
                    others(data, remote)

        with contextlib.suppress(RuntimeError):  # The event loop has ended.
            self._loop.call_soon_threadsafe(hand)


@cache
def _log_receive_buffer(size: int) -> None:
    """Tells once how much the kernel keeps while nobody reads."""
    if size < _ENOUGH:
        _log.warning(
            "the kernel keeps %d bytes for a connection: for large rooms elsewhere, set net.core.rmem_max to %d",
            size,
            _ENOUGH,
        )
