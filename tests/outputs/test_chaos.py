"""Servers that are killed, hang and come back, all at once: the mix and the recording do not notice."""

import asyncio
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from audiomixer import AudioMixer
from audiomixer.clock.bus import process_pacer
from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.outputs.push import PushOutput
from tests.outputs.servers import PASSWORD, Server, icecast, nginx_rtmp, srt_listener
from tests.signals import level_at, sine
from tests.test_taps import decoded

BACK = 5.0
"""Seconds within which an output has to be back once its server is."""


async def speak(live: AudioMixer) -> None:
    """A tone, half a second ahead of real time."""
    alice = live.room.bus.mixer.add_participant("alice")
    tone = sine(1000, 0.3, 1)
    alice.push_pcm(tone[: 25 * FRAME_SIZE])
    began, frame = time.monotonic(), 25
    while True:
        alice.push_pcm(tone[frame % 50 * FRAME_SIZE :][:FRAME_SIZE])
        frame += 1
        await asyncio.sleep(began + (frame - 25) * 0.02 - time.monotonic())


async def until(output: PushOutput, *, connected: bool) -> None:
    began = time.monotonic()
    while output.connected != connected:
        await asyncio.sleep(0.02)
        assert time.monotonic() - began < 30, f"{output.name}: {vars(output)}"


async def suffer(output: PushOutput, server: Server, restarts: int, seed: int) -> list[float]:
    """Kills a server again and again, and once has it hang first; how long its output took to be back."""
    chance, took = random.Random(seed), []
    for n in range(restarts):
        # A connection that did not last is not made anew in such a hurry.
        await asyncio.sleep(chance.uniform(1, 3) if restarts <= 2 else chance.uniform(11, 25))
        if n == 0:
            server.signal(signal.SIGSTOP)
            await asyncio.sleep(3)
        await server.kill()
        await until(output, connected=False)
        await asyncio.sleep(chance.uniform(0, 2))
        await server.start()
        began = time.monotonic()
        await until(output, connected=True)
        took.append(time.monotonic() - began)
    return took


@pytest.mark.timeout(900)
async def test_the_mix_and_the_recording_do_not_notice(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    restarts, path = pytestconfig.getoption("--restarts"), tmp_path / "show.wav"
    for name in ("rtmp", "icecast"):
        (tmp_path / name).mkdir()
    receiver, srt_port = srt_listener(tmp_path / "came.ts")
    async with (
        nginx_rtmp(tmp_path / "rtmp") as (rtmp, rtmp_port),
        icecast(tmp_path / "icecast") as (ice, ice_port),
        receiver,
    ):
        await asyncio.sleep(1)
        pushes = {
            PushOutput(f"rtmp://127.0.0.1:{rtmp_port}/live/show", 128): rtmp,
            PushOutput(f"icecast://source:{PASSWORD}@127.0.0.1:{ice_port}/show.mp3", 128): ice,
            PushOutput(f"srt://127.0.0.1:{srt_port}", 128): receiver,
        }
        async with AudioMixer("local:show", outputs=[str(path), *pushes]) as live:
            speaking = asyncio.create_task(speak(live))
            began, late, rounds = time.monotonic(), process_pacer().late, process_pacer().rounds
            suffering = [suffer(output, server, restarts, n) for n, (output, server) in enumerate(pushes.items())]
            took = await asyncio.gather(*suffering)
            late, rounds = process_pacer().late - late, process_pacer().rounds - rounds
            lasted = time.monotonic() - began
            speaking.cancel()
    print(f"\n{lasted:.0f} s, {late} of {rounds} ticks late; back after at most {max(map(max, took)):.1f} s")
    assert max(map(max, took)) < BACK
    assert all(output.reconnects == restarts for output in pushes)
    assert late < 0.02 * rounds, "what else this machine does is not forbidden"
    recorded = decoded(path).reshape(-1, 2)[:, 0]
    assert len(recorded) / 48_000 == pytest.approx(lasted, abs=0.3)
    spoken = recorded[24_000 : round(lasted * 48_000) - 24_000]
    levels = [level_at(second, 1000) for second in spoken[: len(spoken) // 4800 * 4800].reshape(-1, 4800)]
    assert np.min(levels) > 0.28, "no gap in the recording"
