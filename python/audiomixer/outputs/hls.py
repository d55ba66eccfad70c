"""Low-latency HLS from memory: AAC in MPEG-TS, with the metadata as timed ID3.

The muxer cuts the stream into parts of a third of a second, each of which begins with the tables that a player needs;
three of them, joined, make a segment.
"""

import asyncio
import contextlib
import io
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from audiomixer.audio.encoding import EncodedPacket, Encoding
from audiomixer.audio.metadata import id3
from audiomixer.clock.frame import SAMPLE_RATE
from audiomixer.outputs.muxer import IN_STEP, Format, Muxer
from audiomixer.outputs.playlist import TARGET, Part, Segment, master_playlist, media_playlist, part_name, segment_name
from audiomixer.outputs.queued import Payload

PLAYLIST_TYPE: Final = "application/vnd.apple.mpegurl"
SEGMENT_TYPE: Final = "video/mp2t"

_HLS: Final = Format(
    "hls",
    "aac",
    # A part is 15 frames of AAC.
    IN_STEP | {"hls_time": "0.32", "hls_flags": "split_by_time", "hls_list_size": "1"},
    "timed_id3",
    id3,
)
_PARTS_PER_SEGMENT: Final = 3
SEGMENT: Final = 0.96
"""Seconds of a segment."""
SHORT_SEGMENTS: Final = 4
"""The first segments are of one part only: a new stream can be played sooner."""
_LEAST: Final = 3
"""Segments before there is a playlist: Chromium's own HLS player fails on a live playlist of one."""
_WINDOW: Final = 20
"""Segments in the playlist."""
_KEPT: Final = 2 * _WINDOW + 2
"""Segments in memory: one that has left the playlist can be had for as long as the playlist it was in lasts (RFC 8216,
section 6.2.2)."""
_PATIENCE: Final = 3 * TARGET
"""Seconds for which a request may wait for what is still to come."""


class TooFarError(ValueError):
    """What is asked for is further in the future than anyone has been told of."""


