"""The streams of one server: each the mix of a room, playable by WHEP and HLS, under the SID of its PlayerStreamer."""

import asyncio
import secrets
from collections.abc import Iterator
from typing import Final

from audiomixer.auth.turnstile import Turnstile
from audiomixer.mixer import AudioMixer
from audiomixer.outputs.base import Output
from audiomixer.outputs.events import EventOutput
from audiomixer.outputs.hls import HlsOutput
from audiomixer.outputs.whep import WhepOutput
from audiomixer.rooms.local import LocalRooms
from audiomixer.service.jobs import Playing
from audiomixer.webrtc.ice import Ice

_MOST: Final = 100
"""Streams at once, unless the service has a limit of its own."""
_LINGER: Final = 30.0
"""Seconds for which an ended stream is still served, so that players get its end."""
_LONGEST_TEXT: Final = 1024


class TooManyStreamsError(Exception):
    """There are as many streams as there may be."""


class Stream:
    """What the players of one PlayerStreamer are served.

    Args:
        sid: Its SID.
        audio_bitrate: 128 or 192, in kbit/s.
        ice: Where listeners reach it.
        prefix: What the names of its HLS segments begin with.
        first: Number of its first HLS segment.
        interruptions: How often it was interrupted before, in another process.
        gap: As of `HlsOutput`.
    """

    def __init__(
        self,
        sid: str,
        audio_bitrate: int,
        ice: Ice,
        *,
        prefix: str = "",
        first: int = 0,
        interruptions: int = 0,
        gap: tuple[int, float, str] | None = None,
    ) -> None:
        self.sid = sid
        self.hls = HlsOutput(audio_bitrate, prefix=prefix, first=first, interruptions=interruptions, gap=gap)
        self.whep = WhepOutput(audio_bitrate, ice)
        self.events = EventOutput()
        self.outputs: list[Output] = [self.hls, self.whep, self.events]
        self._mixer: AudioMixer | None = None

    @property
    def mixer(self) -> AudioMixer:
        """The mixer that feeds it."""
        if self._mixer is None:
            raise RuntimeError("the stream is not fed yet")
        return self._mixer

    def feed(self, mixer: AudioMixer) -> None:
        """Has it fed by `mixer`, which has its outputs."""
        self._mixer = mixer

    def insert(self, text: str) -> None:
        """Inserts a payload of the application's own, now.

        Raises:
            ValueError: It is empty or longer than 1 KiB.
        """
        if not 0 < len(text.encode()) <= _LONGEST_TEXT:
            raise ValueError(f"Metadata: expected 1 to {_LONGEST_TEXT} bytes of text, got {len(text.encode())}")
        time = self.mixer.time
        for output in self.outputs:
            output.write_metadata(text, time)


class Streams:
    """Makes streams, finds them by SID, ends them.

    Args:
        rooms: Whose mixes they are.
        turnstile: Who decides who may play; everybody, if None.
        max_listeners: So many WebRTC listeners, of all streams together.
    """

    def __init__(self, rooms: LocalRooms, turnstile: Turnstile | None = None, max_listeners: int = 2000) -> None:
        self.rooms = rooms
        self.turnstile = turnstile
        self.max_listeners = max_listeners
        self.closed = asyncio.Event()
        self._changed = asyncio.Event()
        """Set, and replaced, when a stream comes or goes."""
        self.expected: set[str] = set()
        """SIDs of streams that have not begun yet."""
        self.readers = 0
        """Of server-sent events."""
        self.dropped = 0
        """Packets that outputs of streams lost that are gone."""
        self._streams: dict[str, Stream] = {}
        self._ended: dict[str, Stream] = {}

    def __iter__(self) -> Iterator[Stream]:
        """The streams that are live."""
        return iter(list(self._streams.values()))

    def playing(self) -> list[Playing]:
        """What is live."""
        return [
            Playing(
                stream.sid,
                stream.mixer.room.name,
                stream.mixer.audio_bitrate,
                round(stream.mixer.time),
                stream.whep.listeners,
            )
            for stream in self
        ]

    @property
    def full(self) -> bool:
        """Whether there are as many listeners as there may be."""
        return sum(stream.whep.taken for stream in self._streams.values()) >= self.max_listeners

    def connecting(self, network: str) -> int:
        """How many listeners of a network have not come about yet."""
        return sum(stream.whep.connecting(network) for stream in self._streams.values())

    async def until_changed(self) -> None:
        """Waits until a stream comes or goes, or everything ends."""
        changed = asyncio.ensure_future(self._changed.wait())
        closed = asyncio.ensure_future(self.closed.wait())
        try:
            await asyncio.wait([changed, closed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            closed.cancel()

    def _change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

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
        stream = Stream("VJ" + secrets.token_hex(16), audio_bitrate, self.rooms.ice)
        mixer = AudioMixer(f"local:{room}", outputs=stream.outputs, audio_bitrate=audio_bitrate, rooms=self.rooms)
        await mixer.start()
        stream.feed(mixer)
        self.add(stream)
        return stream

    def add(self, stream: Stream) -> None:
        """Begins to serve a stream."""
        self._streams[stream.sid] = stream
        self._change()

    def retire(self, sid: str) -> None:
        """A stream has ended; what players have not got yet is served for a while."""
        stream = self._streams.pop(sid, None)
        if stream:
            self.dropped += sum(output.dropped for output in stream.outputs)
            self._ended[sid] = stream
            self._change()
            asyncio.get_running_loop().call_later(_LINGER, self._ended.pop, sid, None)

    def forget(self, sid: str) -> None:
        """Ceases to serve a stream, which will go on in another process: players are not told of an end."""
        self._streams.pop(sid, None)

    async def stop(self, sid: str) -> None:
        """Ends a stream that was started here."""
        stream = self._streams[sid]
        self.retire(sid)
        await stream.mixer.stop()

    async def close(self) -> None:
        """Ends every stream, and every room."""
        self.closed.set()
        for sid in list(self._streams):
            await self.stop(sid)
        await self.rooms.close()
