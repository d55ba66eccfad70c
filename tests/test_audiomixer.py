"""`AudioMixer` in an asyncio application, in real time."""

import asyncio
import time
from pathlib import Path

import av
import numpy as np
import pytest

from audiomixer import AudioMixer, TimedMetadata
from audiomixer.outputs.base import OutputError
from audiomixer.outputs.hls import HlsOutput
from audiomixer.rooms.local import LocalRooms
from tests.conftest import Service
from tests.rooms.client import Client, Microphone


def duration(path: Path) -> float:
    with av.open(str(path)) as container:
        return float((container.duration or 0) / 1_000_000)


async def test_the_readme_example_mixes_and_records_in_wall_clock_time(tmp_path: Path) -> None:
    """Nobody is there for 1 s, then somebody joins and leaves; the recording is as long as the block."""
    rooms = LocalRooms()
    path = tmp_path / "show.wav"
    began = time.monotonic()
    payloads: list[TimedMetadata] = []
    async with AudioMixer("local:show", outputs=[str(path)], audio_bitrate=192, rooms=rooms) as live:
        async for payload in live.timed_metadata():
            payloads.append(payload)
            match payload.s:
                case 1:
                    alice = live.room.bus.mixer.add_participant("alice")
                    alice.push_pcm(np.full(48_000, 0.1, np.float32))
                case 4:
                    live.room.bus.mixer.remove_participant("alice")
                case 5:
                    break
        took = time.monotonic() - began
    assert [payload.s for payload in payloads] == list(range(6))
    assert [set(payload.p) for payload in payloads] == [set(), set(), {"alice"}, {"alice"}, {"alice"}, set()]
    assert payloads[2].p["alice"].v == pytest.approx(3277, rel=0.05)
    assert [later.time - payloads[0].time for later in payloads] == pytest.approx([n / 2 for n in range(6)])
    assert duration(path) == pytest.approx(took, abs=0.1)
    await asyncio.sleep(0.1)
    assert list(rooms) == []


async def test_two_mixers_share_a_room(service: Service) -> None:
    streams = service.streams
    async with Client(f"{service.url}/whip/lounge?identity=alice", Microphone(500), hears=False):
        first, second = await streams.start("lounge"), await streams.start("lounge", 192)
        await asyncio.sleep(1.5)
        await streams.stop(first.sid)
        async for payload in second.mixer.timed_metadata():
            assert payload.p["alice"].v > 1000
            break
        assert len(list(streams.rooms)) == 1


async def test_an_output_that_cannot_be_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    rooms = LocalRooms()
    good, earlier = tmp_path / "good.wav", tmp_path / "earlier.ogg"
    earlier.write_bytes(b"a recording")
    mixer = AudioMixer("local:show", outputs=[str(good), str(earlier), "/nowhere/bad.wav"], rooms=rooms)
    with pytest.raises(OutputError, match="^output: cannot write /nowhere/bad.wav"):
        await mixer.start()
    assert list(rooms) == []
    assert not good.exists()
    assert earlier.read_bytes() == b"a recording"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"audio_bitrate": 64}, "^audio_bitrate: expected one of"),
        ({"max_speakers": 0}, "^max_speakers: expected at least 1"),
        ({"outputs": ["show.txt"]}, "^output: expected"),
        ({"outputs": ["a.wav", "b.wav", "a.wav"]}, "^outputs: 'a.wav' is given more than once"),
    ],
)
def test_settings_that_are_none(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        AudioMixer("local:show", **options)  # type: ignore[arg-type]


async def test_options_of_the_mix_are_the_rooms() -> None:
    rooms = LocalRooms()
    async with AudioMixer("local:show", leveler=True, max_speakers=2, rooms=rooms) as live:
        mixer = live.room.bus.mixer
        assert (mixer.leveler, mixer.max_speakers) == (True, 2)
        async with AudioMixer("local:show", rooms=rooms):
            assert (mixer.leveler, mixer.max_speakers) == (True, 2)


@pytest.mark.parametrize("room", ["show", "local:", "local:no/name", "zoom:123", ""])
def test_rooms_that_are_none(room: str) -> None:
    with pytest.raises(ValueError, match="^room: expected"):
        AudioMixer(room)


async def test_an_output_that_fails_takes_nothing_from_the_others(tmp_path: Path) -> None:
    class Failing(HlsOutput):
        def write(self, packets: object) -> None:
            raise RuntimeError("no")

    path = tmp_path / "show.wav"
    failing = Failing(128)
    async with AudioMixer("local:show", outputs=[failing, str(path)]) as live:
        async for payload in live.timed_metadata():
            if payload.s == 2:
                break
    assert duration(path) == pytest.approx(live.time, abs=0.01)
    assert live.time > 1
