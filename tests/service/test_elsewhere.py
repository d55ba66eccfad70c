"""A service whose rooms are LiveKit's or Janus's: `room.name` is a room there, and all rules stay."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from audiomixer.rooms.janus_client import JanusError
from audiomixer.service import Settings
from audiomixer.service.resources.room_lifecycle import RoomOrder
from tests.rooms.elsewhere import Server, new_room, speaking
from tests.rooms.janus_server import ADMIN_KEY, janus
from tests.rooms.livekit_server import KEY, SECRET, livekit
from tests.service.api import Api, running
from tests.service.test_media_processors import payloads
from tests.service.test_restart import connected

CREDENTIALS = {"livekit_api_key": KEY, "livekit_api_secret": SECRET, "janus_admin_key": ADMIN_KEY}


@pytest.fixture(scope="module", params=[livekit, janus], ids=["livekit", "janus"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with request.param(tmp_path_factory.mktemp("server")) as there:
        yield there


@pytest.fixture(autouse=True)
def _loopback() -> None:
    """The servers' addresses are not loopback."""


def settings_for(server: Server) -> dict[str, Any]:
    addresses = {"ice_addresses": server.ice.addresses} if server.ice else {}
    kind = type(server).__name__.lower()
    return {"rooms": f"{kind}+{server.url}", **CREDENTIALS, **addresses}


@pytest.fixture
async def api(server: Server, tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path, **settings_for(server)) as api:
        yield api


@pytest.fixture
def room() -> str:
    return new_room()


async def until_heard(api: Api, streamer: str, identities: set[str]) -> None:
    async with asyncio.timeout(10):
        while True:
            told: Any = (await payloads(api, streamer, 1))[-1]["p"]
            if told.keys() == identities and all(volume["v"] > 1000 for volume in told.values()):
                return


async def until_connected(api: Api, room: str, identities: set[str]) -> None:
    async with asyncio.timeout(5):
        while set(await connected(api, room)) != identities:
            await asyncio.sleep(0.1)


async def until_received(api: Api, packets: int) -> None:
    async with asyncio.timeout(5):
        while (await api.metrics()).get('audiomixer_packets_total{fate="received"}', 0) < packets:
            await asyncio.sleep(0.1)


async def test_a_room_there_is_mixed(api: Api, server: Server, room: str) -> None:
    """Who is there is a participant here; the room completes, and the stream goes on."""
    streamer = await api.streamer()
    made = await api.processor(room, streamer)
    async with speaking(server, room, "alice", "bob") as (alice, _):
        await until_heard(api, streamer, {"alice", "bob"})
        await until_connected(api, room, {"audio-mixer-v2", "alice", "bob"})
        await until_received(api, 20)
        await alice.leave()
        await until_connected(api, room, {"audio-mixer-v2", "bob"})
        completed = await api.post(f"Rooms/{room}", 200, Status="completed")
        assert await connected(api, completed["sid"]) == []
        assert (await payloads(api, streamer, 2))[-1]["p"] == {}
        assert (await api.get(f"MediaProcessors/{made['sid']}"))["status"] == "started"


async def test_the_room_ends_there(api: Api, server: Server, room: str) -> None:
    streamer = await api.streamer()
    made = await api.processor(room, streamer)
    sid = (await api.get(f"Rooms/{room}"))["sid"]
    async with speaking(server, room, "alice"):
        await until_heard(api, streamer, {"alice"})
        await server.end(room)
        await until_connected(api, sid, set())
        assert (await api.get(f"Rooms/{sid}"))["status"] == "completed"
        assert (await payloads(api, streamer, 2))[-1]["p"] == {}
        assert (await api.get(f"MediaProcessors/{made['sid']}"))["status"] == "started"


@pytest.mark.local
async def test_without_room_creation_it_starts_unconnected(api: Api, server: Server, room: str) -> None:
    """It tries once; a room that is there is joined."""
    api.settings.room_creation = False
    one, other = await api.streamer(), await api.streamer()
    assert (await api.processor(room, one))["status"] == "started"
    assert (await api.get("Rooms", Status="in-progress"))["rooms"] == []
    api.settings.room_creation = True
    await api.processor(room, other)
    api.settings.room_creation = False
    third = await api.streamer()
    await api.processor(room, third)
    async with speaking(server, room, "alice"):
        await until_heard(api, other, {"alice"})
        await until_heard(api, third, {"alice"})
        assert (await payloads(api, one, 2))[-1]["p"] == {}


async def test_its_time_in_the_room_is_over(api: Api, server: Server, room: str) -> None:
    await api.service.rooms.create(RoomOrder(room, max_participant_duration=3))
    streamer = await api.streamer()
    made = await api.processor(room, streamer)
    async with speaking(server, room, "alice"):
        await until_heard(api, streamer, {"alice"})
        await asyncio.sleep(3)
        assert (await payloads(api, streamer, 2))[-1]["p"] == {}
        assert (await api.get(f"MediaProcessors/{made['sid']}"))["status"] == "started"


