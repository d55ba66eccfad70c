"""What is told of a recording once it is complete: how long and how loud it is, and what it looks like."""

import math
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from audiomixer._core import Meter
from audiomixer.clock.frame import SAMPLE_RATE

_BACKGROUND: Final = (16, 18, 24)
_INK: Final = (94, 196, 160)


@dataclass(frozen=True, slots=True)
class Survey:
    """A recording as a whole."""

    seconds: float
    loudness: float | None
    """Integrated, in LUFS (EBU R 128); None if it is silent."""
    true_peak: float | None
    """In dBTP; None likewise."""
    outline: tuple[int, ...]
    """Peaks, 0 to 100, of stretches that are all as long: at most 1000."""


def survey(path: str) -> Survey:
    """Listens to a recording from beginning to end, as far as it can be read. To be called off the event loop.

    Raises:
        OSError: It cannot be opened, or there is no audio in it.
        av.FFmpegError: It cannot be read.
    """
    samples = 0
    with av.open(path) as container:
        if not container.streams.audio:
            raise OSError("there is no audio in it")
        channels = min(container.streams.audio[0].codec_context.channels, 2)
        meter = Meter(SAMPLE_RATE, channels)
        layout = "stereo" if channels == 2 else "mono"
        resampler = av.AudioResampler(format="flt", layout=layout, rate=SAMPLE_RATE)
        # A process that died has written no more than it has.
        try:
            for frame in container.decode(audio=0):
                for resampled in resampler.resample(frame):
                    meter.add(resampled.to_ndarray().astype(np.float32, copy=False).reshape(-1, channels))
                    samples += resampled.samples
        except av.FFmpegError:
            if not samples:
                raise
    outline = tuple(int(peak) for peak in np.rint(np.minimum(meter.outline(), 1) * 100))
    return Survey(samples / SAMPLE_RATE, _finite(meter.loudness), _finite(meter.true_peak), outline)


def _finite(decibels: float) -> float | None:
    return round(decibels, 1) if math.isfinite(decibels) else None


def draw(outline: tuple[int, ...], width: int, height: int) -> bytes:
    """An outline as a PNG of `width` by `height` pixels."""
    columns = _columns(np.array(outline or (0,), np.float32) / np.float32(100), width)
    middle = (height - 1) / 2
    distance = np.abs(np.arange(height)[:, None] - middle)
    # Silence is a line, not nothing.
    inked = distance <= np.maximum(columns * middle, 0.5)
    pixels = np.where(inked[:, :, None], np.array(_INK, np.uint8), np.array(_BACKGROUND, np.uint8))
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels.astype(np.uint8)), format="rgb24")
    file = BytesIO()
    with av.open(file, "w", format="image2pipe") as container:
        stream = container.add_stream("png", width=width, height=height, pix_fmt="rgb24")
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    return file.getvalue()


def _columns(peaks: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """The highest peak of each column."""
    edges = np.linspace(0, len(peaks), width + 1)
    return np.array(
        [peaks[int(a) : max(int(a) + 1, math.ceil(b))].max() for a, b in pairwise(edges)],
        np.float32,
    )
