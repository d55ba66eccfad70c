"""What taking noise off does to speech, by PESQ, and what it costs: `python -m benches.denoise` (extra `quality`)."""

import time
from collections.abc import Callable

import numpy as np
from pesq import pesq
from scipy.signal import resample_poly

from audiomixer import Mixer
from audiomixer.clock.frame import SAMPLE_RATE
from tests.signals import Signal, frames, rms, speech

SPEAKERS = ("alice", "bob", "carol")
SECONDS = 8
DELAY = 480 + round(Mixer().latency * SAMPLE_RATE)
RATIOS = (5, 10, 15)
"""Speech to noise, in decibels."""


def shaped(shape: Callable[[Signal], Signal], random: np.random.Generator) -> Signal:
    """Noise with this much of each frequency."""
    samples = SECONDS * SAMPLE_RATE
    spectrum = np.fft.rfft(random.normal(0, 1, samples))
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    return np.asarray(np.fft.irfft(spectrum * shape(frequencies + 1)))


def keyboard(random: np.random.Generator) -> Signal:
    """Seven keys a second."""
    noise = np.zeros(SECONDS * SAMPLE_RATE)
    for at in random.integers(0, len(noise) - 1200, 7 * SECONDS):
        noise[at : at + 1200] += random.normal(0, 1, 1200) * np.exp(-np.arange(1200) / 200)
    return noise


NOISES: dict[str, Callable[[np.random.Generator], Signal]] = {
    "hiss": lambda random: shaped(lambda f: np.ones_like(f), random),
    "fan": lambda random: shaped(lambda f: (f > 40) / np.hypot(1, f / 200) / np.hypot(1, f / 2000), random),
    "street": lambda random: shaped(lambda f: 1 / np.sqrt(f + 20), random),
    "keyboard": keyboard,
}


def mixed(signal: Signal) -> Signal:
    """What comes out."""
    mixer = Mixer()
    mixer.denoise = True
    talker = mixer.add_participant("talker")
    out = []
    for n, piece in enumerate(frames(signal.astype(np.float32))):
        talker.push_pcm(piece)
        out.append(mixer.mix(n * 0.02)[:, 0])
    return np.concatenate(out)[DELAY:]


def score(clean: Signal, heard: Signal) -> float:
    """PESQ, wideband."""
    length = min(len(clean), len(heard))
    one, other = (resample_poly(np.clip(signal[:length], -1, 1), 1, 3) for signal in (clean, heard))
    return float(pesq(16_000, one, other, "wb"))


def cost(denoise: bool) -> float:
    """Milliseconds of a core per second of one who speaks."""
    mixer = Mixer()
    mixer.denoise = denoise
    talker = mixer.add_participant("talker")
    pieces = frames(np.tile(speech(), 4)[: 20 * SAMPLE_RATE])
    began = time.process_time()
    for n, piece in enumerate(pieces):
        talker.push_pcm(piece)
        mixer.mix(n * 0.02)
    return (time.process_time() - began) / 20 * 1000


def main() -> None:
    """Prints all of it."""
    talks = [np.tile(speech(speaker), 3)[: SECONDS * SAMPLE_RATE] for speaker in SPEAKERS]
    talks = [talk * 0.1 / rms(talk) for talk in talks]
    clean = [score(talk, mixed(talk)) for talk in talks]
    untouched = [score(talk, talk) for talk in talks]
    print(f"{'':<10}{'dB':>4}{'before':>8}{'after':>8}")
    print(f"{'no noise':<10}{'':>4}{np.mean(untouched):8.2f}{np.mean(clean):8.2f}")
    for name, make in NOISES.items():
        for ratio in RATIOS:
            before, after = [], []
            for number, talk in enumerate(talks):
                noise = make(np.random.default_rng(number))[: len(talk)]
                noisy = talk + noise * 0.1 / 10 ** (ratio / 20) / rms(noise)
                before.append(score(talk, noisy))
                after.append(score(talk, mixed(noisy)))
            print(f"{name:<10}{ratio:>4}{np.mean(before):8.2f}{np.mean(after):8.2f}")
    print(f"cost of a speaker: {cost(True):.2f} ms/s, {cost(False):.2f} without")


if __name__ == "__main__":
    main()
