"""The audio itself, for bots and editors: frames of the mix, of each participant, and recordings of each."""

import asyncio
import itertools
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
import pytest

from audiomixer import AudioMixer, Mixer, Participant
from audiomixer.audio.taps import Solos, participant_frames
from audiomixer.outputs.hls import HlsOutput
from audiomixer.outputs.tracks import TrackRecorder, file_stem
from tests.signals import Signal, frames, level_at, sine, stereo

T = TypeVar("T")


def decoded(path: Path) -> Signal:
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])


def test_solos_are_what_each_participant_is_in_the_mix() -> None:
    mixer = Mixer()
    alice, bob = mixer.add_participant("alice"), mixer.add_participant("bob")
    alice.gain = 0.5
    tone, other = frames(sine(1000, 0.4, 1)), frames(stereo(sine(500, 0.2, 1)))
    for n in range(50):
        alice.push_pcm(tone[n])
        bob.push_pcm(other[n])
        bob.muted = n >= 25
        mix = mixer.mix((n + 1) * 0.02)
        solos = mixer.solos()
        assert solos.keys() == {"alice", "bob"}
        assert solos["alice"].shape == (960,)
        if n == 20:
            assert solos["alice"] == pytest.approx(0.5 * tone[n], abs=1e-6)
            assert solos["bob"] == pytest.approx(other[n].mean(axis=1), abs=1e-6)
    assert not solos["bob"].any()
    latency = round(mixer.latency * 48_000)
    assert mix[latency:, 0] == pytest.approx(solos["alice"][: 960 - latency], abs=1e-4)


async def speak(participant: Participant, tone: float) -> None:
    """Half a second ahead, in real time."""
    pieces = itertools.cycle(frames(sine(tone, 0.3, 1)))
    for _ in range(25):
        participant.push_pcm(next(pieces))
    while True:
        participant.push_pcm(next(pieces))
        await asyncio.sleep(0.02)


async def test_frames_of_the_mix_and_of_participants_come_in_time() -> None:
    async with AudioMixer("local:show") as live:
        alice = live.room.bus.mixer.add_participant("alice")
        speaking = asyncio.create_task(speak(alice, 1000))
        await asyncio.sleep(0.3)

        async def collect() -> tuple[list[float], Signal]:
            mixed = [frame async for frame in first(live.frames(), 50)]
            return [frame.time for frame in mixed], np.concatenate([frame.samples for frame in mixed])

        collecting = asyncio.create_task(collect())
        wide = [frame async for frame in first(live.participant_frames(), 50)]
        narrow = [frame async for frame in first(live.participant_frames(16_000), 50)]
        times, mix = await collecting
        speaking.cancel()
        with pytest.raises(ValueError, match=r"^sample_rate: expected one of \(16000, 48000\)"):
            live.participant_frames(44_100)
    assert np.diff(times) == pytest.approx(np.full(49, 0.02))
    assert mix.shape == (48_000, 2)
    assert level_at(mix[:, 0], 1000) == pytest.approx(0.3, rel=0.02)
    assert {frame.identity for frame in wide + narrow} == {"alice"}
    assert level_at(np.concatenate([frame.samples for frame in wide]), 1000) == pytest.approx(0.3, rel=0.02)
    assert {frame.samples.shape for frame in narrow} == {(320,)}
    spoken = np.concatenate([frame.samples for frame in narrow])[1600:]
    assert level_at(spoken, 1000, 16_000) == pytest.approx(0.3, rel=0.05)


async def first(items: AsyncIterator[T], count: int) -> AsyncIterator[T]:
    async for item in items:
        if count == 0:
            return
        count -= 1
        yield item


class Ramp:
    """A participant whose every frame is a little louder than the last: which one it is can be heard."""

    def __init__(self, live: AudioMixer) -> None:
        self.alice = live.room.bus.mixer.add_participant("alice")

    async def play(self) -> None:
        """From now on."""
        for n in range(200):
            self.alice.push_pcm(np.full((960, 1), n / 400, np.float32))
            await asyncio.sleep(0.02 if n > 25 else 0)

    @staticmethod
    def number(samples: Signal) -> float:
        return float(samples[480] * 400)


async def test_participants_frames_begin_at_once_where_all_others_wait_for_blocks() -> None:
    """An HLS stream alone is handed five frames at once; who asks for each does not lose what was about to come."""
    for phase in range(5):
        async with AudioMixer("local:show", outputs=[HlsOutput(128)]) as live:
            ramp = Ramp(live)
            playing = asyncio.create_task(ramp.play())
            await asyncio.sleep(0.3 + phase * 0.02)
            taken = [frame async for frame in first(live.participant_frames(), 20)]
            playing.cancel()
        times = np.array([frame.time for frame in taken])
        numbers = np.array([ramp.number(frame.samples) for frame in taken])
        assert np.diff(times) == pytest.approx(np.full(19, 0.02), abs=1e-6)
        assert np.diff(numbers) == pytest.approx(np.ones(19), abs=0.05)


