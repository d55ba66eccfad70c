"""Encodes one mix to whatever is wanted at the moment, once for each encoding."""

import itertools
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audiomixer.encoding import FRAME_SIZE, Codec, EncodedPacket, Encoder, Encoding

_BLOCK: Final = 5
"""Where 20 ms do not matter, frames are encoded in blocks of so many: an encoder that has to be fetched into the cache
for each frame takes half as long again."""
_AT_ONCE: Final[frozenset[Codec]] = frozenset({"opus"})

_phases = itertools.count()
"""Mixes end their blocks in turn, not all at the same tick."""


class Encoders:
    """The encoders of one mix.

    Args:
        wanted: Gives the encodings that are wanted now. One that was not wanted for a while begins anew.
        write: Is given what was encoded.
    """

    def __init__(
        self, wanted: Callable[[], Iterable[Encoding]], write: Callable[[Encoding, list[EncodedPacket]], None]
    ) -> None:
        self._wanted = wanted
        self._write = write
        self._encoders: dict[Encoding, Encoder] = {}
        self._block = np.zeros((_BLOCK * FRAME_SIZE, 2), np.float32)
        self._blocked = 0
        """Frames in the block."""
        self._phase = next(_phases) % _BLOCK
        self._frames = 0

    def encode(self, samples: NDArray[np.float32]) -> None:
        """Encodes the next frame, or keeps it for its block.

        Args:
            samples: float32 of shape `(960, 2)`.
        """
        self._encode({encoding for encoding in self._wanted() if encoding.codec in _AT_ONCE}, samples, self._frames)
        self._block[self._blocked * FRAME_SIZE :][:FRAME_SIZE] = samples
        self._blocked += 1
        self._frames += 1
        if (self._frames + self._phase) % _BLOCK == 0:
            self._end_block()

    def flush(self) -> None:
        """Encodes what is left; there is no more to come."""
        self._end_block()
        for encoding, encoder in self._encoders.items():
            self._write(encoding, encoder.encode(None))

    def _end_block(self) -> None:
        block, self._blocked = self._blocked, 0
        if block:
            wanted = {encoding for encoding in self._wanted() if encoding.codec not in _AT_ONCE}
            self._encode(wanted, self._block[: block * FRAME_SIZE], self._frames - block)
        # Those that nobody wants any more have fallen behind.
        end = self._frames * FRAME_SIZE
        self._encoders = {encoding: encoder for encoding, encoder in self._encoders.items() if encoder.next == end}

    def _encode(self, encodings: set[Encoding], samples: NDArray[np.float32], first: int) -> None:
        """Encodes `samples`, the `first` of which is the stream's frame of this number."""
        for encoding in encodings:
            encoder = self._encoders.get(encoding)
            if encoder is None or encoder.next != first * FRAME_SIZE:
                encoder = self._encoders[encoding] = Encoder(encoding, first * FRAME_SIZE)
            self._write(encoding, encoder.encode(samples))
