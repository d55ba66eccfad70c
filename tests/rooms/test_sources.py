"""Files that are played into a room: how soon, how exactly, ducked, paused, moved, looped; and what is no audio."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from audiomixer import AudioMixer, SourceError, TimedMetadata
from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.rooms.base import RoomError
from audiomixer.rooms.local import LocalRooms
from tests.conftest import Service
from tests.files import CODECS, write
from tests.rooms.client import Client, Microphone
from tests.rooms.test_local import newest, whip
from tests.signals import Signal, decibels, frames, level_at, sine, speech

LOUD = 0.3


class Ear:
    """What comes out of a mixer, of one side."""

    def __init__(self, live: AudioMixer) -> None:
        self._frames: list[Signal] = []
        self._reading = asyncio.create_task(self._read(live))

    async def _read(self, live: AudioMixer) -> None:
        async for frame in live.frames():
            self._frames.append(frame.samples[:, 0].copy())

    @property
    def heard(self) -> Signal:
        return np.concatenate([np.zeros(0, np.float32), *self._frames])

    async def until(self, seconds: float) -> None:
        """So much has been heard."""
        while len(self._frames) * 0.02 < seconds:
            await asyncio.sleep(0.01)

    def level(self, frequency: float, seconds: float = 0.2) -> float:
        return level_at(self.heard[-round(seconds * 48_000) :], frequency)

    def close(self) -> None:
        self._reading.cancel()


@contextlib.asynccontextmanager
async def mixing() -> AsyncIterator[tuple[AudioMixer, Ear]]:
    async with AudioMixer("local:show") as live:
        ear = Ear(live)
        await ear.until(0.1)
        yield live, ear
        ear.close()


@pytest.mark.parametrize("suffix", CODECS)
async def test_a_jingle_starts_within_300_ms_and_is_as_long_as_its_file(tmp_path: Path, suffix: str) -> None:
    jingle = write(tmp_path / f"jingle{suffix}", sine(1000, LOUD, 1.2345))
    async with mixing() as (live, ear):
        silence = len(ear.heard)
        called = time.monotonic()
        source = await live.play(jingle)
        took = time.monotonic() - called
        assert source.identity == "jingle"
        await asyncio.wait_for(source.ended.wait(), 5)
        await asyncio.sleep(0.2)
        lossy = suffix not in {".wav", ".flac"}
        loud = np.flatnonzero(np.abs(ear.heard) > (LOUD / 5 if lossy else 2e-4))
        assert took < 0.3
        assert (loud[0] - silence) / 48_000 < 0.3
        # AAC's last frame is full, and its container does not say of what.
        exact = {".mp3": 250, ".m4a": 1100, ".ogg": 250}.get(suffix, 24)
        assert loud[-1] + 1 - loud[0] == pytest.approx(59_256, abs=exact)
        assert live.room.bus.mixer.identities == []
        assert source.state.state == "ended"
        assert source.error == ""


async def test_ten_at_once_are_ten_participants(tmp_path: Path) -> None:
    jingle = write(tmp_path / "jingle.wav", sine(1000, 0.05, 2))
    async with mixing() as (live, ear):
        sources = await asyncio.gather(*(live.play(jingle) for _ in range(10)))
        assert len({source.identity for source in sources}) == 10
        payload = [payload async for payload in _payloads(live, 2)][-1]
        assert {source.identity for source in sources} == set(payload.p)
        assert ear.level(1000) == pytest.approx(0.5, rel=0.1)


async def _payloads(live: AudioMixer, number: int):  # type: ignore[no-untyped-def]
    async for payload in live.timed_metadata():
        yield payload
        number -= 1
        if not number:
            return


async def test_it_ducks_under_speech_and_comes_back(tmp_path: Path) -> None:
    """Music at 1 kHz; alice speaks for two seconds, at 0.5 s."""
    music = write(tmp_path / "music.wav", sine(5000, LOUD, 20))
    words = speech()[: 2 * 48_000]
    async with mixing() as (live, ear):
        await live.play(music, duck_db=-12)
        alice = live.room.bus.mixer.add_participant("alice")
        await asyncio.sleep(0.5)
        before = ear.level(5000)
        for n in range(100):
            alice.push_pcm(words[n * FRAME_SIZE : (n + 1) * FRAME_SIZE])
            await asyncio.sleep(0.02)
        assert decibels(ear.level(5000) / before) == pytest.approx(-12, abs=1)
        await asyncio.sleep(2.2)
        assert decibels(ear.level(5000) / before) == pytest.approx(0, abs=0.1)


async def test_pause_seek_loop_and_stop_without_a_click(tmp_path: Path) -> None:
    """A second at 500 Hz, one at 1000 Hz, over and over."""
    song = write(tmp_path / "song.wav", np.concatenate([sine(500, LOUD, 1), sine(1000, LOUD, 1)]))
    async with mixing() as (live, ear):
        source = await live.play(song, identity="music", gain_db=-6, loop=True)
        await asyncio.sleep(0.5)
        assert ear.level(500) == pytest.approx(LOUD / 2, rel=0.02)
        assert source.state.position == pytest.approx(0.6, abs=0.2)
        await source.seek(1.2)
        await asyncio.sleep(0.4)
        assert ear.level(1000) == pytest.approx(LOUD / 2, rel=0.02)
        source.pause()
        await asyncio.sleep(0.4)
        assert np.abs(ear.heard[-4800:]).max() < 1e-3
        paused = source.state
        assert paused.state == "paused"
        await asyncio.sleep(0.3)
        assert source.state == paused
        source.resume()
        await asyncio.sleep(0.7)
        assert ear.level(500, 0.1) == pytest.approx(LOUD / 2, rel=0.02), "it has begun again"
        await source.stop()
        assert source.ended.is_set()
        await asyncio.sleep(0.2)
        steps = np.abs(np.diff(ear.heard, 2))
        joint = LOUD / 2 * 2 * np.pi * (1000 - 500) / 48_000
        assert steps.max() < 1.2 * joint, "the song's own joints are the steepest"


async def test_the_room_hears_it_too_and_can_have_it_leave(service: Service, tmp_path: Path) -> None:
    music = write(tmp_path / "music.wav", sine(800, LOUD, 30))
    rooms = service.streams.rooms
    async with (
        AudioMixer("local:lounge", rooms=rooms) as live,
        Client(whip(service, "alice"), Microphone(500)) as alice,
    ):
        source = await live.play(music)
        await asyncio.sleep(1.5)
        assert level_at(newest(alice), 800) == pytest.approx(LOUD, rel=0.1)
        with pytest.raises(ValueError, match='"music" is in this mixer already'):
            await live.play(music, identity="music")
        await live.participant("music").remove()
        assert source.ended.is_set()
        assert live.room.bus.mixer.identities == ["alice"]


async def test_what_cannot_be_played(tmp_path: Path) -> None:
    lie = tmp_path / "lie.mp3"
    lie.write_text("This is no music. " * 1000)
    mute = tmp_path / "empty.wav"
    mute.write_bytes(b"")
    async with mixing() as (live, _):
        for path in (lie, mute, tmp_path / "nowhere.wav", tmp_path):
            with pytest.raises(SourceError):
                await live.play(path)
        with pytest.raises(ValueError, match="gain_db: expected -60 to 12 dB"):
            await live.play(lie, gain_db=13)
        with pytest.raises(ValueError, match="duck_db: expected -60 to 0 dB"):
            await live.play(lie, duck_db=1)
        assert live.room.bus.mixer.identities == []


async def test_a_room_ends_with_what_is_played_in_it(tmp_path: Path) -> None:
    music = write(tmp_path / "music.wav", sine(800, LOUD, 30))
    rooms = LocalRooms()
    async with AudioMixer("local:lounge", rooms=rooms) as live:
        source = await live.play(music)
    await asyncio.wait_for(source.ended.wait(), 2)
    assert rooms.get("lounge") is None


async def test_a_file_that_breaks_off_ends_with_what_there_is(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mp3", sine(800, LOUD, 3)).read_bytes()
    broken = tmp_path / "broken.mp3"
    broken.write_bytes(whole[: len(whole) // 3])
    async with mixing() as (live, _):
        source = await live.play(broken)
        await asyncio.wait_for(source.ended.wait(), 3)
        assert source.state.position == pytest.approx(1, abs=0.2)


async def until_no_decoder_is_left() -> None:
    async with asyncio.timeout(3):
        while any(thread.name == "decoder" for thread in threading.enumerate()) or _running():
            await asyncio.sleep(0.05)


def _running() -> bool:
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _is_ours(path)]
    return any(b"decoder_process" in command for command in commands)


def _is_ours(path: Path) -> bool:
    try:
        return f"PPid:\t{os.getpid()}\n" in (path.parent / "status").read_text()
    except OSError:
        return False


async def test_no_decoder_is_left_whatever_happens_while_one_is_opened(tmp_path: Path) -> None:
    """Given up, moved and stopped at once, moved twice, the room gone meanwhile."""
    song = write(tmp_path / "song.wav", sine(500, LOUD, 30))
    async with mixing() as (live, _):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.03):
                await live.play(song)
        source = await live.play(song)
        await source.seek(10)
        await source.stop()
        source = await live.play(song)
        moving = [asyncio.create_task(source.seek(position)) for position in (5, 10, 15)]
        await asyncio.sleep(0.05)
        moving[0].cancel()
        await asyncio.gather(*moving, return_exceptions=True)
        await asyncio.sleep(0.3)
        assert source.state.position > 5
        opening = asyncio.create_task(live.play(song, identity="late"))
        await asyncio.sleep(0.02)
    await asyncio.gather(opening, return_exceptions=True)
    await until_no_decoder_is_left()


async def test_thirty_two_at_once_and_those_being_opened_count(tmp_path: Path) -> None:
    song = write(tmp_path / "song.wav", sine(500, 0.01, 30))
    async with mixing() as (live, _):
        played = await asyncio.gather(*(live.play(song) for _ in range(34)), return_exceptions=True)
        refused = [problem for problem in played if isinstance(problem, BaseException)]
        assert [str(problem) for problem in refused] == 2 * ["expected at most 32 at once"]


async def test_who_is_kept_out_is_not_played_either(tmp_path: Path) -> None:
    song = write(tmp_path / "song.wav", sine(500, LOUD, 30))
    async with mixing() as (live, _):
        await live.participant("song").remove(keep_out=True)
        with pytest.raises(RoomError, match="'song' is kept out"):
            await live.play(song)
    await until_no_decoder_is_left()


async def test_the_decoder_knows_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    song = write(tmp_path / "song.wav", sine(500, LOUD, 30))
    monkeypatch.setenv("AUDIOMIXER_AUTH_TOKEN", "secret")
    async with mixing() as (live, _):
        await live.play(song)
        environments = [
            p.with_name("environ").read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if _is_ours(p)
        ]
        assert environments
        assert not any(b"AUDIOMIXER_AUTH_TOKEN" in environment for environment in environments)


async def test_who_joins_takes_the_place_of_what_is_played(service: Service, tmp_path: Path) -> None:
    song = write(tmp_path / "alice.wav", sine(1300, LOUD, 30))
    async with AudioMixer("local:lounge", rooms=service.streams.rooms) as live:
        source = await live.play(song)
        async with Client(whip(service, "alice"), Microphone(500)):
            await asyncio.wait_for(source.ended.wait(), 2)
            await asyncio.sleep(1)
            assert [payload.p["alice"].v async for payload in _payloads(live, 2)][-1] == pytest.approx(4634, rel=0.05)
        own = live.room.bus.mixer.add_participant("own")
        await live.participant("own").remove()
        with pytest.raises(ValueError, match="has left"):
            own.push_pcm(np.zeros(960, np.float32))


async def test_the_metadata_tell_its_gain_and_its_ducking(tmp_path: Path) -> None:
    music = write(tmp_path / "music.wav", sine(5000, LOUD, 30))
    async with mixing() as (live, _):
        source = await live.play(music, gain_db=-6, duck_db=-20)
        alone = [payload.p["music"].v async for payload in _payloads(live, 2)][-1]
        assert alone == pytest.approx(LOUD / 2**0.5 / 2 * 32767, rel=0.02)
        alice, words = live.room.bus.mixer.add_participant("alice"), frames(sine(500, 0.3, 1.5))
        told = asyncio.create_task(_last(live, 3))
        for word in words:
            alice.push_pcm(word)
            await asyncio.sleep(0.02)
        assert (await told).p["music"].v == pytest.approx(alone / 10, rel=0.05)
        with pytest.raises(ValueError, match="position: expected less than 30.000 s"):
            await source.seek(30)


async def _last(live: AudioMixer, number: int) -> TimedMetadata:
    return [payload async for payload in _payloads(live, number)][-1]


@pytest.mark.parametrize("kind", ["damaged", "mono, then stereo"])
async def test_what_is_odd_in_a_file_is_passed_over(tmp_path: Path, kind: str) -> None:
    one = write(tmp_path / "one.mp3", sine(800, LOUD, 2)).read_bytes()
    other = write(tmp_path / "other.mp3", sine(800, LOUD, 2), channels=2).read_bytes()
    odd = tmp_path / "odd.mp3"
    odd.write_bytes(one[:8000] + bytes(40) + one[8040:] if kind == "damaged" else one + other)
    async with mixing() as (live, _):
        source = await live.play(odd)
        await asyncio.wait_for(source.ended.wait(), 8)
        assert source.error == ""
        assert source.state.position == pytest.approx(2 if kind == "damaged" else 4, abs=0.2)


async def test_nobody_joins_as_what_is_being_opened_and_no_connection_is_left(service: Service, tmp_path: Path) -> None:
    song = write(tmp_path / "alice.wav", sine(1300, LOUD, 30))
    room = service.streams.rooms.open("lounge")
    async with AudioMixer(room) as live:
        tasks = len(asyncio.all_tasks())
        own = live.room.bus.mixer.add_participant("alice")
        with pytest.raises(httpx.HTTPStatusError) as refused:
            async with Client(whip(service, "alice"), Microphone(500)):
                raise AssertionError("nobody comes in")
        assert refused.value.response.status_code == 409
        assert "'alice' is taken" in refused.value.response.json()["message"]
        live.room.bus.mixer.remove_track(own)
        await live.play(song, identity="another")
        async with asyncio.timeout(5):
            while room.resources.keys() != room.sources.keys() or len(asyncio.all_tasks()) > tasks + 1:
                await asyncio.sleep(0.1)