async def test_resampled_frames_of_everybody_keep_apart() -> None:
    async def solos() -> AsyncIterator[Solos]:
        for n, (one, two) in enumerate(zip(frames(sine(500, 0.3, 1)), frames(sine(900, 0.3, 1)), strict=True)):
            yield n * 0.02, {"alice": one, "bob": two}

    heard: dict[str, list[Signal]] = {"alice": [], "bob": []}
    async for frame in participant_frames(solos(), 16_000):
        heard[frame.identity].append(frame.samples)
    for identity, tone, other in (("alice", 500, 900), ("bob", 900, 500)):
        signal = np.concatenate(heard[identity])[1600:]
        assert level_at(signal, tone, 16_000) == pytest.approx(0.3, rel=0.05)
        assert level_at(signal, other, 16_000) < 0.001


def test_tracks_are_aligned_whoever_joins_and_leaves(tmp_path: Path) -> None:
    """Alice speaks throughout; bob joins at 1 s, is away from 2 to 3 s, and stays until 4 s."""
    recorder = TrackRecorder(str(tmp_path / "tracks"))
    recorder.start()
    tone, other = frames(sine(1000, 0.3, 4)), frames(sine(500, 0.2, 4))
    for n in range(200):
        solos = {"alice": tone[n]}
        if 50 <= n < 100 or n >= 150:
            solos["bob/../x"] = other[n]
        recorder.write(n, solos)
    recorder.stop()
    assert recorder.dropped == 0
    alice, bob = (decoded(tmp_path / "tracks" / name) for name in ("alice.mka", "bob%2F..%2Fx.mka"))
    assert len(alice) == pytest.approx(4 * 48_000, abs=1920)
    assert len(bob) == pytest.approx(4 * 48_000, abs=1920)
    for second, level in enumerate((0, 0.2, 0, 0.2)):
        middle = bob[second * 48_000 + 6000 : second * 48_000 + 42_000]
        assert level_at(middle, 500) == pytest.approx(level, abs=0.01), f"second {second}"
    onset = int(np.argmax(np.abs(bob) > 0.05)) / 48_000
    assert onset == pytest.approx(1, abs=0.02)


def test_more_people_than_tracks_are_kept_open_for_have_one_file_each_while_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiomixer.outputs.tracks._OPEN", 4)
    recorder = TrackRecorder(str(tmp_path / "tracks"))
    recorder.start()
    tone = frames(sine(1000, 0.3, 0.5))
    for n in range(1000, 1025):
        recorder.write(n, {f"guest{number}": tone[n - 1000] for number in range(6)})
    # Long after, one who was not there takes the place of one who has left.
    recorder.write(2000, {"late": tone[0]})
    recorder.write(2001, {"guest0": tone[0]})
    recorder.stop()
    assert recorder.dropped == 0
    names = {path.name for path in (tmp_path / "tracks").iterdir()}
    assert names == {*(f"guest{number}.mka" for number in range(6)), "late.mka", "guest0+2.mka"}


def test_a_tracks_name_is_a_files_name() -> None:
    assert file_stem("..") == "%2E."
    assert file_stem("a/b c") == "a%2Fb c"
    assert file_stem("日" * 80) != file_stem("日" * 80 + "本")
    assert len(file_stem("日" * 80)) < 255


async def test_a_mixer_records_tracks(tmp_path: Path) -> None:
    async with AudioMixer("local:show", tracks=str(tmp_path)) as live:
        await asyncio.sleep(0.5)
        alice = live.room.bus.mixer.add_participant("alice")
        alice.push_pcm(sine(1000, 0.3, 1))
        await asyncio.sleep(0.6)
    signal = decoded(tmp_path / "alice.mka")
    onset = int(np.argmax(np.abs(signal) > 0.05)) / 48_000
    assert onset == pytest.approx(0.5, abs=0.1)


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own needs root")
def test_a_disk_that_is_full_is_not_strewn_with_empty_tracks(tmp_path: Path) -> None:
    """For half a minute nothing can be written; then there is room, and the track goes on in its first file."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=True)
    try:
        (small / "full").write_bytes(bytes(64 * 1024))
        recorder = TrackRecorder(str(small))
        recorder.start()
        tone = sine(1000, 0.3, 0.02)
        for n in range(1500):
            recorder.write(n, {"alice": tone})
            time.sleep(0.0005)
        assert {path.name for path in small.iterdir()} == {"full", "alice.mka"}
        (small / "full").unlink()
        for n in range(1500, 1800):
            recorder.write(n, {"alice": tone})
            time.sleep(0.0005)
        recorder.stop()
        assert {path.name for path in small.iterdir()} == {"alice.mka"}
        assert level_at(decoded(small / "alice.mka")[-4800:], 1000) == pytest.approx(0.3, rel=0.05)
    finally:
        subprocess.run(["umount", str(small)], check=True)
