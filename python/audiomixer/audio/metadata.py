"""Timed metadata: who is how loud, every 500 ms, as JSON and as ID3."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

_OWNER = b"metadata.live-video.net\0"
"""Owner of the ID3 PRIV frame in which the players of the retired service look for text."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A participant's volume over the last interval."""

    v: int
    """RMS on a 16-bit scale, 0 … 32767; -1 while muted."""


@dataclass(frozen=True, slots=True)
class TimedMetadata:
    """One payload."""

    s: int
    """Sequence number: rises by one with every payload of a stream."""
    p: Mapping[str, Volume]
    """Volumes by identity."""
    time: float
    """Seconds of the stream's own time at which the interval ended."""

    @classmethod
    def of(cls, s: int, volumes: Mapping[str, int], time: float) -> "TimedMetadata":
        """Makes a payload of volumes as `Mixer.volumes` gives them."""
        return cls(s, {identity: Volume(v) for identity, v in volumes.items()}, time)

    def to_json(self) -> str:
        """The payload as players expect it: `{"s": 23, "p": {"alice": {"v": 300}, "bob": {"v": -1}}}`."""
        volumes = {identity: {"v": volume.v} for identity, volume in self.p.items()}
        return json.dumps({"s": self.s, "p": volumes}, ensure_ascii=False)


def id3(text: str) -> bytes:
    """An ID3v2.4 tag with one PRIV frame that holds `text` (id3.org, ID3v2.4.0 structure 3.1 and frames 4.27)."""
    body = _OWNER + text.encode()
    frame = b"PRIV" + _synchsafe(len(body)) + b"\0\0" + body
    return b"ID3\x04\0\0" + _synchsafe(len(frame)) + frame


def _synchsafe(number: int) -> bytes:
    """28 bits in four bytes of seven."""
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def on_text_data(text: str) -> bytes:
    """The script data of an FLV tag, or of an RTMP data message, that carries `text`: `onTextData` in AMF 0."""
    return _amf_string(b"onTextData") + b"\x08" + (1).to_bytes(4) + _amf_text(text.encode()) + b"\0\0\x09"


def _amf_text(text: bytes) -> bytes:
    return len(b"text").to_bytes(2) + b"text" + _amf_string(text)


def _amf_string(text: bytes) -> bytes:
    if len(text) < 2**16:
        return b"\x02" + len(text).to_bytes(2) + text
    return b"\x0c" + len(text).to_bytes(4) + text
