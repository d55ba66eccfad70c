"""HLS playlists as text (RFC 8216, and its second edition, draft-pantos-hls-rfc8216bis, for low latency)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

TARGET: Final = 1
"""Seconds of a segment, at most, rounded. Players without low latency stay three of them behind."""
PART_TARGET: Final = 0.35
"""Seconds of a part, at most."""
PART_HOLD_BACK: Final = 3.2 * PART_TARGET
"""Seconds behind the end of the playlist at which low-latency players should play; three parts at least."""
SKIP_UNTIL: Final = 6 * TARGET
"""Segments that begin longer before the end of the playlist may be left out of an update."""
_WITH_PARTS: Final = 3
"""The newest so many segments are listed with their parts as well."""
_LOW_LATENCY: Final = (
    f"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={PART_HOLD_BACK:.3f},CAN-SKIP-UNTIL={SKIP_UNTIL:.1f}",
    f"#EXT-X-PART-INF:PART-TARGET={PART_TARGET}",
)


@dataclass(slots=True)
class Part:
    """A third of a second or so, which begins with what a player needs to begin."""

    data: bytes
    duration: float


@dataclass(slots=True)
class Segment:
    """A number of parts."""

    number: int
    started: datetime
    parts: list[Part] = field(default_factory=list)
    discontinuity: bool = False
    """Whether it does not follow the one before."""
    gap: bool = False
    """Whether there is nothing in it, as the stream was interrupted: players keep their place by it."""
    prefix: str | None = None
    """What its name begins with, if that is not as of the others."""

    @property
    def duration(self) -> float:
        """In seconds."""
        return sum(part.duration for part in self.parts)

    @property
    def data(self) -> bytes:
        """Its parts, joined."""
        return b"".join(part.data for part in self.parts)


def segment_name(prefix: str, number: int) -> str:
    """What a segment is called."""
    return f"{prefix}{number}.ts"


def part_name(prefix: str, number: int, part: int) -> str:
    """What a part of a segment is called."""
    return f"{prefix}{number}.{part}.ts"


def master_playlist(bitrate: int, query: str) -> str:
    """The playlist that players are given; it names `audio.m3u8`, followed by `query`.

    An audio-only group named so is what Amazon's IVS players look for. (If it were referred to, Shaka would not play.)
    """
    return (
        "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-INDEPENDENT-SEGMENTS\n"
        '#EXT-X-MEDIA:TYPE=VIDEO,GROUP-ID="audio_only",NAME="audio_only",AUTOSELECT=NO,DEFAULT=NO\n'
        f"#EXT-X-STREAM-INF:BANDWIDTH={round(bitrate * 1150)},AVERAGE-BANDWIDTH={round(bitrate * 1100)},"
        'CODECS="mp4a.40.2"\n'
        f"audio.m3u8{query}\n"
    )


def media_playlist(
    segments: Sequence[Segment],
    current: Segment | None,
    *,
    prefix: str,
    discontinuities: int,
    ended: bool,
    skip: bool = False,
    low_latency: bool = True,
) -> str:
    """The playlist of a stream.

    Args:
        segments: Those that are complete, the oldest first.
        current: The one that is being made.
        prefix: What the names of segments begin with.
        discontinuities: Those that have left the playlist.
        ended: Whether nothing more will come.
        skip: To leave out what the client has seen already.
        low_latency: Whether parts of segments are served, and requests wait for them.
    """
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{9 if low_latency else 6}",
        f"#EXT-X-TARGETDURATION:{TARGET}",
        *(_LOW_LATENCY if low_latency else []),
        f"#EXT-X-MEDIA-SEQUENCE:{segments[0].number if segments else current.number if current else 0}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]
    if discontinuities:
        lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuities}")
    skipped = _skippable(segments, current) if skip else 0
    if skipped:
        lines.append(f"#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}")
    for index, segment in enumerate(segments[skipped:], skipped):
        lines += _beginning(segment)
        if segment.gap:
            lines.append("#EXT-X-GAP")
        elif low_latency and index >= len(segments) - _WITH_PARTS and not ended:
            lines += _parts(segment, prefix)
        name = segment_name(prefix if segment.prefix is None else segment.prefix, segment.number)
        lines += [f"#EXTINF:{segment.duration:.5f},", name]
    if current and low_latency:
        lines += _beginning(current) + _parts(current, prefix)
    if ended:
        lines.append("#EXT-X-ENDLIST")
    elif low_latency:
        number = current.number if current else segments[-1].number + 1
        following = part_name(prefix, number, len(current.parts) if current else 0)
        lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{following}"')
    return "\n".join(lines) + "\n"


def _beginning(segment: Segment) -> list[str]:
    time = segment.started.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return [*(["#EXT-X-DISCONTINUITY"] if segment.discontinuity else []), f"#EXT-X-PROGRAM-DATE-TIME:{time}"]


def _parts(segment: Segment, prefix: str) -> list[str]:
    return [
        f'#EXT-X-PART:DURATION={part.duration:.5f},URI="{part_name(prefix, segment.number, index)}",INDEPENDENT=YES'
        for index, part in enumerate(segment.parts)
    ]


def _skippable(segments: Sequence[Segment], current: Segment | None) -> int:
    """How many of the oldest segments begin further from the end than players look back."""
    behind = sum(segment.duration for segment in segments) + (current.duration if current else 0.0)
    count = 0
    for segment in segments:
        if behind - segment.duration < SKIP_UNTIL:
            break
        behind -= segment.duration
        count += 1
    return count
