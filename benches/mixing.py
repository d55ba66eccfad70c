"""Mixing, metering and mute detection: `Mixer` beside LiveKit's `rtc.AudioMixer` and NumPy, in one run.

Each mixes the same 50 participants, 48 kHz stereo, 20 ms at a time: quiet ones, whose sum needs no limiter, and loud
ones, whose sum does. Prints microseconds per participant and frame, the median round and the best one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from statistics import median

import numpy as np
from livekit import rtc

from audiomixer import Mixer

PARTICIPANTS = 50
ROUNDS = 1000
PEER_FRAMES = 100
PEER_RUNS = 5
LEVELS = {"quiet": 0.01, "loud": 0.3}
"""RMS of each participant."""

Costs = tuple[float, float]
"""Median and best."""


def noise(level: float) -> np.ndarray:
    return np.random.default_rng(1).normal(0, level, (PARTICIPANTS, 960, 2)).astype(np.float32)


def timed(prepare: Callable[[], None], work: Callable[[], object]) -> Costs:
    """What `work` costs, in µs per participant; `prepare` does not count."""
    costs = []
    for _ in range(ROUNDS):
        prepare()
        start = time.perf_counter()
        work()
        costs.append((time.perf_counter() - start) * 1e6 / PARTICIPANTS)
    return median(costs), min(costs)


def mixing_and_pushing(frames: np.ndarray) -> tuple[Costs, Costs]:
    """`Mixer.mix_into`, limiter included, and `Participant.push_pcm`."""
    mixer = Mixer()
    participants = [mixer.add_participant(str(n)) for n in range(PARTICIPANTS)]
    out = np.zeros((960, 2), np.float32)

    def push() -> None:
        for participant, frame in zip(participants, frames, strict=True):
            participant.push_pcm(frame)

    def mix() -> None:
        mixer.mix_into(out, 0.0)

    return timed(push, mix), timed(mix, push)


def copying(frames: np.ndarray) -> Costs:
    """A copy of the same samples by NumPy."""
    out = np.zeros((960, 2), np.float32)

    def copy() -> None:
        for frame in frames:
            out[:] = frame

    return timed(lambda: None, copy)


def numpy(frames: np.ndarray) -> Costs:
    """The same with NumPy: sum, RMS and peak of each, and a clip in place of the limiter."""
    bus = np.zeros((960, 2), np.float32)

    def mix() -> None:
        bus.fill(0)
        for frame in frames:
            np.add(bus, frame, out=bus)
            flat = frame.reshape(-1)
            np.dot(flat, flat)
            max(flat.max(), -flat.min())
        np.clip(bus, -1, 1, out=bus)

    return timed(lambda: None, mix)


async def livekit(frames: np.ndarray) -> float:
    """`livekit.rtc.AudioMixer`: it only sums and clips."""
    pcm = [(frame * 32767).astype(np.int16).tobytes() for frame in frames]

    async def stream(data: bytes) -> AsyncIterator[rtc.AudioFrame]:
        for _ in range(PEER_FRAMES):
            yield rtc.AudioFrame(data, 48_000, 2, 960)

    mixer = rtc.AudioMixer(48_000, 2, blocksize=960, capacity=PEER_FRAMES)
    for data in pcm:
        mixer.add_stream(stream(data))
    mixer.end_input()
    start = time.perf_counter()
    count = 0
    async for _ in mixer:
        count += 1
    return (time.perf_counter() - start) * 1e6 / count / PARTICIPANTS


def main() -> None:
    print(f"mix + RMS + mute, µs per participant and frame ({PARTICIPANTS} participants, 48 kHz stereo, 20 ms)")
    print(f"  {'':28} {'median':>7}  {'best':>7}  {'median beside ours'}")
    for level, rms in LEVELS.items():
        frames = noise(rms)
        runs = [asyncio.run(livekit(frames)) for _ in range(PEER_RUNS)]
        costs = {
            f"audiomixer ({Mixer().kernel}), {level}": mixing_and_pushing(frames)[0],
            f"NumPy, {level}": numpy(frames),
            f"livekit.rtc.AudioMixer, {level}": (median(runs), min(runs)),
        }
        own = next(iter(costs.values()))[0]
        for name, (middle, best) in costs.items():
            print(f"  {name:28} {middle:7.3f}  {best:7.3f}  {middle / own:6.1f} ×")
    frames = noise(LEVELS["quiet"])
    print("push_pcm, µs per frame")
    copy = copying(frames)
    for name, (middle, best) in {"audiomixer": mixing_and_pushing(frames)[1], "a copy by NumPy": copy}.items():
        print(f"  {name:28} {middle:7.3f}  {best:7.3f}  {middle / copy[0]:6.1f} × a copy")


if __name__ == "__main__":
    main()
