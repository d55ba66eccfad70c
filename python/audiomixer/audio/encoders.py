"""Encodes one mix to whatever is wanted at the moment, once for each encoding.

What has to be heard at once is encoded at once; for the rest, blocks of the mix are encoded in the background: an
encoder that has to be fetched into the cache for each frame takes half as long again.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audiomixer.audio.aac import AacEncoder
from audiomixer.audio.encoding import Codec, EncodedPacket, Encoder, Encoding
from audiomixer.clock.background import Line
from audiomixer.clock.frame import BLOCK, FRAME_SIZE

_AT_ONCE: Final[frozenset[Codec]] = frozenset({"opus"})

_MOST_WAITING: Final = 20
"""Blocks that may wait to be encoded, two seconds of them; then new ones are left out, and counted…"""
_FEW_WAITING: Final = 10
"""…until no more than these wait: one gap is better than many."""

_phases = itertools.count()
"""Mixes end their blocks in turn, not all at the same tick."""

_AnyEncoder = Encoder | AacEncoder

_log = logging.getLogger(__name__)


class Encoders:
    """The encoders of one mix.

    Args:
        wanted: Gives the encodings that are wanted now. One that was not wanted for a while begins anew.
        write: Is given what was encoded, by the thread that mixes or by another.
        fail: Is told of an encoding that failed, and why, likewise; there will be nothing more of it.
    """

    def __init__(
        self,
        wanted: Callable[[], Iterable[Encoding]],
        write: Callable[[Encoding, list[EncodedPacket]], None],
        fail: Callable[[Encoding, Exception], None],
    ) -> None:
        self._wanted = wanted
        self._write = write
        self._fail = fail
        self.left_out = 0
        """Frames that silence stands for, as too many waited to be encoded already."""
        self._leaving_out = False
        self._failed: set[Encoding] = set()
        self._at_once: dict[Encoding, _AnyEncoder] = {}
        self._in_blocks: dict[Encoding, _AnyEncoder] = {}
        self._line = Line()
        self._ending = threading.Lock()
        self._block = np.zeros((2 * BLOCK * FRAME_SIZE, 2), np.float32)
        """What is not encoded yet: up to four frames, and what is just added."""
        self._blocked = 0
        """Frames in it."""
        self._asked: set[Encoding] = set()
        """What the last block is to be encoded to."""
        self._phase = next(_phases) % BLOCK
        self._frames = 0

    @property
    def patient(self) -> bool:
        """Whether nothing is wanted that has to be heard at once."""
        return not any(encoding.codec in _AT_ONCE for encoding in self._wanted())

    def encode(self, samples: NDArray[np.float32]) -> None:
        """Encodes the next frames, or keeps them for their block.

        Args:
            samples: float32 of shape `(n * 960, 2)`.
        """
        now = {encoding for encoding in self._wanted() if encoding.codec in _AT_ONCE}
        self._at_once = self._encode(self._at_once, now, samples, self._frames)
        self._block[self._blocked * FRAME_SIZE :][: len(samples)] = samples
        self._blocked += len(samples) // FRAME_SIZE
        blocks = (self._frames + self._phase) // BLOCK
        self._frames += len(samples) // FRAME_SIZE
        if (self._frames + self._phase) // BLOCK > blocks:
            self._end_block()

    def then(self, job: Callable[[], None]) -> None:
        """Has something done when all until now has been encoded; not to be called while `encode` is."""
        self._end_block()
        end = self._frames * FRAME_SIZE
        self._line.add(lambda: self._fill(end))
        self._line.add(job)

    def flush(self) -> None:
        """Encodes what is left, and waits until that is done; there is no more to come."""
        self.then(self._spend)
        self._line.finish()

    def _fill(self, end: int) -> None:
        """Has silence stand for what was left out just before `end`."""
        for encoding, encoder in self._in_blocks.items():
            if encoder.next < end and encoding not in self._failed:
                self._give(encoding, encoder, np.zeros((end - encoder.next, 2), np.float32), encoder.next)

    def _spend(self) -> None:
        for encoding, encoder in (self._at_once | self._in_blocks).items():
            if encoding not in self._failed:
                self._give(encoding, encoder, None, encoder.next)

    def _end_block(self) -> None:
        with self._ending:
            frames, self._blocked = self._blocked, 0
            wanted = {encoding for encoding in self._wanted() if encoding.codec not in _AT_ONCE}
            if not frames or not (wanted or self._asked):
                return
            self._leaving_out = self._line.waiting >= (_FEW_WAITING + 1 if self._leaving_out else _MOST_WAITING)
            if self._leaving_out:
                self.left_out += frames
                return
            self._asked = wanted
            block, first = self._block[: frames * FRAME_SIZE].copy(), self._frames - frames

            def encode() -> None:
                self._in_blocks = self._encode(self._in_blocks, wanted, block, first)

            self._line.add(encode)

    def _encode(
        self, encoders: dict[Encoding, _AnyEncoder], wanted: set[Encoding], samples: NDArray[np.float32], first: int
    ) -> dict[Encoding, _AnyEncoder]:
        """Encodes `samples`, the `first` of which is the stream's frame of this number; gives the encoders in use."""
        used = {}
        for encoding in wanted - self._failed:
            encoder = self._give(encoding, encoders.get(encoding), samples, first * FRAME_SIZE)
            if encoder:
                used[encoding] = encoder
        return used

    def _give(
        self, encoding: Encoding, encoder: _AnyEncoder | None, samples: NDArray[np.float32] | None, start: int
    ) -> _AnyEncoder | None:
        """Encodes and writes samples that begin at `start`, with silence before them if any were left out.

        Returns:
            The encoder, a new one if there was none; None if it failed.
        """
        try:
            encoder = encoder or _make(encoding, start)
            if encoder.next < start:
                self._write(encoding, encoder.encode(np.zeros((start - encoder.next, 2), np.float32)))
            self._write(encoding, encoder.encode(samples))
        except Exception as error:
            _log.exception("%r failed", encoding)
            self._failed.add(encoding)
            self._fail(encoding, error)
            return None
        return encoder


def _make(encoding: Encoding, start: int) -> _AnyEncoder:
    return (
        AacEncoder(encoding, start) if encoding.codec == "aac" and encoding.channels == 2 else Encoder(encoding, start)
    )
