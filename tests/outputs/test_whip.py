"""The mix, published by WHIP to another server: a room of our own, which is killed and comes back."""

import asyncio
import re

import pytest

from audiomixer import AudioMixer
from audiomixer.auth.tokens import Keyring, mint
from audiomixer.outputs.base import OutputError, OutputEvent
from audiomixer.outputs.whip import WhipOutput
from audiomixer.rooms.local import LocalRooms, OpenDoor
from audiomixer.service.http.endpoints import media_app
from audiomixer.service.http.server import serving
from audiomixer.service.streams import Streams
from tests.conftest import Service
from tests.e2e.command import free_port
from tests.rooms.client import Client, Microphone
from tests.rooms.test_local import newest
from tests.signals import level_at

SECRET = "0123456789abcdef0123456789abcdef"


def target(service: Service, room: str = "stage") -> str:
    return f"whip+{service.url}/whip/{room}?identity=mix"


async def test_the_mix_of_one_room_is_heard_in_another(service: Service) -> None:
    rooms = service.streams.rooms
    async with (
        Client(f"{service.url}/whip/lounge?identity=alice", Microphone(500), hears=False),
        AudioMixer("local:lounge", outputs=[target(service)], rooms=rooms),
        Client(f"{service.url}/whip/stage?identity=guest", Microphone(900)) as guest,
    ):
        await asyncio.sleep(3)
        stage = rooms.get("stage")
        assert stage
        assert set(stage.identities) == {"mix", "guest"}
        assert level_at(newest(guest), 500) == pytest.approx(0.2, rel=0.1)
    async with asyncio.timeout(10):  # Should the guest's goodbye be lost, it is missed after six.
        while rooms.get("stage"):
            await asyncio.sleep(0.05)


async def test_a_token_is_needed_and_told_to_nobody() -> None:
    streams = Streams(LocalRooms(door=OpenDoor(Keyring({"": SECRET}))))
    async with serving(media_app(streams), "127.0.0.1", 0) as url:
        output = WhipOutput(f"whip+{url}/whip/stage?token=wrong", 128)
        with pytest.raises(OutputError, match=r"^output: cannot publish to whip\+http://127\.0\.0\.1:\d+: .*401") as no:
            await output.start()
        assert "wrong" not in str(no.value)
        assert "stage" not in str(no.value), "a path may be a key"
        output = WhipOutput(f"whip+{url}/whip/stage?token={mint(SECRET, 'mix', 'stage')}", 128)
        await output.start()
        assert output.connected
        await output.stop()
        await streams.close()


async def test_a_server_that_goes_is_found_again_at_another_time() -> None:
    port, events = free_port(), list[OutputEvent]()
    output = WhipOutput(f"whip+http://127.0.0.1:{port}/whip/stage?identity=mix", 128)
    output.on_event = events.append
    for start in (output.start, None):
        streams = Streams(LocalRooms())
        async with serving(media_app(streams), "127.0.0.1", port):
            if start:
                await start()
            async with asyncio.timeout(5):
                while not (room := streams.rooms.get("stage")) or not output.connected:
                    await asyncio.sleep(0.02)
                assert room.identities == ["mix"]
            await streams.close()
        async with asyncio.timeout(10):
            while output.connected:
                await asyncio.sleep(0.02)
    await output.stop()
    assert [event.state for event in events][:3] == ["lost", "connected", "lost"]
    assert re.fullmatch(r"whip\+http://127\.0\.0\.1:\d+", events[0].name)


@pytest.mark.parametrize("url", ["whip+ftp://host/x", "whip+http:///x", "whip+http://host:99999/x"])
async def test_targets_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"^output: expected a URL of whip\+http://, whip\+https:// with a host"):
        WhipOutput(url, 128)
