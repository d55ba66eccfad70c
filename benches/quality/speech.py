"""Real speech: a LibriVox reader (public domain) from Debian's `pocketsphinx-testdata`."""

from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from audiomixer.clock.frame import SAMPLE_RATE
from tests.signals import Signal

_FOLDER = Path("/usr/share/pocketsphinx/test/data/librivox")
_PEAK = 0.5


def speech() -> Signal:
    """25 s of it, mono at 48 kHz."""
    recordings = sorted(_FOLDER.glob("*.wav"))
    if not recordings:
        raise FileNotFoundError(f"{_FOLDER}: apt-get install pocketsphinx-testdata")
    sentences = []
    for recording in recordings:
        rate, samples = wavfile.read(recording)
        sentences.append(resample_poly(samples.astype(np.float32), SAMPLE_RATE, rate))
    signal = np.concatenate(sentences)
    return np.asarray(signal * (_PEAK / np.abs(signal).max()), np.float32)
