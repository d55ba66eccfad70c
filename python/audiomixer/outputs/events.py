"""The payloads alone, for whoever wants them beside the audio: server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final

from audiomixer.audio.encoding import EncodedPacket, Encoding
from audiomixer.clock.broadcast import Broadcast

_LIMIT: Final = 120
"""A minute of payloads may wait for a reader, who then loses the oldest."""


class EventOutput:
    """Hands every payload of a stream to every reader."""

    active = False
    encoding = Encoding("opus", 128)

    def __init__(self) -> None:
        self._texts: Broadcast[str] = Broadcast(_LIMIT)

    @property
    def dropped(self) -> int:
        """Payloads that slow readers lost."""
        return self._texts.dropped

    def read(self) -> AsyncIterator[str]:
        """The payloads from now on, until the stream ends."""
        return self._texts.subscribe()

    async def start(self) -> None:
        """Begins to take payloads."""
        self._loop = asyncio.get_running_loop()

    def begin(self, began: datetime) -> None:
        """Readers are told no dates."""

    def write(self, packets: Sequence[EncodedPacket]) -> None:
        """No audio is asked for."""

    def write_metadata(self, text: str, time: float) -> None:
        """Takes a payload."""
        self._loop.call_soon_threadsafe(self._texts.publish, text)

    async def stop(self) -> None:
        """Readers get what is left, and the end."""
        # After the payloads that are on their way to the event loop.
        self._loop.call_soon(self._texts.close)
