"""Rooms of LiveKit and of Janus are mixed alike: who speaks, is muted, leaves, comes late; servers that come back."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audiomixer.clock.frame import FRAME_SIZE, SAMPLE_RATE
from audiomixer.rooms.base import NoRoomError, RoomError
from tests.rooms.elsewhere import AMPLITUDE, TONES, VOLUME, Server, mixing, new_room, speaking
from tests.rooms.janus_server import janus
from tests.rooms.livekit_server import livekit
from tests.test_taps import decoded


@pytest.fixture(scope="module", params=[livekit, janus], ids=["livekit", "janus"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with request.param(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def room() -> str:
    return new_room()


@pytest.fixture(autouse=True)
def _loopback() -> None:
    """The servers' addresses are not loopback."""


async def test_who_speaks_is_muted_leaves_and_comes_late(server: Server, room: str) -> None:
    async with mixing(server, room) as ear, speaking(server, room, "alice", "bob") as (alice, bob):
        await ear.until(lambda: all(ear.volumes.get(who, 0) > 0.9 * VOLUME for who in ("alice", "bob")), 5)

        carol = server.participant(room, "carol", TONES["carol"])
        await carol.join()
        took = await ear.until(lambda: ear.level(TONES["carol"], 0.1) > 0.1, 1.5)
        assert took < 1, "heard within a second of publishing"

        await ear.until(lambda: ear.volumes.get("carol", 0) > 0.9 * VOLUME, 3)
        await asyncio.sleep(0.7)
        assert ear.volumes == {who: pytest.approx(VOLUME, rel=0.05) for who in TONES}
        for frequency in TONES.values():
            assert ear.level(frequency) == pytest.approx(AMPLITUDE, rel=0.05)
        assert ear.level(1350) < 0.005

        await alice.mute()
        took = await ear.until(lambda: ear.volumes["alice"] == -1, 2)
        assert took < 0.6, "muted in the next payload"
        await ear.until(lambda: ear.level(TONES["alice"], 0.1) < 0.005, 1)
        await alice.unmute()
        await ear.until(lambda: ear.volumes["alice"] > 0.9 * VOLUME, 2)

        await bob.leave()
        took = await ear.until(lambda: "bob" not in ear.volumes, 2)
        assert took < 1
        await ear.until(lambda: ear.level(TONES["bob"], 0.1) < 0.005, 1)
        assert ear.volumes.keys() == {"alice", "carol"}
        await carol.leave()
    assert ear.events[0] == "joined"
    for event in ("alice published", "alice muted", "alice unmuted", "bob unpublished", "bob participant-left"):
        assert event in ear.events


async def test_the_server_comes_back(server: Server, room: str, tmp_path: Path) -> None:
    """Killed in mid-stream: the stream goes on, with silence, and in wall-clock time; then all are heard again."""
    path = tmp_path / "show.wav"
    async with mixing(server, room, outputs=[str(path)]) as ear:
        started = time.monotonic()
        async with speaking(server, room, "alice"):
            await ear.until(lambda: ear.level(TONES["alice"]) > 0.19, 5)
            began, frames, payloads = time.monotonic(), ear.frames, ear.payloads
            server.kill()
            await ear.until(lambda: ear.events[-1] == "alice participant-left", 20)
            await ear.until(lambda: ear.level(TONES["alice"]) < 0.001, 2)
            await ear.until(lambda: ear.volumes == {}, 1)
        server.start()
        took = await ear.until(lambda: ear.events[-1] == "joined", 10)
        assert took < 5
        async with speaking(server, room, "bob"):
            await ear.until(lambda: ear.level(TONES["bob"]) > 0.19, 5)
            assert ear.volumes.keys() == {"bob"}
            lasted = time.monotonic() - began
            assert (ear.frames - frames) * FRAME_SIZE / SAMPLE_RATE == pytest.approx(lasted, abs=0.3)
            assert ear.payloads - payloads == pytest.approx(lasted * 2, abs=1.1)
        lasted = time.monotonic() - started
    assert len(decoded(path)) / 2 / SAMPLE_RATE == pytest.approx(lasted, abs=0.3), "the recording has no gap"


async def test_the_room_ends_and_the_stream_does_not(server: Server, room: str) -> None:
    async with mixing(server, room) as ear, speaking(server, room, "alice"):
        await ear.until(lambda: ear.level(TONES["alice"]) > 0.19, 5)
        await server.end(room)
        await ear.until(lambda: ear.events[-1] == "ended", 3)
        await ear.until(lambda: ear.volumes == {}, 1)
        frames = ear.frames
        await asyncio.sleep(1)
        assert ear.frames - frames == pytest.approx(50, abs=3)
        assert ear.level(TONES["alice"]) < 0.001


async def test_two_tracks_are_one_participant(server: Server, room: str) -> None:
    async with mixing(server, room) as ear, speaking(server, room, "alice") as (alice,):
        await alice.publish(2500)
        both = np.sqrt(2) * VOLUME
        await ear.until(lambda: ear.volumes == {"alice": pytest.approx(both, rel=0.05)}, 5)
        for frequency in (2500, TONES["alice"]):
            await ear.until(lambda f=frequency: ear.level(f) > 0.95 * AMPLITUDE, 2)  # type: ignore[misc]


async def test_a_room_that_is_not_there_is_made_or_not(server: Server, room: str) -> None:
    with pytest.raises(NoRoomError, match=f"there is no '{room}'"):
        async with mixing(server, room, create=False):
            pass
    async with mixing(server, room), mixing(server, room, create=False) as ear:
        assert ear.live.room.name == room


async def test_a_server_that_is_not_there(server: Server, room: str) -> None:
    """It is told in a line, or waited for."""
    server.kill()
    try:
        with pytest.raises(RoomError, match=f"{room}' cannot be joined: .* out of reach"):
            async with mixing(server, room):
                pass
        async with mixing(server, room, patient=True) as ear:
            await asyncio.sleep(1)
            server.start()
            await ear.until(lambda: "joined" in ear.events, 5)
            assert ear.events[0] == "reconnecting"
    finally:
        server.start()
