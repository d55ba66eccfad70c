"""Takes a connection's media out of aiortc's hands, once DTLS is done.

What comes from the other side is decrypted and handed to participants where the port is read; what is sent is
encrypted and sent. Both happen in Rust (`Inlet`, `Outlet`), and cost a tenth of what aiortc's queues, parsers and
decoder threads do. Where a TURN server is in between, datagrams take the way through aioice's sockets.

Only this module, `connection`, `peer`, `agent`, `consent`, `restart` and `ice` know private names of aiortc and aioice,
which are pinned to a minor version; `tests/webrtc/test_media.py` fails when the names move.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from aiortc import RTCRtpTransceiver
from aiortc.rtcdtlstransport import SRTP_PROFILES

from audiomixer._core import Inlet, Outlet, Session
from audiomixer.clock.tasks import spawn
from audiomixer.webrtc.agent import Transport
from audiomixer.webrtc.consent import ask

_AUDIO_LEVEL: Final = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"


class Media:
    """The media of one connection."""

    def __init__(self) -> None:
        self.inlet = Inlet()
        """What is received, to be routed to participants."""
        self.outlet = Outlet()
        """What is sent; by `send`, or through a `Distributor` with `send_unsent` for what it could not send."""
        self.session = Session(self.inlet, self.outlet)
        self.opus: int | None = None
        """The payload type of Opus, where it is not what aiortc was told."""
        self._pair: Any = None
        """What was nominated when the outlet was directed."""
        self._transport: Any = None
        self._key: Callable[[int], bytes]
        """Gives the master keys: the client's, and the server's."""
        self._receives = False

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
        """Sends encrypted packets for which there is no path. In any thread."""
        with contextlib.suppress(RuntimeError):  # The event loop has ended.
            self._loop.call_soon_threadsafe(lambda: spawn(self._send_through_ice(packets)))

    async def _send_through_ice(self, packets: list[bytes]) -> None:
        for packet in packets:
            if self._transport:
                with contextlib.suppress(ConnectionError):
                    await self._transport.transport._send(packet)

    async def stop(self) -> None:
        """Ends both directions; once is enough."""
        await self._send_through_ice(self.session.close())
        self._transport = self._pair = None
        self.outlet.close()

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
        self._report(transceiver, "")

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
        self._report(transceiver, parameters.rtcp.cname or "")

    def _report(self, transceiver: Any, cname: str) -> None:
        self.session.open(self._own_key(sending=True), transceiver.sender._ssrc, cname)

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

    def unsettle(self) -> None:
        """For the time being, nobody asks whether the other side is there."""
        if self._pair and isinstance(self._pair.protocol.transport, Transport):
            self._pair.protocol.transport.unsettle()
        self._pair = None

    def follow(self) -> None:
        """Sends where ICE has come to now: the other side may have moved."""
        if self._transport is None:
            return
        agent = self._transport.transport._connection
        pair: Any = next(iter(agent._nominated.values()), None)
        if pair is self._pair:
            return
        before, self._pair = self._pair, pair
        if before and isinstance(before.protocol.transport, Transport):
            before.protocol.transport.unsettle()
        if pair and isinstance(pair.protocol.transport, Transport):
            pair.protocol.transport.settle(agent, pair.remote_addr)
            self.outlet.redirect(pair.protocol.transport.path(pair.remote_addr))
            return
        self.outlet.redirect(None)
        if pair and (agent._query_consent_task is None or agent._query_consent_task.done()):
            agent._query_consent_task = asyncio.create_task(ask(agent, self.session))
