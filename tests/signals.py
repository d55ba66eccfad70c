"""Test signals, and how to look at them. All are float32 at 48 kHz unless said otherwise."""

from importlib.resources import files

import av
import numpy as np
from numpy.typing import NDArray

from audiomixer.clock.frame import FRAME_SIZE, SAMPLE_RATE

Signal = NDArray[np.float32]


def sine(frequency: float, amplitude: float, seconds: float) -> Signal:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def noise(dbfs: float, seconds: float, seed: int = 1) -> Signal:
    samples = np.random.default_rng(seed).normal(0, 10 ** (dbfs / 20), round(seconds * SAMPLE_RATE))
    return samples.astype(np.float32)


def stereo(signal: Signal) -> Signal:
    return np.repeat(signal[:, None], 2, axis=1)


def frames(signal: Signal) -> list[Signal]:
    """20 ms pieces; what is left over is left out."""
    count = len(signal) // FRAME_SIZE
    return [np.ascontiguousarray(signal[n * FRAME_SIZE : (n + 1) * FRAME_SIZE]) for n in range(count)]


def speech(speaker: str = "alice") -> Signal:
    """What a speaker of the demo says."""
    with (
        (files("audiomixer.service") / "speech" / f"{speaker}.opus").open("rb") as file,
        av.open(file, "r") as container,
    ):
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        pieces = [r.to_ndarray()[0] for frame in container.decode(audio=0) for r in resampler.resample(frame)]
    return np.concatenate(pieces)


def rms(signal: Signal) -> float:
    return float(np.sqrt(np.mean(np.square(signal, dtype=np.float64))))


def decibels(ratio: float) -> float:
    return 20 * float(np.log10(max(ratio, 1e-12)))


def level_at(signal: Signal, frequency: float, sample_rate: int = SAMPLE_RATE) -> float:
    """Amplitude of the sine of `frequency` in a mono `signal`."""
    window = np.hanning(len(signal))
    time = np.arange(len(signal)) / sample_rate
    return 2 * abs(np.sum(signal * window * np.exp(-2j * np.pi * frequency * time))) / float(np.sum(window))


def thd_n(signal: Signal, frequency: float) -> float:
    """What is not the sine of `frequency`, in dB below it."""
    angle = 2 * np.pi * frequency * np.arange(len(signal)) / SAMPLE_RATE
    basis = np.stack([np.sin(angle), np.cos(angle), np.ones_like(angle)], axis=1)
    fitted = basis @ np.linalg.lstsq(basis, signal.astype(np.float64), rcond=None)[0]
    return decibels(rms((signal - fitted).astype(np.float32)) / rms(fitted.astype(np.float32)))
