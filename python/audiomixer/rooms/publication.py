"""The mix, and its metadata, published back into the room: a server elsewhere carries it to any number of ears."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from audiomixer.audio.encoding import EncodedPacket, Encoding
from audiomixer.webrtc.peer import Peer

Send = Callable[[str], bool]


class Publication:
    """An output, of Opus, that is connected by the session which the room is joined by, again and again.

    What comes while it is not connected is dropped and counted.

    Args:
        audio_bitrate: 128 or 192, in kbit/s.
    """

    def __init__(self, audio_bitrate: int) -> None:
        self.encoding = Encoding("opus", audio_bitrate)
        self._peer: Peer | None = None
        self._send_payload: Send | None = None
        self._lost = 0

    @property
    def active(self) -> bool:
        """Whether the mix gets anywhere."""
        return self._peer is not None

    @property
    def dropped(self) -> int:
        """Packets and payloads lost."""
        return self._lost + (self._peer.media.outlet.dropped if self._peer else 0)

    def carry(self, peer: Peer, send_payload: Send) -> None:
        """From now on the mix goes over `peer`, and payloads are sent by `send_payload`, unless that gives False."""
        self._count()
        self._peer, self._send_payload = peer, send_payload

    def release(self, peer: Peer) -> None:
        """It does not go over `peer` any more."""
        if self._peer is peer:
            self._count()
            self._peer = self._send_payload = None

    def _count(self) -> None:
        if self._peer:
            self._lost += self._peer.media.outlet.dropped

    async def start(self) -> None:
        """It is connected when the room is joined."""
        self._loop = asyncio.get_running_loop()

    def begin(self, began: datetime) -> None:
        """Listeners are told no dates."""

    def write(self, packets: Sequence[EncodedPacket]) -> None:
        """Sends packets."""
        peer = self._peer
        if peer is None:
            self._lost += len(packets)
            return
        for packet in packets:
            peer.media.send(packet.data, packet.pts)

    def write_metadata(self, text: str, time: float) -> None:
        """Sends a payload."""
        self._loop.call_soon_threadsafe(self._send, text)

    def _send(self, text: str) -> None:
        if self._send_payload is None or not self._send_payload(text):
            self._lost += 1

    async def stop(self) -> None:
        """The session ends its connection."""
