"""Encodes the mix at a constrained bitrate, by PyAV."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal, TypeAlias, cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.resampler import AudioResampler
from av.codec import CodecContext
from numpy.typing import NDArray

SAMPLE_RATE: Final = 48_000
FRAME_SIZE: Final = 960
TIME_BASE: Final = Fraction(1, SAMPLE_RATE)
AvPacket: TypeAlias = "av.Packet[Any]"

BITRATES: Final = (128, 192)
"""The bitrates, in kbit/s, that a stream may have."""

Codec = Literal["aac", "opus", "mp3", "pcm"]

_MOST_STEERED: Final = 0.1
"""The encoder is asked for at most so much less than the bitrate."""

_ENCODERS: Final[dict[Codec, tuple[str, dict[str, str]]]] = {
    # Less than half the work of the default coder, at the same bitrate; most of what is said is alike on both sides.
    "aac": ("aac", {"aac_coder": "fast", "aac_ms": "1"}),
    "opus": ("libopus", {"vbr": "off", "compression_level": "5", "fec": "1", "packet_loss": "5"}),
    "mp3": ("libmp3lame", {}),
    "pcm": ("pcm_s16le", {}),
}


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
        context.layout = "stereo" if self.channels == 2 else "mono"
        context.bit_rate = self.bitrate * 1000
        context.time_base = TIME_BASE
        context.options = dict(_ENCODERS[self.codec][1])
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
        return packet


def to_av_frame(samples: NDArray[np.float32], pts: int) -> av.AudioFrame:
    """A new `av.AudioFrame` of float32 `samples` of shape `(n, channels)`, which are copied."""
    layout = "stereo" if samples.shape[1] == 2 else "mono"
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate = SAMPLE_RATE
    frame.pts = pts
    frame.time_base = TIME_BASE
    return frame


class Encoder:
    """Encodes one stream of frames of any length; their `pts` rises without gaps.

    Args:
        encoding: What to encode to.
        options: FFmpeg's options of the encoder, beyond the usual ones.
    """

    def __init__(self, encoding: Encoding, options: Mapping[str, str] | None = None) -> None:
        self.encoding = encoding
        self._context = cast("AudioCodecContext", av.CodecContext.create(encoding.library, "w"))
        encoding.configure(self._context)
        self._context.options |= options or {}
        self._context.open()
        self._resampler = AudioResampler(
            format=self._context.format,
            layout=self._context.layout,
            rate=SAMPLE_RATE,
            frame_size=self._context.frame_size or None,
        )
        self._debt = 0.0
        """Bits spent above the bitrate."""

    def encode(self, frame: av.AudioFrame | None) -> list[EncodedPacket]:
        """Encodes `frame`; with None, gives what is left, after which the encoder is spent."""
        packets = [
            packet
            for resampled in self._resampler.resample(frame)
            if resampled is not None
            for packet in self._context.encode(resampled)
        ]
        if frame is None:
            packets += self._context.encode(None)
        encoded = [
            EncodedPacket(bytes(packet), packet.pts, packet.duration or 0)
            for packet in packets
            if packet.pts is not None and packet.size
        ]
        if self.encoding.codec == "aac":
            self._steer(encoded)
        return encoded

    def _steer(self, packets: list[EncodedPacket]) -> None:
        """Keeps AAC to its bitrate, which the fast coder overshoots by up to 5 % for a single voice."""
        bitrate = self.encoding.bitrate * 1000
        for packet in packets:
            spent = 8 * len(packet.data) - bitrate * packet.duration / SAMPLE_RATE
            self._debt = max(-bitrate, self._debt + spent)
        self._context.bit_rate = round(bitrate * (1 - min(_MOST_STEERED, max(0.0, self._debt / bitrate))))
