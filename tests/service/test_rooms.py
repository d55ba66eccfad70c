"""Rooms as resources, and who is in them."""

import asyncio
import time

import httpx
import pytest

from tests.rooms.client import Client, Microphone
from tests.service.api import Api


async def refused(api: Api, room: str, token: str) -> httpx.Response:
    client = Client(api.whip(room), Microphone(500), token=token)
    with pytest.raises(httpx.HTTPStatusError):
        await client.__aenter__()
    await client.pc.close()
    return client.response


async def test_a_room_and_its_participants(api: Api) -> None:
    """Alice joins by the room's name, bob by its SID; bob leaves; the room completes and alice has to leave."""
    room = await api.post(
        "Rooms", UniqueName="lounge", MaxParticipants=7, EmptyRoomTimeout=9, AudioOnly="true", Type="group"
    )
    assert room["status"] == "in-progress"
    assert (room["max_participants"], room["empty_room_timeout"], room["unused_room_timeout"]) == (7, 9, 5)
    assert await api.get("Rooms/lounge") == await api.get(f"Rooms/{room['sid']}") == room
    alice = Client(api.whip("lounge"), Microphone(500), token=api.token("alice", room["sid"]))
    began = time.monotonic()
    async with alice, Client(api.whip(room["sid"]), Microphone(500), token=api.token("bob", "lounge")) as bob:
        await asyncio.sleep(1)
        here = (await api.get(f"Rooms/{room['sid']}/Participants", Order="asc"))["participants"]
        assert [(p["identity"], p["status"]) for p in here] == [("alice", "connected"), ("bob", "connected")]
        assert here[0]["sid"].startswith("PA")
        await bob.delete()
        await api.settle()
        left = (await api.get(f"Rooms/{room['sid']}/Participants", Status="disconnected"))["participants"]
        assert [(p["identity"], p["duration"]) for p in left] == [("bob", 1)]
        ended = await api.post(f"Rooms/{room['sid']}", 200, Status="completed")
        assert ended["status"] == "completed"
        assert ended["end_time"]
    took = time.monotonic() - began
    await api.settle()
    gone = (await api.get(f"Rooms/{room['sid']}/Participants", Status="connected"))["participants"]
    assert gone == []
    used = 60 * (await api.get(f"Rooms/{room['sid']}/Usage"))["participant_minutes"]
    assert 1.9 < used < 2 * took, "two of them, for more than a second each"
    await api.get("Rooms/lounge", 404)
    assert (await refused(api, room["sid"], api.token("carol"))).status_code == 404


async def test_names_are_unique_while_a_room_is_in_progress(api: Api) -> None:
    first = await api.post("Rooms", UniqueName="a name with spaces & ünïcode")
    again = await api.post("Rooms", 400, UniqueName="a name with spaces & ünïcode")
    assert again["code"] == 53113
    await api.post(f"Rooms/{first['sid']}", 200, Status="COMPLETED")
    await api.post("Rooms", UniqueName="a name with spaces & ünïcode")
    unnamed = await api.post("Rooms")
    assert unnamed["unique_name"] == unnamed["sid"]
    listed = (await api.get("Rooms", Status="in-progress"))["rooms"]
    assert len(listed) == 2


async def test_who_joins_first_makes_the_room_where_that_is_allowed(api: Api) -> None:
    async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
        assert [room["unique_name"] for room in (await api.get("Rooms"))["rooms"]] == ["lounge"]
    api.settings.room_creation = False
    assert (await refused(api, "kitchen", api.token("alice"))).status_code == 404


async def test_who_may_not_join(api: Api) -> None:
    await api.post("Rooms", UniqueName="lounge")
    assert (await refused(api, "lounge", "")).status_code == 401
    assert (await refused(api, "lounge", api.token("alice", "kitchen"))).status_code == 401
    assert (await refused(api, "lounge", api.token("alice", player={"playbackUrl": "x"}))).status_code == 401
    assert (await refused(api, "nowhere", api.token("alice", "kitchen"))).status_code == 401
    assert len((await api.get("Rooms"))["rooms"]) == 1, "who may not join makes no room either"


