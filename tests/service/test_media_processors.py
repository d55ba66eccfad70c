"""MediaProcessors: from `started` to their end, whatever ends them."""

import asyncio
import json
from dataclasses import asdict

import pytest

from audiomixer import AudioMixer
from audiomixer.service.jobs import Job
from audiomixer.service.resources.room_lifecycle import RoomOrder
from tests.rooms.client import Client, Microphone
from tests.service.api import Api


async def payloads(api: Api, streamer: str, number: int) -> list[dict[str, object]]:
    """The next payloads of a stream, as server-sent events."""
    found: list[dict[str, object]] = []
    async with api.client.stream("GET", f"{api.url}/v1/PlayerStreamers/{streamer}/TimedMetadata") as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
            if len(found) == number:
                break
    return found


async def test_what_the_vendors_example_sends_works(api: Api) -> None:
    """With the quotes around the name, and keys that nobody knows."""
    streamer = await api.streamer(Video="false")
    made = await api.processor("lounge", streamer, Extension='"audio-mixer-v2"', context={"video": False})
    assert made["status"] == "started"
    assert made["sid"].startswith("ZX")
    assert made["extension"] == "audio-mixer-v2"
    assert json.loads(made["extension_context"])["video"] is False
    assert made["max_duration"] == 300
    assert made["ended_reason"] is None
    assert made["url"] == f"{api.url}/v1/MediaProcessors/{made['sid']}"
    assert await api.get(f"MediaProcessors/{made['sid']}") == made
    assert (await api.get(f"PlayerStreamers/{streamer}"))["status"] == "started"


async def test_from_a_participant_to_the_end(api: Api) -> None:
    """Alice joins at 0 s and is heard; the processor ends, and with it the stream; ending it again changes nothing."""
    streamer = await api.streamer()
    made = await api.processor("lounge", streamer, context={"audioBitrate": 192})
    async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice", "lounge")):
        await asyncio.sleep(1)
        last = (await payloads(api, streamer, 2))[-1]
        assert last["p"]["alice"]["v"] > 1000  # type: ignore[index]
        ended = await api.post(f"MediaProcessors/{made['sid']}", 200, Status="ended")
    assert (ended["status"], ended["ended_reason"]) == ("ended", "ended-via-api")
    assert await api.post(f"MediaProcessors/{made['sid']}", 200, Status="ENDED") == ended
    fed = await api.get(f"PlayerStreamers/{streamer}")
    assert (fed["status"], fed["ended_reason"]) == ("ended", "stream-disconnected-by-source")
    usage = await api.get(f"MediaProcessors/{made['sid']}/Usage")
    assert usage["streamed_minutes"] * 60 == pytest.approx(2, abs=0.8)
    assert (await api.get(f"PlayerStreamers/{streamer}/Usage"))["streamed_minutes"] == usage["streamed_minutes"]


async def test_a_room_that_completes_leaves_silence(api: Api) -> None:
    """Alice is heard; the room completes; the stream goes on with nobody in it, also in a new room of that name."""
    streamer = await api.streamer()
    made = await api.processor("lounge", streamer)
    async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
        await asyncio.sleep(1)
        assert (await api.post("Rooms/lounge", 200, Status="completed"))["status"] == "completed"
        assert (await payloads(api, streamer, 2))[-1]["p"] == {}
    async with Client(api.whip("lounge"), Microphone(500), token=api.token("bob")):
        assert (await payloads(api, streamer, 3))[-1]["p"] == {}, "it does not join a room created later"
    assert (await api.get(f"MediaProcessors/{made['sid']}"))["status"] == "started"


async def test_without_room_creation_it_starts_unconnected(api: Api) -> None:
    api.settings.room_creation = False
    streamer = await api.streamer()
    made = await api.processor("lounge", streamer)
    assert made["status"] == "started"
    assert (await api.get("Rooms"))["rooms"] == []
    await api.post("Rooms", UniqueName="lounge")
    async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
        assert (await payloads(api, streamer, 3))[-1]["p"] == {}, "it tries once"


