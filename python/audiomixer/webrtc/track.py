"""A track of packets that are encoded already: encoded once, sent to any number of peers."""

import asyncio
from collections import deque

from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from audiomixer.encoding import AvPacket

_LIMIT = 25
"""Half a second of packets may wait for a peer; then the oldest are dropped."""


class PacketTrack(MediaStreamTrack):
    """Sends the packets it is given, in order."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._packets: deque[AvPacket] = deque()
        self._arrived = asyncio.Event()
        self._connected = False
        self.dropped = 0
        """Packets that waited for too long."""

    def send(self, packet: AvPacket) -> None:
        """Queues a packet, on the event loop. Until the peer has connected, packets are for nobody."""
        if not self._connected:
            return
        if len(self._packets) >= _LIMIT:
            self._packets.popleft()
            self.dropped += 1
        self._packets.append(packet)
        self._arrived.set()

    async def recv(self) -> AvPacket:
        """The next packet."""
        self._connected = True
        while not self._packets:
            if self.readyState != "live":
                raise MediaStreamError
            self._arrived.clear()
            await self._arrived.wait()
        return self._packets.popleft()

    def stop(self) -> None:
        """Ends the track."""
        super().stop()
        self._arrived.set()
