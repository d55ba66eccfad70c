"""The streams of one server: each the mix of a room, playable by WHEP and HLS."""

import asyncio
import secrets
from collections.abc import Iterator
from typing import Final

from audiomixer.mixer import AudioMixer
from audiomixer.outputs.hls import HlsOutput
from audiomixer.outputs.whep import WhepOutput
from audiomixer.rooms.local import LocalRooms

_MOST: Final = 100
"""Streams at once."""
_LINGER: Final = 30.0
"""Seconds for which an ended stream is still served, so that players get its end."""


class TooManyStreamsError(Exception):
    """There are as many streams as there may be."""


class Stream:
    """A room's mix, under a SID of its own."""

    def __init__(self, rooms: LocalRooms, room: str, audio_bitrate: int) -> None:
        self.sid = "VJ" + secrets.token_hex(16)
        self.room = room
        self.hls = HlsOutput(audio_bitrate)
        self.whep = WhepOutput(audio_bitrate, rooms.addresses)
        self.mixer = AudioMixer(
            f"local:{room}", outputs=[self.hls, self.whep], audio_bitrate=audio_bitrate, rooms=rooms
        )


class Streams:
    """Makes streams, finds them by SID, ends them."""

    def __init__(self, rooms: LocalRooms) -> None:
        self.rooms = rooms
        self.closed = asyncio.Event()
        self._streams: dict[str, Stream] = {}
        self._ended: dict[str, Stream] = {}

    def __iter__(self) -> Iterator[Stream]:
        """The streams that are live."""
        return iter(list(self._streams.values()))

    def get(self, sid: str) -> Stream | None:
        """The stream with this SID, if there is one, or was until just now."""
        return self._streams.get(sid) or self._ended.get(sid)

    async def start(self, room: str, audio_bitrate: int = 128) -> Stream:
        """Streams the mix of `room`, a local room's name.

        Raises:
            ValueError: The name or the bitrate is none.
            TooManyStreamsError: There are too many.
        """
        if len(self._streams) >= _MOST:
            raise TooManyStreamsError(f"streams: there are {_MOST} already")
        stream = Stream(self.rooms, room, audio_bitrate)
        await stream.mixer.start()
        self._streams[stream.sid] = stream
        return stream

    async def stop(self, sid: str) -> None:
        """Ends a stream; what players have not got yet is served for a while."""
        stream = self._ended[sid] = self._streams.pop(sid)
        await stream.mixer.stop()
        asyncio.get_running_loop().call_later(_LINGER, self._ended.pop, sid, None)

    async def close(self) -> None:
        """Ends every stream, and every room."""
        self.closed.set()
        for sid in list(self._streams):
            await self.stop(sid)
        await self.rooms.close()