async def test_a_full_room(api: Api) -> None:
    """Two places: the mixer has one, alice the other; she can come back in her own place, bob has none."""
    await api.post("Rooms", UniqueName="lounge", MaxParticipants=2)
    await api.processor("lounge", await api.streamer())
    async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
        full = await refused(api, "lounge", api.token("bob"))
        assert (full.status_code, full.json()["code"]) == (429, 20429)
        async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
            await api.settle()
            here = (await api.get("Rooms/lounge/Participants", Status="connected"))["participants"]
            assert sorted(p["identity"] for p in here) == ["alice", "audio-mixer-v2"]


async def test_places_are_counted_while_people_join(api: Api) -> None:
    """Five at the same moment, for one place."""
    await api.post("Rooms", UniqueName="lounge", MaxParticipants=1)
    clients = [Client(api.whip("lounge"), Microphone(500), token=api.token(name)) for name in "abcde"]
    joined = await asyncio.gather(*(client.__aenter__() for client in clients), return_exceptions=True)
    assert sum(isinstance(outcome, Client) for outcome in joined) == 1
    for client in clients:
        await client.__aexit__()


async def test_a_full_server(api: Api) -> None:
    api.settings.max_participants, api.settings.max_rooms = 1, 1
    async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
        assert (await refused(api, "lounge", api.token("bob"))).status_code == 429
        assert (await refused(api, "kitchen", api.token("bob"))).status_code == 429
        assert (await api.post("Rooms", 429, UniqueName="kitchen"))["code"] == 20429


async def test_rooms_end_when_nobody_is_there(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody joins ends after its timeout; one that everybody has left, after its other one."""
    monkeypatch.setattr("audiomixer.service.resources.room_lifecycle._MINUTE", 0.6)
    await api.post("Rooms", UniqueName="unused", UnusedRoomTimeout=1)
    await api.post("Rooms", UniqueName="used", EmptyRoomTimeout=1)
    async with Client(api.whip("used"), Microphone(500), token=api.token("alice")) as alice:
        await asyncio.sleep(1)
        assert [room["unique_name"] for room in (await api.get("Rooms", Status="in-progress"))["rooms"]] == ["used"]
        await alice.delete()
    await asyncio.sleep(0.3)
    assert (await api.get("Rooms/used"))["status"] == "in-progress"
    await asyncio.sleep(0.8)
    await api.get("Rooms/used", 404)


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"UniqueName": "a/b"}, "UniqueName: "),
        ({"UniqueName": "x" * 129}, "UniqueName: "),
        ({"UniqueName": "\x00"}, "UniqueName: "),
        ({"UniqueName": "RM" + "0" * 32}, "UniqueName: "),
        ({"MaxParticipants": 0}, "MaxParticipants: "),
        ({"MaxParticipantDuration": 599}, "MaxParticipantDuration: "),
        ({"EmptyRoomTimeout": "x"}, "EmptyRoomTimeout: "),
        ({"StatusCallback": "http://"}, "StatusCallback: "),
    ],
)
async def test_what_is_wrong_is_said(api: Api, form: dict[str, object], field: str) -> None:
    assert (await api.post("Rooms", 400, **form))["message"].startswith(field)
    assert (await api.get("Rooms"))["rooms"] == []


async def test_volumes_are_for_who_may_join(api: Api) -> None:
    await api.post("Rooms", UniqueName="lounge")
    for token in ("x", api.token("alice", "kitchen")):
        headers = {"Authorization": f"Bearer {token}"}
        assert (await api.client.get(f"{api.url}/rooms/lounge/volumes", headers=headers, auth=None)).status_code == 401
    headers = {"Authorization": f"Bearer {api.token('alice', 'lounge')}"}
    url = f"{api.url}/rooms/lounge/volumes"
    async with httpx.AsyncClient() as client, client.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200


async def test_what_there_is_is_for_who_has_credentials(api: Api) -> None:
    async with httpx.AsyncClient() as client:
        for path in ("/", "/overview.json"):
            answer = await client.get(api.url + path)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert (await api.client.get(f"{api.url}/overview.json")).status_code == 200
