"""One participant on the left and all others on the right, for those who edit interviews."""

from collections.abc import Mapping
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from audiomixer.audio.encoding import Encoder
from audiomixer.clock.background import Line
from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.outputs.base import Output, explain

_LIMIT: Final = 500
"""Frames that may wait to be encoded, 10 s of them; then new ones are dropped, and are silence."""


class DualRecorder:
    """Encodes participants alone for an output that nobody else writes to.

    Args:
        identity: Who is on the left.
        output: What is given the packets.
    """

    def __init__(self, identity: str, output: Output) -> None:
        self._identity = identity
        self._output = output
        self._encoder = Encoder(output.encoding)
        self._line = Line()
        self._frames = 0
        """Encoded."""
        self.dropped = 0
        self.error = ""
        """Why it cannot be encoded, if it cannot."""

    def start(self) -> None:
        """There is nothing to open."""

    def write(self, frame: int, solos: Mapping[str, NDArray[np.float32]]) -> None:
        """Takes what everybody was in the frame of this number."""
        if self._line.waiting < _LIMIT:
            self._line.add(lambda: self._encode(frame, solos))
        else:
            self.dropped += 1

    def _encode(self, frame: int, solos: Mapping[str, NDArray[np.float32]]) -> None:
        while self._frames < frame:
            self._put(np.zeros((FRAME_SIZE, 2), np.float32))
        both = np.zeros((FRAME_SIZE, 2), np.float32)
        for identity, samples in solos.items():
            both[:, 0 if identity == self._identity else 1] += samples
        try:
            self._put(np.clip(both, -1, 1))
        except (OSError, av.FFmpegError) as error:
            self.error = explain(error)

    def _put(self, samples: NDArray[np.float32]) -> None:
        self._output.write(self._encoder.encode(samples))
        self._frames += 1

    def stop(self) -> None:
        """Encodes what is left."""
        self._line.add(lambda: self._output.write(self._encoder.encode(None)))
        self._line.finish()
