"""Encodes the mix at a constrained bitrate, by PyAV."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.codec import CodecContext
from numpy.typing import NDArray

from audiomixer.clock.frame import SAMPLE_RATE, TIME_BASE

AvPacket: TypeAlias = "av.Packet[Any]"

BITRATES: Final = (128, 192)
"""The bitrates, in kbit/s, that a stream may have."""

Codec = Literal["aac", "opus", "mp3", "pcm"]

_MOST_STEERED: Final = 0.1
"""The encoder is asked for at most so much less than the bitrate, or more."""

_ENCODERS: Final[dict[Codec, tuple[str, dict[str, str]]]] = {
    # A third of the work of the defaults, and no difference that PESQ could tell at 128 kbit/s (4.49 of 4.5).
    "aac": ("aac", {"aac_coder": "fast", "aac_ms": "0", "aac_tns": "0"}),
    "opus": ("libopus", {"vbr": "off", "compression_level": "5", "fec": "1", "packet_loss": "5"}),
    "mp3": ("libmp3lame", {}),
    "pcm": ("pcm_s16le", {}),
}


_CELT_ONLY: Final = 128
"""From this bitrate on, Opus has no use for its voice codec: without it, it looks 2.5 ms ahead instead of 6.5."""
_LAYOUTS: Final = {1: "mono", 2: "stereo"}
_QUIET: Final = 0.01
"""AAC may leave bits unused where no sample is above this (−40 dBFS): FFmpeg's encoder tries hard to spend them, up to
six times a frame, and then as hard to save them when somebody speaks."""
_TOLERANT, _STRICT = 4_000_000, 0
"""Bit rate tolerance: FFmpeg's default, and what makes the bitrate a limit."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """What to encode to."""

    codec: Codec
    bitrate: int
    """In kbit/s; without meaning for PCM."""
    channels: int = 2

    @property
    def library(self) -> str:
        """FFmpeg's name of the encoder."""
        return _ENCODERS[self.codec][0]

    def configure(self, context: CodecContext) -> None:
        """Sets up an audio codec context, which is not open yet, for this encoding."""
        context = cast("AudioCodecContext", context)
        context.sample_rate = SAMPLE_RATE
        context.layout = _LAYOUTS[self.channels]
        context.bit_rate = self.bitrate * 1000
        context.time_base = TIME_BASE
        context.options = dict(_ENCODERS[self.codec][1])
        if self.codec == "opus" and self.bitrate >= _CELT_ONLY:
            context.options |= {"application": "lowdelay"}
        context.format = {"aac": "fltp", "opus": "flt", "mp3": "fltp", "pcm": "s16"}[self.codec]


@dataclass(frozen=True, slots=True)
class EncodedPacket:
    """Encoded audio, with times in 1/48000 s of the stream's own time."""

    data: bytes
    pts: int
    duration: int

    def to_av(self) -> AvPacket:
        """A new `av.Packet` of it."""
        packet = av.Packet(self.data)
        packet.pts = packet.dts = self.pts
        packet.duration = self.duration
        packet.time_base = TIME_BASE
        # Every packet of audio can be decoded by itself: players seek to where a container says so.
        packet.is_keyframe = True
        return packet


class Encoder:
    """Encodes one stream of samples, in pieces of any length.

    Args:
        encoding: What to encode to.
        start: Time of the first sample, in 1/48000 s of the stream.
        options: FFmpeg's options of the encoder, beyond the usual ones.
    """

    def __init__(self, encoding: Encoding, start: int = 0, options: Mapping[str, str] | None = None) -> None:
        self.encoding = encoding
        self._context = cast("AudioCodecContext", av.CodecContext.create(encoding.library, "w"))
        encoding.configure(self._context)
        self._context.options |= options or {}
        self._context.open()
        self.next = start
        """Time of the next sample, in 1/48000 s of the stream."""
        self._debt = 0.0
        """Bits spent above the bitrate."""

    def encode(self, samples: NDArray[np.float32] | None) -> list[EncodedPacket]:
        """Encodes samples, which follow those before.

        Args:
            samples: float32 of shape `(n, channels)`; with None, what is left is encoded, after which the encoder is
                spent.
        """
        if self.encoding.codec == "aac" and samples is not None:
            quiet = samples.size == 0 or max(samples.max(), -samples.min()) < _QUIET
            self._context.bit_rate_tolerance = _STRICT if quiet else _TOLERANT
        packets = self._context.encode(None if samples is None else self._frame(samples))
        encoded = [
            EncodedPacket(bytes(packet), packet.pts, packet.duration or 0)
            for packet in packets
            if packet.pts is not None and packet.size
        ]
        if self.encoding.codec == "aac":
            self._steer(encoded)
        return encoded

    def _frame(self, samples: NDArray[np.float32]) -> av.AudioFrame:
        """A frame of any length: the codec context converts it, and cuts the stream as its encoder wants it."""
        layout = _LAYOUTS[self.encoding.channels]
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = SAMPLE_RATE
        frame.pts = self.next
        frame.time_base = TIME_BASE
        self.next += len(samples)
        return frame

    def _steer(self, packets: list[EncodedPacket]) -> None:
        """Keeps AAC to its bitrate, which the fast coder overshoots by up to 5 % for a single voice."""
        bitrate = self.encoding.bitrate * 1000
        for packet in packets:
            spent = 8 * len(packet.data) - bitrate * packet.duration / SAMPLE_RATE
            self._debt = max(-bitrate, self._debt + spent)
        steered = max(-_MOST_STEERED, min(_MOST_STEERED, self._debt / bitrate))
        self._context.bit_rate = round(bitrate * (1 - steered))