class HlsOutput:
    """The playlists, segments and parts of one stream, to be served by whoever serves.

    Args:
        bitrate: In kbit/s.
        prefix: What the names of segments begin with; one that cannot be guessed keeps them to those who have got a
            playlist, and lets caches hold them all the same.
        first: Number of the first segment.
        interruptions: How often the stream was interrupted before, in another process; it then goes on with a
            discontinuity.
        gap: Number of the first segment that may be missing for that, and the seconds that those before `first` stand
            for, with the prefix that they had. With a gap in the playlist, and not only in its numbers, players find
            their way across; hls.js sees to it that a number does not change its name.
        low_latency: Whether playlists name parts of segments.
    """

    active = True
    dropped = 0

    def __init__(
        self,
        bitrate: int,
        *,
        prefix: str = "",
        first: int = 0,
        interruptions: int = 0,
        gap: tuple[int, float, str] | None = None,
        low_latency: bool = True,
    ) -> None:
        self.encoding = Encoding("aac", bitrate)
        self._prefix = prefix
        self._first = first
        self._interruptions = interruptions
        self._gap = gap
        self._low_latency = low_latency
        self._muxing = threading.Lock()
        self._segments: deque[Segment] = deque(maxlen=_KEPT)
        self._current: Segment | None = None
        """The segment that is being made."""
        self.ended = False
        """Whether nothing more will come."""
        self._written = 0
        """Timestamp after the last packet."""
        self._cut: int | None = None
        self._view: tuple[tuple[Segment, ...], Segment | None] = ((), None)
        """The segments that there are, and a copy of the one that is being made. It is replaced as a whole, by the
        thread that muxes, so that nobody has to wait for that to read it."""
        self._news = asyncio.Event()
        """Set, and replaced, when a part has come."""
        self._rendered: dict[bool, str] = {}
        self._began = datetime.now(UTC)

    async def start(self) -> None:
        """Opens the muxer."""
        self._loop = asyncio.get_running_loop()
        self._piece = _Unclosed()
        self._muxer = Muxer("index.m3u8", _HLS, self.encoding, io_open=self._open)

    def begin(self, began: datetime) -> None:
        """Dates are counted from `began`."""
        self._began = began.astimezone(UTC)
        self._segments.extend(self._missing())
        self._show()

    def _missing(self) -> list[Segment]:
        """What there is not, of the time that the stream was interrupted."""
        if self._gap is None:
            return []
        number, seconds, prefix = self._gap
        number = max(number, self._first - _WINDOW + _LEAST)
        count = self._first - number
        duration = min(seconds / count, SEGMENT) if count > 0 else 0.0
        return [
            Segment(
                self._first - left,
                self._began - timedelta(seconds=left * duration),
                [Part(b"", duration)],
                gap=True,
                prefix=prefix,
            )
            for left in range(count, 0, -1)
        ]

    def _open(self, url: str, flags: int, options: Any) -> io.BytesIO:
        """Called by the muxer when a part has ended, to write it and then its own playlist, which nobody needs."""
        if url.endswith(".ts"):
            self._piece = _Unclosed()
            return self._piece
        self._end_part()
        return io.BytesIO()

    def write(self, packets: Sequence[EncodedPacket]) -> None:
        """Takes AAC packets."""
        with self._muxing:
            newest = self._newest
            for packet in packets:
                # The packet may end a part: it is not in it.
                self._written = packet.pts
                if self._cut is None:
                    self._cut = packet.pts
                self._muxer.write(packet)
                self._written = packet.pts + packet.duration
            has_news = self._newest != newest
        if has_news:
            # Who is told wants the lock.
            self._loop.call_soon_threadsafe(self._tell)

    def write_metadata(self, text: str, time: float) -> None:
        """Takes a payload, which becomes an ID3 tag at its own time."""
        self._muxer.write(Payload(text, time))

    def _end_part(self) -> None:
        cut = self._cut or 0
        segment = self._current
        if segment is None:
            number = self._segments[-1].number + 1 if self._segments else self._first
            started = self._began + timedelta(seconds=cut / SAMPLE_RATE)
            discontinuity = number == self._first and self._interruptions > 0
            segment = self._current = Segment(number, started, discontinuity=discontinuity)
        segment.parts.append(Part(self._piece.getvalue(), (self._written - cut) / SAMPLE_RATE))
        self._cut = self._written
        if len(segment.parts) == (1 if segment.number < self._first + SHORT_SEGMENTS else _PARTS_PER_SEGMENT):
            self._end_segment()
        self._show()

    def _end_segment(self) -> None:
        if self._current:
            self._segments.append(self._current)
            self._current = None
            self._show()

    def _show(self) -> None:
        current = replace(self._current, parts=list(self._current.parts)) if self._current else None
        self._view = tuple(self._segments), current

    def _tell(self) -> None:
        """Whoever waits for something may look again."""
        self._rendered.clear()
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def stop(self) -> None:
        """Ends the stream: players play what is there, and stop."""
        with self._muxing:
            self._muxer.close()
            self._end_segment()
            self.ended = True
        self._tell()

    def master_playlist(self, query: str = "") -> str:
        """The playlist that players are given; it names `audio.m3u8`, followed by `query`."""
        return master_playlist(self.encoding.bitrate, query)

    def media_playlist(self, *, skip: bool = False) -> str | None:
        """The playlist `audio.m3u8` as of now; None until there is enough to play.

        Args:
            skip: To leave out older segments, for a client that knows them (a delta update).
        """
        segments, current = self._view
        if not self._is_playable() and not (self.ended and segments):
            return None
        rendered = self._rendered.get(skip)
        if rendered is None:
            segments = segments[-_WINDOW:]
            rendered = self._rendered[skip] = media_playlist(
                segments,
                current,
                prefix=self._prefix,
                discontinuities=self._interruptions - any(segment.discontinuity for segment in segments),
                ended=self.ended,
                skip=skip,
                low_latency=self._low_latency,
            )
        return rendered

    def _is_playable(self) -> bool:
        """Whether there is enough to begin with."""
        return sum(not segment.gap for segment in self._view[0]) >= _LEAST

    async def until(self, number: int, part: int | None = None) -> bool:
        """Waits until a segment is complete, or a part of it is there, or the stream ends; False if it stops flowing.

        Raises:
            TooFarError: It is further off than two segments.
        """
        if number > self._newest[0] + 2:
            raise TooFarError(f"_HLS_msn: expected at most {self._newest[0] + 2}, got {number}")
        try:
            async with asyncio.timeout(_PATIENCE):
                while not self._has(number, part) and not self.ended:
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def until_playable(self) -> None:
        """Waits for a playlist, if the stream was interrupted: players that know it are not told that it is gone."""
        if self._interruptions:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    while not self._is_playable() and not self.ended:
                        await self._news.wait()

    async def until_segment(self) -> None:
        """Waits until one more segment is complete; in vain if the stream ends."""
        complete = self._newest[0]
        while not self._has(complete, None) and not self.ended:
            await self._news.wait()

    def complete(self) -> dict[str, bytes]:
        """The segments that there are, by name."""
        return {
            segment_name(self._prefix, segment.number): segment.data for segment in self._view[0] if not segment.gap
        }

    @property
    def newest(self) -> int:
        """The number of the segment that is being made."""
        return self._newest[0]

    @property
    def _newest(self) -> tuple[int, int]:
        """The segment that is being made, and how many parts of it there are."""
        segments, current = self._view
        if current:
            return current.number, len(current.parts)
        return (segments[-1].number + 1 if segments else self._first), 0

    def _has(self, number: int, part: int | None) -> bool:
        newest, parts = self._newest
        return number < newest or (number == newest and part is not None and part < parts)

    async def media(self, name: str) -> bytes | None:
        """The segment or part of this name, once it is there; None if it is not, or not any more."""
        number, parts = self._newest
        if name == part_name(self._prefix, number, parts):
            await self.until(number, parts)
        segments, current = self._view
        for segment in (*segments, *([current] if current else [])):
            if segment.gap:
                continue
            if name == segment_name(self._prefix, segment.number) and segment is not current:
                return segment.data
            for index, part in enumerate(segment.parts):
                if name == part_name(self._prefix, segment.number, index):
                    return part.data
        return None


class _Unclosed(io.BytesIO):
    """Keeps its contents when the muxer closes it."""

    def close(self) -> None:
        pass