async def test_its_time_in_the_room_is_over(api: Api) -> None:
    """A room with 2 s for each participant: the mixer leaves it for good, and so does alice; the stream goes on."""
    room = await api.service.rooms.create(RoomOrder("lounge", max_participant_duration=2))
    streamer = await api.streamer()
    made = await api.processor("lounge", streamer, context={"identity": "the mixer"})
    async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")) as alice:
        await asyncio.sleep(0.5)
        here = (await api.get(f"Rooms/{room.sid}/Participants", Status="connected"))["participants"]
        assert {participant["identity"] for participant in here} == {"alice", "the mixer"}
        await asyncio.sleep(2)
        assert alice.pc.connectionState != "connected", "participants have to leave as well"
    async with Client(api.whip("lounge"), Microphone(500), token=api.token("bob")):
        await asyncio.sleep(0.6)
        assert (await payloads(api, streamer, 2))[-1]["p"] == {}
        here = (await api.get(f"Rooms/{room.sid}/Participants", Status="connected"))["participants"]
        assert [participant["identity"] for participant in here] == ["bob"]
    assert (await api.get(f"MediaProcessors/{made['sid']}"))["status"] == "started"


async def test_its_maximum_duration_is_over(api: Api) -> None:
    streamer = await api.streamer()
    made = await api.processor("lounge", streamer, MaxDuration=1)
    await asyncio.sleep(1.2)
    ended = await api.get(f"MediaProcessors/{made['sid']}")
    assert (ended["status"], ended["ended_reason"]) == ("ended", "max-duration-exceeded")
    assert (await api.get(f"PlayerStreamers/{streamer}"))["ended_reason"] == "stream-disconnected-by-source"


async def test_several_outputs_and_several_processors(api: Api) -> None:
    """Two streams of one mixer, a third of another in the same room; one that ends takes nothing from the others."""
    one, two, three = [await api.streamer() for _ in range(3)]
    first = await api.processor("lounge", one, two)
    second = await api.processor("lounge", three, context={"audioBitrate": 192})
    await api.post(f"PlayerStreamers/{one}", 200, Status="ended")
    assert (await api.get(f"MediaProcessors/{first['sid']}"))["status"] == "started", "an output is left"
    assert await payloads(api, two, 1)
    await api.post(f"PlayerStreamers/{two}", 200, Status="ended")
    failed = await api.get(f"MediaProcessors/{first['sid']}")
    assert (failed["status"], failed["ended_reason"]) == ("failed", "error-streaming-media")
    assert await payloads(api, three, 1)
    assert (await api.get(f"MediaProcessors/{second['sid']}"))["status"] == "started"


async def test_a_stream_has_one_source(api: Api) -> None:
    streamer = await api.streamer()
    first = await api.processor("lounge", streamer)
    refused = await api.processor("lounge", streamer, status=400)
    assert f"is fed by {first['sid']} already" in refused["message"]
    assert len((await api.get("MediaProcessors"))["media_processors"]) == 1