async def test_a_service_that_comes_back(server: Server, tmp_path: Path, room: str) -> None:
    """With it come its processors, into the same rooms."""
    async with running(tmp_path, **settings_for(server)) as api:
        streamer = await api.streamer()
        await api.processor(room, streamer)
    async with running(tmp_path, **settings_for(server)) as api, speaking(server, room, "alice"):
        await until_heard(api, streamer, {"alice"})


async def test_a_server_that_is_out_of_reach_is_waited_for(api: Api, server: Server, room: str) -> None:
    server.kill()
    try:
        streamer = await api.streamer()
        assert (await api.processor(room, streamer))["status"] == "started"
    finally:
        server.start()
    await asyncio.sleep(3)
    async with speaking(server, room, "alice"):
        await until_heard(api, streamer, {"alice"})


async def test_nobody_joins_here(api: Api, room: str) -> None:
    token = api.token("alice")
    headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient() as client:
        refused = await client.post(api.whip(room), headers=headers, content="v=0")
    assert refused.status_code == 404
    assert "rooms are elsewhere" in refused.json()["message"]


@pytest.mark.parametrize("given", [{}, {"livekit_api_key": KEY}, {"janus_pin": "1"}])
def test_rooms_of_livekit_need_a_key(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="rooms: expected livekit_api_key and livekit_api_secret"):
        Settings(rooms="livekit+wss://example.com", **given)


@pytest.mark.parametrize("rooms", ["livekit+http://example.com", "livekit:", "zoom+wss://example.com", "janus+wss://"])
def test_places_where_no_rooms_are(rooms: str) -> None:
    with pytest.raises(ValueError, match="expected local:, livekit"):
        Settings(rooms=rooms)


async def test_a_guest_there_is_turned_down_and_removed(api: Api, server: Server, room: str) -> None:
    """Bob is 20 dB quieter, mallory is kept out and carol is not mixed; bob is removed."""
    one, all_but_carol = await api.streamer(), await api.streamer()
    await api.processor(room, one)
    await api.processor(room, all_but_carol, context={"exclude": ["carol"]})
    async with speaking(server, room, "alice", "bob", "carol"):
        await until_heard(api, one, {"alice", "bob", "carol"})
        await until_heard(api, all_but_carol, {"alice", "bob"})
        await api.post(f"Rooms/{room}/Participants/bob", 200, Gain=-20)
        for streamer in (one, all_but_carol):
            told: Any = (await payloads(api, streamer, 2))[-1]["p"]
            assert told["bob"]["v"] == pytest.approx(told["alice"]["v"] / 10, rel=0.05)
        bob = await api.get(f"Rooms/{room}/Participants/bob")
        assert (bob["gain_db"], bob["codec"], bob["muted"]) == (-20, "opus", False)
        assert 30 < bob["delay_ms"] < 400
        await api.post(f"Rooms/{room}/Participants/bob", 200, KeptOut="true")
        await until_connected(api, room, {"audio-mixer-v2", "alice", "carol"})
        with contextlib.suppress(JanusError):  # He may be gone before he can publish.
            async with speaking(server, room, "bob"):
                await asyncio.sleep(1)
                await until_connected(api, room, {"audio-mixer-v2", "alice", "carol"})
        await until_connected(api, room, {"audio-mixer-v2", "alice", "carol"})


async def test_what_was_set_holds_from_the_beginning(api: Api, server: Server, room: str) -> None:
    """Bob is kept out, and alice muted, while nothing mixes; both are there when something does."""
    await api.post("Rooms", UniqueName=room)
    maker = await api.processor(room, await api.streamer())
    await asyncio.sleep(1)
    await api.post(f"MediaProcessors/{maker['sid']}", 200, Status="ended")
    async with speaking(server, room, "alice", "bob", "carol"):
        await api.post(f"Rooms/{room}/Participants/alice", 200, Muted="true")
        await api.post(f"Rooms/{room}/Participants/bob", 200, KeptOut="true")
        streamer = await api.streamer()
        await api.processor(room, streamer, context={"exclude": ["nobody"]})
        async with asyncio.timeout(10):
            while True:
                told: Any = (await payloads(api, streamer, 1))[-1]["p"]
                if told.keys() == {"alice", "carol"} and told["carol"]["v"] > 1000:
                    break
        assert told["alice"]["v"] == -1


async def test_a_choice_without_a_room_starts_unconnected(api: Api, room: str) -> None:
    nobody = f"RM{32 * '0'}"
    streamer = await api.streamer()
    made = await api.processor(nobody, streamer, context={"include": ["alice"]})
    assert made["status"] == "started"
    assert (await payloads(api, streamer, 1))[-1]["p"] == {}
