"""Sends tones for many, at little cost: a second of each, encoded beforehand, over and over."""

import asyncio
import time

import numpy as np

from audiomixer.audio.encoding import Encoder, Encoding
from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.clock.tasks import spawn
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.peer import Peer
from tests.signals import sine


class Voice:
    """One of the chorus: a connection that is to be negotiated, and is sent to until it is closed.

    Args:
        ice: Where it is offered.
        frequency: In whole Hz.
    """

    def __init__(self, ice: Ice, frequency: float) -> None:
        encoder = Encoder(Encoding("opus", 32))
        tone = np.repeat(sine(frequency, 0.2, 2)[:, None], 2, axis=1)
        packets = [packet.data for frame in np.split(tone, 100) for packet in encoder.encode(frame)]
        self._second = packets[-50:]
        self.peer = Peer(ice, "sendonly")
        self._sending = spawn(self._send())

    async def _send(self) -> None:
        began, number = time.monotonic(), 0
        while True:
            self.peer.media.send(self._second[number % 50], number * FRAME_SIZE)
            number += 1
            await asyncio.sleep(began + number * 0.02 - time.monotonic())

    async def close(self) -> None:
        self._sending.cancel()
        await self.peer.close()
