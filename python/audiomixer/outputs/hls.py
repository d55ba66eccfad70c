"""HLS (RFC 8216) from memory: AAC in MPEG-TS, with the metadata as timed ID3.

The muxer cuts the stream into pieces of half a second, each of which begins with the tables that a player needs; four
of them make a segment.
"""

import io
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import av

from audiomixer.encoding import SAMPLE_RATE, TIME_BASE, EncodedPacket, Encoding
from audiomixer.metadata import id3

PLAYLIST_TYPE: Final = "application/vnd.apple.mpegurl"
SEGMENT_TYPE: Final = "video/mp2t"

_PIECE: Final = 0.5
_PIECES_PER_SEGMENT: Final = 4
_SHORT_SEGMENTS: Final = 4
"""The first segments are of one piece only: a new stream can be played sooner."""
_LEAST: Final = 3
"""Segments before there is a playlist: Chromium's own HLS player fails on a live playlist of one."""
_WINDOW: Final = 6
"""Segments in the playlist."""
_KEPT: Final = 12
"""Segments in memory: who is late still gets those that have left the playlist."""


@dataclass
class _Segment:
    number: int
    started: datetime
    duration: float = 0.0
    pieces: list[bytes] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


class HlsOutput:
    """The playlists and segments of one stream, to be served by whoever serves.

    Args:
        bitrate: In kbit/s.
        prefix: What the names of segments begin with; one that cannot be guessed keeps them to those who have got a
            playlist, and lets caches hold them all the same.
        first: Number of the first segment.
        interruptions: How often the stream was interrupted before, in another process; it then goes on with a
            discontinuity.
    """

    active = True
    dropped = 0

    def __init__(self, bitrate: int, *, prefix: str = "", first: int = 0, interruptions: int = 0) -> None:
        self.encoding = Encoding("aac", bitrate)
        self._prefix = prefix
        self._first = first
        self._interruptions = interruptions
        self._muxing = threading.Lock()
        self._segments: deque[_Segment] = deque(maxlen=_KEPT)
        self._next: _Segment | None = None
        self._ended = False
        self._written = 0
        """Timestamp after the last packet."""
        self._cut: int | None = None

    async def start(self) -> None:
        """Opens the muxer."""
        self._piece = _Unclosed()
        self._container = av.open(
            "index.m3u8",
            "w",
            format="hls",
            options={
                "hls_time": str(_PIECE),
                "hls_flags": "split_by_time",
                "hls_list_size": "1",
            },
            io_open=self._open,
        )
        stream = self._container.add_stream(self.encoding.library, rate=SAMPLE_RATE)
        self.encoding.configure(stream.codec_context)
        self._audio = stream
        self._text = self._container.add_data_stream("timed_id3")
        self._container.start_encoding()

    def begin(self, began: datetime) -> None:
        """Dates are counted from `began`."""
        self._began = began.astimezone(UTC)

    def _open(self, url: str, flags: int, options: Any) -> io.BytesIO:
        """Called by the muxer when a piece has ended, to write it and then its own playlist, which nobody needs."""
        if url.endswith(".ts"):
            self._piece = _Unclosed()
            return self._piece
        self._end_piece()
        return io.BytesIO()

    def write(self, packets: Sequence[EncodedPacket]) -> None:
        """Takes AAC packets."""
        with self._muxing:
            self._mux(packets)

    def _mux(self, packets: Sequence[EncodedPacket]) -> None:
        for encoded in packets:
            packet = encoded.to_av()
            packet.stream = self._audio
            # The packet may end a piece: it is not in it.
            self._written = encoded.pts
            if self._cut is None:
                self._cut = encoded.pts
            self._container.mux_one(packet)
            self._written = encoded.pts + encoded.duration

    def write_metadata(self, text: str, time: float) -> None:
        """Takes a payload, which becomes an ID3 tag at its own time."""
        packet = av.Packet(id3(text))
        packet.pts = packet.dts = round(time * SAMPLE_RATE)
        packet.time_base = TIME_BASE
        packet.stream = self._text
        with self._muxing:
            if not self._ended:
                self._container.mux_one(packet)

    def _end_piece(self) -> None:
        cut = self._cut or 0
        segment = self._next
        if segment is None:
            number = self._segments[-1].number + 1 if self._segments else self._first
            segment = self._next = _Segment(number, self._time(cut))
        segment.pieces.append(self._piece.getvalue())
        segment.duration += (self._written - cut) / SAMPLE_RATE
        self._cut = self._written
        if len(segment.pieces) == (1 if segment.number < self._first + _SHORT_SEGMENTS else _PIECES_PER_SEGMENT):
            self._end_segment()

    def _end_segment(self) -> None:
        if self._next:
            self._segments.append(self._next)
            self._next = None

    def _time(self, pts: int) -> datetime:
        return self._began + timedelta(seconds=pts / SAMPLE_RATE)

    async def stop(self) -> None:
        """Ends the stream: players play what is there, and stop."""
        with self._muxing:
            self._container.close()
            self._end_segment()
            self._ended = True

    def master_playlist(self, query: str = "") -> str:
        """The playlist that players are given; it names `audio.m3u8`, followed by `query`.

        The audio-only group is what Amazon's IVS players look for.
        """
        return (
            "#EXTM3U\n#EXT-X-VERSION:6\n"
            '#EXT-X-MEDIA:TYPE=VIDEO,GROUP-ID="audio_only",NAME="audio_only",AUTOSELECT=NO,DEFAULT=NO\n'
            f"#EXT-X-STREAM-INF:BANDWIDTH={round(self.encoding.bitrate * 1150)},"
            f'AVERAGE-BANDWIDTH={round(self.encoding.bitrate * 1100)},CODECS="mp4a.40.2",VIDEO="audio_only"\n'
            f"audio.m3u8{query}\n"
        )

    def media_playlist(self) -> str | None:
        """The playlist `audio.m3u8` as of now; None until there is enough to play."""
        segments = list(self._segments)[-_WINDOW:]
        if not segments or (len(segments) < _LEAST and not self._ended):
            return None
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:6",
            f"#EXT-X-TARGETDURATION:{round(_PIECE * _PIECES_PER_SEGMENT)}",
            f"#EXT-X-MEDIA-SEQUENCE:{segments[0].number}",
            "#EXT-X-INDEPENDENT-SEGMENTS",
        ]
        if self._interruptions:
            lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{self._interruptions - (segments[0].number == self._first)}")
        for segment in segments:
            time = segment.started.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            if self._interruptions and segment.number == self._first:
                lines.append("#EXT-X-DISCONTINUITY")
            lines += [
                f"#EXT-X-PROGRAM-DATE-TIME:{time}",
                f"#EXTINF:{segment.duration:.5f},",
                self._name(segment),
            ]
        if self._ended:
            lines.append("#EXT-X-ENDLIST")
        return "\n".join(lines) + "\n"

    def _name(self, segment: _Segment) -> str:
        return f"{self._prefix}{segment.number}.ts"

    def segment(self, name: str) -> bytes | None:
        """The segment of this name, if it is still there."""
        return next((segment.data for segment in list(self._segments) if self._name(segment) == name), None)


class _Unclosed(io.BytesIO):
    """Keeps its contents when the muxer closes it."""

    def close(self) -> None:
        pass
