"""A host's hand on participants, by the API: now, before they join, after a restart, in rooms of ours and elsewhere."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.rooms.client import Client, Microphone
from tests.service.api import Api, running
from tests.service.test_media_processors import payloads
from tests.service.test_rooms import refused


async def volume(api: Api, streamer: str, identity: str) -> int:
    """In the next whole payload."""
    told: Any = (await payloads(api, streamer, 2))[-1]["p"]
    return int(told[identity]["v"])


async def test_a_guest_is_turned_down_muted_put_aside_and_removed(api: Api) -> None:
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    async with (
        Client(api.whip("lounge"), Microphone(500), token=api.token("alice")),
        Client(api.whip("lounge"), Microphone(900), token=api.token("bob")),
    ):
        await asyncio.sleep(1.5)
        await api.settle()
        here = {p["identity"]: p for p in (await api.get("Rooms/lounge/Participants"))["participants"]}
        bob, mixer = here["bob"], here["audio-mixer-v2"]
        assert {name: bob[name] for name in ("gain_db", "muted_by_host", "in_mix", "kept_out", "muted", "codec")} == {
            "gain_db": 0,
            "muted_by_host": False,
            "in_mix": True,
            "kept_out": False,
            "muted": False,
            "codec": "opus",
        }
        assert bob["packets_lost"] == bob["concealed_ms"] == 0
        assert 30 < bob["delay_ms"] < 300
        assert bob["volume"] == pytest.approx(4634, rel=0.05)
        assert "httpx" in bob["client"]
        assert (mixer["volume"], mixer["codec"]) == (None, None)

        url = f"Rooms/lounge/Participants/{bob['sid']}"
        loud = await volume(api, streamer, "bob")
        assert (await api.post(url, 200, Gain=-6))["gain_db"] == -6
        assert await volume(api, streamer, "bob") == pytest.approx(loud / 10 ** (6 / 20), rel=0.0116)
        turned = await api.post(url, 200, Gain=0, Muted="true")
        assert (turned["gain_db"], turned["muted_by_host"]) == (0, True)
        assert await volume(api, streamer, "bob") == -1
        await api.post(url, 200, Muted="false", InMix="false")
        assert await volume(api, streamer, "bob") == -1
        assert (await api.get(url))["volume"] == pytest.approx(4634, rel=0.05), "the room hears him"
        quiet = await api.post("Rooms/lounge/Participants/bob", 200, InMix="true", Denoise="true")
        assert quiet["denoise"] is True
        assert await volume(api, streamer, "bob") > 1000

        gone = await api.post(url, 200, Status="disconnected")
        assert (gone["status"], gone["volume"]) == ("disconnected", None)
        assert "bob" not in (await payloads(api, streamer, 2))[-1]["p"]  # type: ignore[operator]
        assert (await api.post(f"Rooms/lounge/Participants/{mixer['sid']}", 400, Muted="true"))["message"].endswith(
            "its MediaProcessor can be ended"
        )


async def test_settings_come_before_the_guest_and_outlast_the_service(tmp_path: Path) -> None:
    """Bob is to be quiet, and eve is not to come; neither has been there yet."""
    async with running(tmp_path) as api:
        room = await api.post("Rooms", UniqueName="lounge", EmptyRoomTimeout=60)
        expected = await api.post("Rooms/lounge/Participants/bob", 200, Gain="-20")
        assert (expected["sid"], expected["status"], expected["gain_db"]) == (None, "expected", -20)
        for eve in ("eve", "эва/💃"):
            kept = await api.post(f"Rooms/{room['sid']}/Participants/{quote(eve)}", 200, KeptOut="true")
            assert (kept["identity"], kept["kept_out"]) == (eve, True)
            listed = (await api.get("Rooms/lounge/Participants", Status="expected"))["participants"]
            assert listed[-1] == kept
            answer = await refused(api, "lounge", api.token(eve))
            assert answer.status_code == 403
    async with running(tmp_path) as api:
        streamer = await api.streamer()
        await api.processor("lounge", streamer)
        async with Client(api.whip("lounge"), Microphone(500), token=api.token("bob")):
            await asyncio.sleep(1)
            assert await volume(api, streamer, "bob") == pytest.approx(463, rel=0.05)
        assert (await refused(api, "lounge", api.token("eve"))).status_code == 403
        await api.post("Rooms/lounge/Participants/eve", 200, KeptOut="false")
        async with Client(api.whip("lounge"), Microphone(500), token=api.token("eve")):
            pass
        await api.post("Rooms/lounge", 200, Status="completed")
        again = await api.streamer()
        await api.processor("lounge", again)
        assert (await api.get("Rooms/lounge/Participants/bob", 404))["status"] == 404, "it is another room"
        async with Client(api.whip("lounge"), Microphone(500), token=api.token("bob")):
            await asyncio.sleep(1)
            assert await volume(api, again, "bob") == pytest.approx(4634, rel=0.05)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"Gain": "13"}, "Gain: expected less than or equal to 12"),
        ({"Gain": "nan"}, "Gain"),
        ({"Gain": "loud"}, "Gain"),
        ({"Muted": "perhaps"}, "Muted"),
        ({"InMix": "2"}, "InMix"),
        ({"Status": "connected"}, "Status"),
        ({"Mutedd": "1"}, "Mutedd: expected Muted"),
    ],
)
async def test_what_cannot_be_set(api: Api, form: dict[str, str], message: str) -> None:
    await api.post("Rooms", UniqueName="lounge")
    refusal = await api.post("Rooms/lounge/Participants/bob", 400, **form)
    assert message in refusal["message"]
    await api.get("Rooms/lounge/Participants/bob", 404)


async def test_whom_there_is_not(api: Api) -> None:
    room = await api.post("Rooms", UniqueName="lounge")
    await api.post("Rooms/nowhere/Participants/bob", 404, Gain="1")
    await api.post("Rooms/lounge/Participants/bob", 409, Status="disconnected")
    await api.post(f"Rooms/lounge/Participants/PA{32 * '0'}", 404, Gain="1")
    await api.post(f"Rooms/lounge/Participants/{'x' * 257}", 400, Gain="1")
    await api.post("Rooms/lounge", 200, Status="completed")
    assert "in progress" in (await api.post(f"Rooms/{room['sid']}/Participants/bob", 409, Gain="1"))["message"]


async def test_of_a_thousand_identities_something_is_set_and_no_more(api: Api) -> None:
    await api.post("Rooms", UniqueName="lounge")
    room = await api.service.rooms.find("lounge")
    assert room
    for n in range(1000):
        await api.service.participants.set(room, f"guest-{n}", {"muted": True})
    refusal = await api.post("Rooms/lounge/Participants/bob", 429, Muted="true")
    assert "at most 1000" in refusal["message"]
    await api.post("Rooms/lounge/Participants/guest-1", 200, Muted="false")
    await api.post("Rooms/lounge/Participants/bob", 200, Muted="true")


async def test_only_for_who_has_the_credentials(api: Api) -> None:
    await api.post("Rooms", UniqueName="lounge")
    async with httpx.AsyncClient() as stranger:
        answer = await stranger.post(f"{api.url}/v1/Rooms/lounge/Participants/bob", data={"Muted": "true"})
    assert answer.status_code == 401


@pytest.mark.parametrize("choice", [{"include": ["alice"]}, {"exclude": "bob"}, {"include": [1]}])
async def test_a_choice_is_for_rooms_elsewhere(api: Api, choice: dict[str, Any]) -> None:
    refusal = await api.processor("lounge", await api.streamer(), status=400, context=choice)
    assert next(iter(choice)) in refusal["message"]


async def test_who_has_just_come_has_to_go(api: Api) -> None:
    await api.processor("lounge", await api.streamer())
    for form in ({"KeptOut": "true"}, {"KeptOut": "false"}, {"Status": "disconnected"}):
        if form != {"KeptOut": "false"}:
            async with Client(api.whip("lounge"), Microphone(500), token=api.token("bob")):
                left = await api.post("Rooms/lounge/Participants/bob", 200, **form)
                assert left["status"] == "disconnected"
        else:
            await api.post("Rooms/lounge/Participants/bob", 200, **form)
