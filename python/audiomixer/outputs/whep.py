"""WHEP listeners: the mix as Opus over WebRTC, encoded once for all, and the metadata on a data channel."""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from aiortc import RTCDataChannel

from audiomixer._core import Distributor
from audiomixer.audio.encoding import EncodedPacket, Encoding
from audiomixer.outputs.base import OutputError
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.peer import Peer

CHANNEL: Final = "timed-metadata"
"""The data channel that a listener opens to get the metadata."""
_BACKLOG: Final = 64 * 1024
"""A listener that has not taken so many bytes of metadata loses the newest."""

_log = logging.getLogger(__name__)


class _Listener:
    def __init__(self, output: "WhepOutput", ice: Ice, network: str) -> None:
        self.network = network
        self.resource = secrets.token_urlsafe(16)
        self.channel: RTCDataChannel | None = None
        self.peer = Peer(
            ice,
            "sendonly",
            on_channel=self._on_channel,
            on_closed=lambda: output.forget(self.resource),
        )

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if channel.label == CHANNEL:
            self.channel = channel


class WhepOutput:
    """The listeners of one stream. Nothing is encoded while there are none.

    Args:
        bitrate: In kbit/s.
        ice: Where listeners reach it; on this machine only, if None.
    """

    def __init__(self, bitrate: int, ice: Ice | None = None) -> None:
        self.encoding = Encoding("opus", bitrate)
        self._ice = ice or Ice(["127.0.0.1"])
        self._distributor = Distributor()
        self._listeners: dict[str, _Listener] = {}
        self._joining = 0
        self._lost = 0
        self._stopped = False

    @property
    def active(self) -> bool:
        """Whether there are listeners."""
        return bool(self._listeners)

    @property
    def listeners(self) -> int:
        """How many there are."""
        return len(self._listeners)

    @property
    def taken(self) -> int:
        """How many there are, and how many are just joining."""
        return len(self._listeners) + self._joining

    @property
    def dropped(self) -> int:
        """Packets and payloads that slow listeners lost."""
        return self._lost + sum(listener.peer.media.outlet.dropped for listener in self._listeners.values())

    async def start(self) -> None:
        """Begins to take listeners."""
        self._loop = asyncio.get_running_loop()

    def begin(self, began: datetime) -> None:
        """Listeners are told no dates."""

    def connecting(self, network: str) -> int:
        """How many listeners of a network have not come about yet."""
        listeners = self._listeners.values()
        return sum(listener.network == network and not listener.peer.connected for listener in listeners)

    async def join(self, offer: str, network: str = "") -> tuple[str, str]:
        """A listener joins.

        Args:
            offer: SDP.
            network: Where it comes from, by any name.

        Returns:
            The resource by which it can `leave`, and the SDP answer.

        Raises:
            OfferError: The offer cannot be answered.
            OutputError: The stream has ended.
        """
        listener = _Listener(self, self._ice, network)
        self._joining += 1
        try:
            answer = await listener.peer.answer(offer)
        finally:
            self._joining -= 1
        if self._stopped:
            await listener.peer.close()
            raise OutputError("stream: it has ended")
        self._listeners[listener.resource] = listener
        self._distributor.add(listener.peer.media.outlet, listener.peer.media.send_unsent)
        return listener.resource, answer

    async def leave(self, resource: str) -> bool:
        """The listener leaves that joined as `resource`; False if there is none."""
        listener = self._listeners.get(resource)
        if listener is None:
            return False
        await listener.peer.close()
        return True

    def peer(self, resource: str) -> Peer | None:
        """The connection of the listener that joined as `resource`."""
        listener = self._listeners.get(resource)
        return listener.peer if listener else None

    def forget(self, resource: str) -> None:
        """A listener's connection has ended."""
        listener = self._listeners.pop(resource, None)
        if listener:
            self._lost += listener.peer.media.outlet.dropped
            self._distributor.remove(listener.peer.media.outlet)

    def write(self, packets: Sequence[EncodedPacket]) -> None:
        """Has Opus packets sent to all who are connected."""
        for packet in packets:
            self._distributor.send(packet.data, packet.pts)

    def write_metadata(self, text: str, time: float) -> None:
        """Takes a payload."""
        self._loop.call_soon_threadsafe(self._send_metadata, text)

    def _send_metadata(self, text: str) -> None:
        for listener in self._listeners.values():
            channel = listener.channel
            if channel is None or channel.readyState != "open":
                continue
            if channel.bufferedAmount > _BACKLOG:
                self._lost += 1
            else:
                channel.send(text)

    async def stop(self) -> None:
        """Ends every listener's connection."""
        self._stopped = True
        await asyncio.gather(*(listener.peer.close() for listener in list(self._listeners.values())))
