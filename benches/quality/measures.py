"""How good it sounds: PESQ wide-band and STOI of chunks, each aligned on its own."""

from dataclasses import dataclass

import numpy as np
from pesq import NoUtterancesError, pesq
from pystoi import stoi
from scipy.signal import correlate, resample_poly

from audiomixer.clock.frame import SAMPLE_RATE
from tests.signals import Signal

WARM_UP = 4.0
"""Seconds at the beginning that are not judged."""
CHUNK = 8.0
_RATE = 16_000
_MOST_DELAY = 1.5
"""What is played out later than this is not looked for."""
_SILENT = 1.0
"""The PESQ of a chunk without speech."""


@dataclass(frozen=True)
class Played:
    """What a receiver made of a stream."""

    samples: Signal
    """From the sending of the first packet on, mono at 48 kHz."""
    concealed: float
    """Share of it that was made up, in-band FEC excepted."""
    delay: float | None = None
    """Seconds in its jitter buffer, where only it can tell."""


@dataclass(frozen=True)
class Judged:
    """Means over the chunks."""

    pesq: float
    stoi: float
    delay: float
    """Seconds from the first sample sent to the first played, coding included."""
    concealed: float


def judge(sent: Signal, played: Played) -> Judged:
    """Compares what was played with what was sent."""
    reference, degraded = (
        np.asarray(resample_poly(signal, _RATE, SAMPLE_RATE), np.float32) for signal in (sent, played.samples)
    )
    degraded = np.append(degraded, np.zeros(round(_MOST_DELAY * _RATE), np.float32))
    size = round(CHUNK * _RATE)
    starts = range(round(WARM_UP * _RATE), len(reference) - size + 1, size)
    scores = []
    for start in starts:
        chunk = reference[start : start + size]
        around = degraded[start : start + size + round(_MOST_DELAY * _RATE)]
        lag = int(np.argmax(correlate(around, chunk, "valid")))
        heard = around[lag : lag + size]
        scores.append((_pesq(chunk, heard), stoi(chunk, heard, _RATE), lag / _RATE))
    quality, intelligibility, delay = np.mean(scores, axis=0)
    return Judged(float(quality), float(intelligibility), played.delay or float(delay), played.concealed)


def _pesq(reference: Signal, degraded: Signal) -> float:
    try:
        return float(pesq(_RATE, reference, degraded, "wb"))
    except NoUtterancesError:
        return _SILENT
