"""A host's hand on a participant of a room of ours: with stock WebRTC clients, in Python."""

import asyncio

import httpx
import pytest

from audiomixer import AudioMixer
from audiomixer.rooms.local import LocalRooms
from tests.conftest import Service
from tests.rooms.client import Client, Microphone
from tests.rooms.test_local import newest, whip
from tests.signals import level_at


async def told(live: AudioMixer) -> dict[str, int]:
    """The next whole payload."""
    payloads = live.timed_metadata()
    await anext(payloads)
    return {identity: volume.v for identity, volume in (await anext(payloads)).p.items()}


async def test_a_guest_is_turned_down_muted_put_aside_and_removed(service: Service) -> None:
    rooms = service.streams.rooms
    async with (
        AudioMixer("local:lounge", rooms=rooms) as live,
        Client(whip(service, "alice"), Microphone(500)) as alice,
        Client(whip(service, "bob"), Microphone(900)) as bob,
        Client(whip(service, "carol"), Microphone(1300, 0.0)) as silent,
    ):
        await asyncio.sleep(2)
        strip, loud = live.participant("bob"), (await told(live))["bob"]
        strip.gain_db = -6
        assert strip.gain_db == -6
        await asyncio.sleep(0.1)
        assert (await told(live))["bob"] == pytest.approx(loud / 10 ** (6 / 20), rel=0.0116), "6.0 ± 0.1 dB"
        strip.gain = 1

        strip.mute()
        assert (await told(live))["bob"] == -1
        vitals = strip.vitals
        assert vitals
        assert (vitals.muted, vitals.codec) == (False, "opus")
        assert "httpx" in vitals.client
        strip.unmute()

        strip.in_mix = False
        await asyncio.sleep(2.5)
        assert (await told(live))["bob"] == -1
        assert level_at(newest(alice), 900) == pytest.approx(0.2, rel=0.1), "the room hears him"
        assert level_at(newest(silent), 900) == pytest.approx(0.2, rel=0.1)
        assert level_at(newest(bob), 900) < 0.005
        mixed = [frame.samples async for frame in _first(live, 25)]
        assert max(level_at(samples[:, 0], 900) for samples in mixed) < 0.05
        strip.in_mix = True

        await strip.remove(keep_out=True)
        await asyncio.sleep(0.2)
        assert "bob" not in await told(live)
        assert strip.vitals is None
        with pytest.raises(httpx.HTTPStatusError) as refused:
            async with Client(whip(service, "bob"), Microphone(900)):
                raise AssertionError("nobody comes in")
        assert refused.value.response.status_code == 403
        assert "'bob' is kept out" in refused.value.response.json()["message"]
        strip.let_in()
        async with Client(whip(service, "bob"), Microphone(900)):
            await asyncio.sleep(0.5)
            assert "bob" in await told(live)


async def _first(live: AudioMixer, number: int):  # type: ignore[no-untyped-def]
    async for frame in live.frames():
        yield frame
        number -= 1
        if not number:
            return


async def test_a_mixer_that_has_not_started_has_no_participants() -> None:
    with pytest.raises(RuntimeError, match="not started"):
        AudioMixer("local:lounge").participant("bob")


@pytest.mark.parametrize("decibels", [12.1, -61, float("nan")])
async def test_decibels_that_are_none(decibels: float) -> None:
    room = LocalRooms().open("lounge")
    strip = room.participant("bob")
    with pytest.raises(ValueError, match="gain_db: expected -60 to 12 dB"):
        strip.gain_db = decibels
    await room.close()


@pytest.mark.parametrize("choice", [{"include": ["alice"]}, {"exclude": ["bob"]}])
def test_a_choice_is_for_rooms_elsewhere(choice: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="include, exclude: expected a room elsewhere"):
        AudioMixer("local:lounge", **choice)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="include: expected a list of identities"):
        AudioMixer("janus+ws://127.0.0.1:1/1", include="alice")
