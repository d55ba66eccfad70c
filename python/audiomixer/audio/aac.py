"""AAC of a mix, both sides of which are alike as long as nobody sends stereo: one side is encoded, and written twice.

FFmpeg's encoder would write both as well, at the same bit rate. It codes most of the second as differences to the first
(intensity stereo), which saves bits for a little more quality, but takes two fifths more time.
"""

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audiomixer.audio.encoding import EncodedPacket, Encoder, Encoding
from audiomixer.clock.frame import SAMPLE_RATE

_FRAME: Final = 1024
_WARMING: Final = 3 * _FRAME
"""Samples that an encoder is given ahead, to be in the same state as the one that it takes over from."""
_KEPT: Final = 2 * _WARMING + 2 * _FRAME
_ALIKE: Final = 5 * SAMPLE_RATE
"""After so many samples with both sides alike, one is enough again."""


class AacEncoder:
    """Encodes two channels, in pieces of any length, as `Encoder` does.

    Args:
        encoding: AAC, of two channels.
        start: Time of the first sample, in 1/48000 s of the stream.
    """

    def __init__(self, encoding: Encoding, start: int = 0) -> None:
        self.encoding = encoding
        self._due = start - _FRAME
        """Time of the next packet."""
        self._kept = deque([np.zeros((_KEPT, 2), np.float32)])
        """The newest samples, in pieces."""
        self._length = _KEPT
        """How many they are, `_KEPT` or more."""
        self._alike = 0
        self._begin(start, alike=True)

    @property
    def next(self) -> int:
        """Time of the next sample, in 1/48000 s of the stream."""
        return self._encoder.next

    def encode(self, samples: NDArray[np.float32] | None) -> list[EncodedPacket]:
        """Encodes samples, which follow those before.

        Args:
            samples: float32 of shape `(n, 2)`, not to be changed afterwards; with None, what is left is encoded, after
                which the encoder is spent.
        """
        if samples is None:
            return self._take(self._encoder.encode(None))
        alike = bool((samples[:, 0] == samples[:, 1]).all())
        self._alike = self._alike + len(samples) if alike else 0
        packets = []
        if self._narrow != alike and (not alike or self._alike >= _ALIKE):
            packets = self._change(alike=alike)
        self._keep(samples)
        return packets + self._take(self._give(samples))

    def _keep(self, samples: NDArray[np.float32]) -> None:
        self._kept.append(samples)
        self._length += len(samples)
        while self._length - len(self._kept[0]) >= _KEPT:
            self._length -= len(self._kept.popleft())

    def _begin(self, start: int, *, alike: bool) -> None:
        self._narrow = alike
        """Whether one side is encoded for both."""
        if alike:
            # Not even the encoder's name may be in it.
            side = Encoding("aac", self.encoding.bitrate // 2, channels=1)
            self._encoder = Encoder(side, start, {"flags": "+bitexact"})
        else:
            self._encoder = Encoder(self.encoding, start)

    def _change(self, *, alike: bool) -> list[EncodedPacket]:
        """Goes on with another encoder, whose frames begin where those of the last one do."""
        end, start = self._encoder.next, self._due - _WARMING
        self._begin(start, alike=alike)
        kept = np.concatenate(self._kept)
        return self._take(self._give(kept[len(kept) - (end - start) :]))

    def _give(self, samples: NDArray[np.float32]) -> list[EncodedPacket]:
        return self._encoder.encode(np.ascontiguousarray(samples[:, :1]) if self._narrow else samples)

    def _take(self, packets: list[EncodedPacket]) -> list[EncodedPacket]:
        """What has not been given out yet."""
        due = [packet for packet in packets if packet.pts >= self._due]
        if due:
            self._due = due[-1].pts + due[-1].duration
        return (
            [EncodedPacket(twice(packet.data), packet.pts, packet.duration) for packet in due] if self._narrow else due
        )


def twice(frame: bytes) -> bytes:
    """A frame of AAC with two channels like the one that `frame` has.

    A single channel element becomes a channel pair element without a common window, whose two channel streams are the
    same (ISO/IEC 14496-3, 4.4.2.1).

    Args:
        frame: A raw data block with nothing but a single channel element.

    Raises:
        ValueError: It is something else.
    """
    bits = int.from_bytes(frame, "big")
    # The end is marked by three ones, and zeros until the next byte.
    rest = max(3, (bits & -bits).bit_length() + 2)
    stream_length = 8 * len(frame) - rest - 7
    if stream_length < 0 or frame[0] >> 5 or bits >> rest - 3 & 7 != 7:
        raise ValueError("frame: expected a single channel element")
    stream = bits >> rest & (1 << stream_length) - 1
    tag = frame[0] >> 1 & 15
    pair = (1 << 4 | tag) << 1
    pair = (((pair << stream_length | stream) << stream_length | stream) << 3) | 7
    length = 8 + 2 * stream_length + 3
    return (pair << -length % 8).to_bytes((length + 7) // 8, "big")
