"""The audio itself, for bots: the mix, or each participant alone, as frames to iterate over."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from audiomixer.clock.broadcast import Broadcast
from audiomixer.clock.frame import FRAME_SIZE, SAMPLE_RATE

SAMPLE_RATES: Final = (16_000, 48_000)
_LIMIT: Final = 250
"""Five seconds of frames may wait for a reader, who then loses the oldest."""


@dataclass(frozen=True, slots=True, eq=False)
class MixFrame:
    """20 ms of the mix."""

    time: float
    """Seconds of the stream at which it begins."""
    samples: NDArray[np.float32]
    """float32 of shape `(960, 2)`, at 48 kHz."""


@dataclass(frozen=True, slots=True, eq=False)
class ParticipantFrame:
    """20 ms of what one participant is in the mix."""

    identity: str
    time: float
    """Seconds of the stream at which it begins."""
    samples: NDArray[np.float32]
    """float32, one channel, of shape `(960,)` at 48 kHz or `(320,)` at 16 kHz."""


Solos = tuple[float, Mapping[str, NDArray[np.float32]]]
"""Time, and 20 ms of each participant, at 48 kHz."""


class Taps:
    """Hands frames to readers, on the event loop."""

    def __init__(self) -> None:
        self.mix: Broadcast[MixFrame] = Broadcast(_LIMIT)
        self.solos: Broadcast[Solos] = Broadcast(_LIMIT)

    def close(self) -> None:
        """Readers get what is left, and the end."""
        self.mix.close()
        self.solos.close()


async def participant_frames(solos: AsyncIterator[Solos], sample_rate: int) -> AsyncIterator[ParticipantFrame]:
    """Frame by frame, everybody's, resampled if need be.

    Raises:
        ValueError: The sample rate is neither 16000 nor 48000.
    """
    downsamplers: dict[str, Downsampler] = {}
    async for time, by_identity in solos:
        for identity in downsamplers.keys() - by_identity.keys():
            del downsamplers[identity]
        for identity, samples in by_identity.items():
            if sample_rate == SAMPLE_RATE:
                yield ParticipantFrame(identity, time, samples)
                continue
            downsampler = downsamplers.get(identity)
            if downsampler is None:
                downsampler = downsamplers[identity] = Downsampler(sample_rate)
            for late, frame in downsampler.resample(samples):
                yield ParticipantFrame(identity, time - late, frame)


class Downsampler:
    """From 48 kHz, in frames of 20 ms, which come a little later than they were, as the filter needs."""

    def __init__(self, sample_rate: int) -> None:
        self._size = FRAME_SIZE * sample_rate // SAMPLE_RATE
        self._taken = self._given = 0
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate, frame_size=self._size)

    def resample(self, samples: NDArray[np.float32]) -> list[tuple[float, NDArray[np.float32]]]:
        """Frames of `(320,)` at 16 kHz, one, or none in the beginning; and by how many seconds each is late."""
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        resampled = [resampled.to_ndarray()[0] for resampled in self._resampler.resample(frame)]
        self._taken += 1
        late = [(self._taken - 1 - self._given - n) * FRAME_SIZE / SAMPLE_RATE for n in range(len(resampled))]
        self._given += len(resampled)
        return list(zip(late, resampled, strict=True))
