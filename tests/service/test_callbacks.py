"""Status callbacks: each once, in order, signed; whatever the receiver does."""

import asyncio
from pathlib import Path

import pytest

from audiomixer.service.resources.callbacks import signature
from tests.e2e.command import free_port
from tests.rooms.client import Client, Microphone
from tests.service.api import Api, running
from tests.service.receiver import receiving


async def test_the_life_of_a_stream(api: Api) -> None:
    """Each resource tells its own story, numbered from 0, and every request is signed."""
    async with receiving() as receiver:
        streamer = await api.streamer(StatusCallback=f"{receiver.url}/streamer?kind=player")
        processor = await api.processor(
            "lounge", streamer, StatusCallback=f"{receiver.url}/processor", StatusCallbackMethod="GET"
        )
        await api.post(f"MediaProcessors/{processor['sid']}", 200, Status="ended")
        await receiver.until(5)
        assert receiver.tries == 5
    player = [told for told in receiver.told if "/streamer" in told.url]
    assert [told.event for told in player] == [f"player-streamer-{event}" for event in ("created", "started", "ended")]
    assert [told.parameters["SequenceNumber"] for told in player] == ["0", "1", "2"]
    assert player[2].parameters["EndedReason"] == "stream-disconnected-by-source"
    assert player[0].parameters["PlayerStreamerSid"] == streamer
    assert player[0].parameters["AccountSid"] == api.settings.account_sid
    media = [told for told in receiver.told if "/processor" in told.url]
    assert [told.event for told in media] == ["media-processor-started", "media-processor-ended"]
    assert media[1].parameters["Extension"] == "audio-mixer-v2"
    assert media[1].parameters["ExtensionContext"] == processor["extension_context"]
    for told in player:
        posted = {name: value for name, value in told.parameters.items() if name != "kind"}
        assert told.signature == signature(api.settings.auth_token, told.url, posted)
    for told in media:
        assert told.method == "GET"
        assert told.signature == signature(api.settings.auth_token, told.url)


def test_the_signature_is_the_documented_one() -> None:
    """The example of the vendor's documentation on validating requests."""
    url = "https://example.com/myapp.php?foo=1&bar=2"
    parameters = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675310",
        "Digits": "1234",
        "From": "+14158675310",
        "To": "+18005551212",
    }
    assert signature("12345", url, parameters) == "L/OH5YylLD5NRKLltdqwSvS0BnU="


async def test_the_life_of_a_room(api: Api) -> None:
    async with receiving() as receiver:
        room = await api.post("Rooms", UniqueName="lounge", StatusCallback=receiver.url)
        async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
            await api.post(f"Rooms/{room['sid']}", 200, Status="completed")
        await receiver.until(4)
    assert receiver.events() == ["room-created", "participant-connected", "participant-disconnected", "room-ended"]
    assert receiver.told[1].parameters["ParticipantIdentity"] == "alice"
    assert receiver.told[3].parameters["RoomSid"] == room["sid"]
    assert receiver.told[3].parameters["RoomName"] == "lounge"


async def test_a_receiver_that_is_slow_then_down_then_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes 0.3 s for each, refuses for a while, is back: nothing is lost, nothing out of order."""
    monkeypatch.setattr("audiomixer.service.resources.callbacks._FIRST_PAUSE", 0.1)
    async with receiving() as receiver, receiving() as other:
        receiver.delay = 0.3
        room = await api.post("Rooms", UniqueName="lounge", StatusCallback=receiver.url)
        for identity in ("a", "b", "c"):
            async with Client(api.whip("lounge"), Microphone(500), token=api.token(identity)) as client:
                await client.delete()
        receiver.status = 500
        streamer = await api.streamer(StatusCallback=other.url)
        await other.until(1, seconds=1)  # A slow receiver delays its own resources only.
        await api.post(f"Rooms/{room['sid']}", 200, Status="completed")
        await asyncio.sleep(1)
        receiver.status = 200
        await receiver.until(8)
        await api.post(f"PlayerStreamers/{streamer}", 200, Status="ended")
        await other.until(2)
    expected = ["room-created", *["participant-connected", "participant-disconnected"] * 3, "room-ended"]
    assert receiver.events() == expected
    assert [told.parameters["SequenceNumber"] for told in receiver.told] == [str(n) for n in range(8)]
    assert receiver.tries > 8


async def test_what_waits_survives_a_restart(tmp_path: Path) -> None:
    """Nobody listens; the service is started again; then somebody does."""
    port = free_port()
    async with running(tmp_path) as api:
        streamer = await api.streamer(StatusCallback=f"http://127.0.0.1:{port}/")
        await api.post(f"PlayerStreamers/{streamer}", 200, Status="ended")
        await asyncio.sleep(0.2)
        assert api.service.callbacks.waiting == 2
    async with receiving(port) as receiver, running(tmp_path) as api:
        await receiver.until(2)
        assert receiver.events() == ["player-streamer-created", "player-streamer-ended"]
        await asyncio.sleep(0.1)
        assert api.service.callbacks.waiting == 0


async def test_what_is_told_together_is_counted_each(api: Api) -> None:
    """A processor that ends ends its streamer as well, in one transaction."""
    nowhere = f"http://127.0.0.1:{free_port()}/"
    streamer = await api.streamer(StatusCallback=nowhere)
    processor = await api.processor("lounge", streamer, StatusCallback=nowhere)
    await api.post(f"MediaProcessors/{processor['sid']}", 200, Status="ended")
    await api.settle()
    assert api.service.callbacks.waiting == 5


async def test_the_outbox_is_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiomixer.service.resources.callbacks._MOST_WAITING", 2)
    room = await api.post("Rooms", UniqueName="lounge", StatusCallback=f"http://127.0.0.1:{free_port()}/")
    async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
        await api.post(f"Rooms/{room['sid']}", 200, Status="completed")
    await api.settle()
    assert (api.service.callbacks.waiting, api.service.callbacks.given_up) == (2, 2)


async def test_an_address_that_has_become_private_is_not_called(tmp_path: Path) -> None:
    """It was allowed when the resource was made, and is not when it is called."""
    async with receiving() as receiver, running(tmp_path) as api:
        streamer = await api.streamer(StatusCallback=receiver.url)
        await receiver.until(1)
        api.service.outbound._allowed.clear()
        await api.post(f"PlayerStreamers/{streamer}", 200, Status="ended")
        await asyncio.sleep(0.5)
        assert receiver.tries == 1
        assert api.service.callbacks.failed >= 1