async def test_a_mixer_that_does_not_get_on_fails(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiomixer.service.resources.processor_lifecycle.CHECKPOINT", 0.2)
    streamer = await api.streamer()
    made = await api.processor("lounge", streamer)
    await asyncio.sleep(5)
    monkeypatch.setattr(AudioMixer, "on_frames", lambda self, samples: None)
    await asyncio.sleep(6)
    failed = await api.get(f"MediaProcessors/{made['sid']}")
    assert (failed["status"], failed["ended_reason"]) == ("failed", "internal-service-error")


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"Extension": "video-composer-v1"}, "Extension: expected audio-mixer-v2"),
        ({"ExtensionContext": "{"}, "ExtensionContext: expected JSON"),
        ({"ExtensionContext": "[]"}, "ExtensionContext: expected a JSON object"),
        ({"ExtensionContext": "[" * 10_000}, "ExtensionContext: expected JSON"),
        ({"ExtensionEnvironment": "5"}, "ExtensionEnvironment: expected a JSON object"),
        ({"context": {"room": "lounge"}}, "room.name: expected"),
        ({"context": {"room": {"name": "a/b"}}}, "room: expected"),
        ({"context": {"identity": "\x1b"}}, "identity: expected"),
        ({"context": {"identity": "\ud800"}}, "identity: expected"),
        ({"context": {"outputs": []}}, "outputs: expected"),
        ({"context": {"outputs": ["VJ1"]}}, "outputs: expected SIDs"),
        ({"context": {"outputs": ["VJ" + "0" * 32]}}, "outputs: expected a PlayerStreamer that has not ended"),
        ({"context": {"outputs": ["rtmp://127.0.0.1/x"]}}, "outputs: expected a host with a public address"),
        ({"context": {"outputs": ["file:///etc/passwd"]}}, "outputs: expected a URL of rtmp://"),
        ({"context": {"audioBitrate": 129}}, "audioBitrate: expected 128 or 192"),
        ({"context": {"audioBitrate": "128"}}, "audioBitrate: expected 128 or 192"),
        ({"MaxDuration": 0}, "MaxDuration: "),
        ({"MaxDuration": 90_001}, "MaxDuration: "),
        ({"MaxDuration": "soon"}, "MaxDuration: "),
        ({"StatusCallbackMethod": "PUT"}, "StatusCallbackMethod: "),
        ({"StatusCallback": "ftp://example.org/"}, "StatusCallback: expected a URL of http://, https://"),
    ],
)
async def test_what_is_wrong_is_said(api: Api, form: dict[str, object], field: str) -> None:
    api.service.outbound._allowed.clear()
    streamer = await api.streamer()
    refused = await api.processor("lounge", streamer, status=400, **form)
    assert field in refused["message"]
    assert refused["code"] == 20001
    assert (await api.get("MediaProcessors"))["media_processors"] == []
    assert (await api.get("Rooms"))["rooms"] == [], "nothing is left of it"


async def test_there_may_be_so_many(api: Api) -> None:
    api.settings.max_media_processors = 1
    await api.processor("lounge", await api.streamer())
    refused = await api.processor("lounge", await api.streamer(), status=429)
    assert refused["code"] == 20429


async def test_lists_have_pages(api: Api) -> None:
    """Five, two at a time, forwards and back."""
    made = [(await api.post("PlayerStreamers"))["sid"] for _ in range(5)]
    await api.post(f"PlayerStreamers/{made[0]}", 200, Status="ended")

    async def page(url: str) -> tuple[list[str], dict[str, str]]:
        answer = (await api.client.get(url)).json()
        return [row["sid"] for row in answer["player_streamers"]], answer["meta"]

    first, meta = await page(f"{api.url}/v1/PlayerStreamers?PageSize=2&Order=asc")
    assert first == made[:2]
    assert meta["key"] == "player_streamers"
    assert meta["previous_page_url"] is None
    await api.streamer()  # It comes last, and moves no page.
    second, meta = await page(meta["next_page_url"])
    assert second == made[2:4]
    third, last = await page(meta["next_page_url"])
    assert third[0] == made[4]
    assert last["next_page_url"] is None
    assert (await page(last["previous_page_url"]))[0] == second
    ended = await api.get("PlayerStreamers", Status="ended")
    assert [row["sid"] for row in ended["player_streamers"]] == made[:1]
    newest = await api.get("PlayerStreamers", PageSize=1, Page=1)
    assert newest["player_streamers"][0]["sid"] == made[4]
    assert (await api.get("PlayerStreamers", 400, PageSize=1001))["code"] == 20001


async def test_only_with_credentials(api: Api) -> None:
    for path in ("MediaProcessors", "PlayerStreamers", "Rooms", "MediaProcessors/ZX" + "0" * 32):
        api.client.auth = ("", "")  # type: ignore[assignment]
        assert (await api.get(path, 401))["code"] == 20003
        settings = api.settings
        api.client.auth = (settings.account_sid, settings.auth_token[::-1])  # type: ignore[assignment]
        assert (await api.get(path, 401))["code"] == 20003
        api.client.auth = (settings.api_key, settings.api_secret)  # type: ignore[assignment]
        await api.get(path, 404 if "/" in path else 200)


def test_a_job_is_plain_values() -> None:
    """So that it can be sent elsewhere."""
    job = Job("ZX1", "local:lounge", "mixer", ("VJ1",), 128)
    again = json.loads(json.dumps(asdict(job)))
    assert Job(**again | {name: tuple(again[name]) for name in ("outputs", "exclude", "recordings")}) == job
