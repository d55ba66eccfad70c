"""Mixing, metering and mute detection: `Mixer` beside LiveKit's `rtc.AudioMixer` and NumPy, in one run.

Each mixes the same 50 participants, 48 kHz stereo, 20 ms at a time. Prints microseconds per participant and
frame, the best round of each: the machine's noise only ever adds.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import numpy as np
from livekit import rtc

from audiomixer import Mixer

PARTICIPANTS = 50
ROUNDS = 1000
PEER_FRAMES = 100
PEER_RUNS = 5


def noise() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.01, (PARTICIPANTS, 960, 2)).astype(np.float32)


def timed(prepare: Callable[[], None], work: Callable[[], object]) -> float:
    """The least cost of `work`, in µs per participant; `prepare` does not count."""
    costs = []
    for _ in range(ROUNDS):
        prepare()
        start = time.perf_counter()
        work()
        costs.append(time.perf_counter() - start)
    return min(costs) * 1e6 / PARTICIPANTS


def ours(frames: np.ndarray) -> float:
    """`Mixer.mix_into`, limiter included; pushing the samples is the participants' work."""
    mixer = Mixer()
    participants = [mixer.add_participant(str(n)) for n in range(PARTICIPANTS)]
    out = np.zeros((960, 2), np.float32)

    def push() -> None:
        for participant, frame in zip(participants, frames, strict=True):
            participant.push_pcm(frame)

    return timed(push, lambda: mixer.mix_into(out, 0.0))


def numpy(frames: np.ndarray) -> float:
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
    frames = noise()
    costs = {
        f"audiomixer ({Mixer().kernel})": ours(frames),
        "NumPy": numpy(frames),
        "livekit.rtc.AudioMixer": min(asyncio.run(livekit(frames)) for _ in range(PEER_RUNS)),
    }
    own = next(iter(costs.values()))
    print(f"mix + RMS + mute, µs per participant and frame ({PARTICIPANTS} participants, 48 kHz stereo, 20 ms)")
    for name, cost in costs.items():
        print(f"  {name:24} {cost:7.3f}  {cost / own:6.1f} ×")


if __name__ == "__main__":
    main()
