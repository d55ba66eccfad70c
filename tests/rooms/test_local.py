"""The embedded room, with stock aiortc clients that join over WHIP and listen over WHEP."""

import asyncio
import contextlib
import re
import time
from urllib.parse import quote

import aioice.ice
import httpx
import numpy as np
import pytest
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from audiomixer import AudioMixer
from audiomixer.auth.tokens import mint
from audiomixer.rooms.local import LocalRoom
from tests.conftest import Service
from tests.rooms.client import Client, Microphone
from tests.signals import Signal, level_at

SECRET = "0123456789abcdef0123456789abcdef"


def newest(client: Client) -> Signal:
    """The last second that a client has heard, mono."""
    return np.concatenate(client.heard)[-48_000:].mean(axis=1)


async def volumes(room: LocalRoom) -> dict[str, int]:
    async for payload in room.volumes.subscribe():
        return payload
    raise AssertionError("the room has ended")


def whip(service: Service, identity: str) -> str:
    return f"{service.url}/whip/lounge?identity={identity}"


async def test_everybody_hears_everybody_but_themselves(service: Service) -> None:
    async with (
        Client(whip(service, "alice"), Microphone(500)) as alice,
        Client(whip(service, "bob"), Microphone(900)) as bob,
        Client(whip(service, "carol"), Microphone(1300), hears=False) as carol,
    ):
        await asyncio.sleep(3)
        room = service.streams.rooms.get("lounge")
        assert room
        assert await volumes(room) == {name: pytest.approx(4634, rel=0.05) for name in ("alice", "bob", "carol")}
        for client, own, others in ((alice, 500, (900, 1300)), (bob, 900, (500, 1300))):
            heard = newest(client)
            assert level_at(heard, own) < 0.005, "below what the codec makes of the other tones"
            for other in others:
                assert level_at(heard, other) == pytest.approx(0.2, rel=0.1)
        assert not carol.heard
        stats = room.stats()["alice"]
        assert stats.received > 100
        assert stats.lost == 0


async def test_listeners_hear_the_mix_and_get_the_metadata(service: Service) -> None:
    async with Client(whip(service, "alice"), Microphone(700)):
        stream = await service.streams.start("lounge", 192)
        async with Client(f"{service.url}/whep/{stream.sid}") as listener:
            await asyncio.sleep(3)
            assert level_at(newest(listener), 700) == pytest.approx(0.2, rel=0.1)
            numbers = [payload["s"] for payload in listener.payloads]
            assert len(numbers) >= 3
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert listener.payloads[-1]["p"]["alice"]["v"] == pytest.approx(4634, rel=0.05)
            assert stream.whep.active
            assert (await listener.delete()).status_code == 200
            assert (await listener.delete()).status_code == 404
            assert not stream.whep.active


async def test_a_muted_track_shows_within_a_second_and_comes_back_at_once(service: Service) -> None:
    microphone = Microphone(500)
    async with Client(whip(service, "alice"), microphone, hears=False):
        room = service.streams.rooms.open("lounge")
        await asyncio.sleep(1.5)
        microphone.muted = True
        await asyncio.sleep(0.7)
        assert await volumes(room) == {"alice": -1}
        microphone.muted = False
        await asyncio.sleep(0.3)
        assert (await volumes(room))["alice"] > 0


async def test_who_leaves_is_gone_at_once_and_the_room_with_the_last(service: Service) -> None:
    async with Client(whip(service, "alice"), Microphone(500)) as alice, Client(whip(service, "bob"), Microphone(900)):
        await asyncio.sleep(1)
        room = service.streams.rooms.open("lounge")
        assert (await alice.delete()).status_code == 200
        assert room.identities == ["bob"]
        assert set(await volumes(room)) == {"bob"}
        assert (await alice.delete()).status_code == 404
    for _ in range(100):
        if service.streams.rooms.get("lounge") is None:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the room is still there")


async def test_who_vanishes_is_gone_within_seconds_and_the_others_hear_no_gap(service: Service) -> None:
    async with (
        Client(whip(service, "alice"), Microphone(500)) as alice,
        Client(whip(service, "bob"), Microphone(900)) as bob,
        Client(whip(service, "carol"), Microphone(1300), hears=False),
    ):
        await asyncio.sleep(1.5)
        room = service.streams.rooms.open("lounge")
        heard_before = len(bob.heard)
        alice.vanish()
        began = time.monotonic()
        while "alice" in room.identities:
            await asyncio.sleep(0.1)
            assert time.monotonic() - began < 10
        await asyncio.sleep(0.5)
        while_alice_went = np.concatenate(bob.heard[heard_before:]).mean(axis=1)
        seconds = time.monotonic() - began
        assert len(while_alice_went) / 48_000 == pytest.approx(seconds, abs=0.3)
        for start in range(0, len(while_alice_went) - 4800, 4800):
            assert level_at(while_alice_went[start : start + 4800], 1300) == pytest.approx(0.2, rel=0.2)


async def test_an_offer_without_bundling_is_answered_with_the_servers_addresses_only(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_COMPAT))
    pc.addTransceiver(Microphone(500), direction="sendonly")
    pc.createDataChannel("chat")
    await pc.setLocalDescription(await pc.createOffer())
    offer = re.sub(r"a=group:BUNDLE.*\r\n", "", pc.localDescription.sdp)
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: ["127.0.0.1", "127.0.0.2"])
    async with httpx.AsyncClient() as client:
        headers = {"Content-Type": "application/sdp"}
        response = await client.post(whip(service, "alice"), headers=headers, content=offer)
    assert response.status_code == 201
    assert set(re.findall(r"a=candidate:\S+ \d \S+ \d+ (\S+) ", response.text)) == {"127.0.0.1"}
    await pc.close()


async def test_an_offer_with_video_first_is_answered_for_its_audio(service: Service) -> None:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("video", direction="sendrecv")
    pc.addTransceiver(Microphone(500), direction="sendonly")
    await pc.setLocalDescription(await pc.createOffer())
    async with httpx.AsyncClient() as client:
        headers = {"Content-Type": "application/sdp"}
        response = await client.post(whip(service, "alice"), headers=headers, content=pc.localDescription.sdp)
    assert response.status_code == 201
    assert set(re.findall(r"a=candidate:\S+ \d \S+ \d+ (\S+) ", response.text)) == {"127.0.0.1"}
    await pc.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
    await asyncio.sleep(1.5)
    assert service.streams.rooms.open("lounge").stats()["alice"].received > 20
    await pc.close()


async def test_a_second_join_replaces_the_first(service: Service) -> None:
    """A reload, or a crash, locks nobody out; the one replaced does not take the other along when it goes."""
    async with Client(whip(service, "alice"), Microphone(500)) as first:
        await asyncio.sleep(0.5)
        async with Client(whip(service, "alice"), Microphone(900)) as second:
            await asyncio.sleep(2)
            room = service.streams.rooms.open("lounge")
            assert room.identities == ["alice"]
            assert room.stats()["alice"].received < 150
            assert (await first.delete()).status_code == 404
            assert room.identities == ["alice"]
            assert (await second.delete()).status_code == 200


@pytest.mark.parametrize("service", [SECRET], indirect=True)
async def test_a_room_with_a_secret_takes_the_identity_from_the_token(service: Service) -> None:
    url = f"{service.url}/whip/lounge?identity=mallory"
    async with Client(url, Microphone(500), token=mint(SECRET, "alice", "lounge")):
        assert service.streams.rooms.open("lounge").identities == ["alice"]


@pytest.mark.parametrize("service", [SECRET], indirect=True)
@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ("", "an access token is needed"),
        (mint(SECRET, "alice", "lounge", ttl=-100), "expired"),
        (mint(SECRET, "alice", "other"), "it is for room 'other'"),
        (mint(SECRET[::-1], "alice"), "Signature"),
    ],
    ids=["missing", "expired", "another room", "another secret"],
)
async def test_tokens_that_are_not_good(service: Service, token: str, problem: str) -> None:
    client = Client(f"{service.url}/whip/lounge", Microphone(500), token=token)
    with pytest.raises(httpx.HTTPStatusError):
        await client.__aenter__()
    await client.pc.close()
    assert client.response.status_code == 401
    assert client.response.headers["WWW-Authenticate"] == "Bearer"
    assert problem in client.response.json()["message"]
    assert list(service.streams.rooms) == []


OFFER = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
PCMU = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\n"
    "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\n"
    "a=fingerprint:sha-256 00:11\r\na=rtpmap:0 PCMU/8000\r\n"
)
VIDEO = PCMU.replace("m=audio 9 UDP/TLS/RTP/SAVPF 0", "m=video 9 UDP/TLS/RTP/SAVPF 96").replace(
    "0 PCMU/8000", "96 VP8/90000"
)
OPUS = PCMU.replace("SAVPF 0", "SAVPF 111").replace("0 PCMU/8000", "111 opus/48000/2")
BARE = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\n"


@pytest.mark.parametrize(
    ("kind", "body", "status", "problem"),
    [
        ("text/plain", OFFER, 415, "Content-Type: expected application/sdp"),
        ("application/sdp", "", 400, "offer: expected SDP"),
        ("application/sdp", "hello", 400, "offer: expected SDP"),
        ("application/sdp", b"v=0\r\n\xff\xfe", 400, "offer: expected SDP in UTF-8"),
        ("application/sdp", "v=0\r\nm=audio\r\n", 400, "offer: expected SDP"),
        ("application/sdp", OFFER, 400, "offer: expected an audio section"),
        ("application/sdp", OFFER + VIDEO, 400, "offer: expected an audio section"),
        ("application/sdp", OFFER + PCMU, 400, "offer: expected Opus"),
        ("application/sdp", OFFER + BARE, 400, "offer: expected ICE credentials"),
        ("application/sdp", OFFER + OPUS.replace("a=rtcp-mux\r\n", ""), 400, "offer: expected a=rtcp-mux"),
        ("application/sdp", OFFER + OPUS + OPUS, 400, "offer: expected an a=mid of its own for each section"),
        ("application/sdp", OFFER + OPUS + VIDEO.replace("mid:0", "mid:1") * 16, 400, "expected at most 16 sections"),
        ("application/sdp", OFFER + "a=x\r\n" * 50_000, 413, "offer: expected at most 65536 bytes"),
    ],
    ids=[
        "type",
        "empty",
        "text",
        "bytes",
        "broken",
        "nothing",
        "video",
        "pcmu",
        "bare",
        "mux",
        "twice",
        "many",
        "huge",
    ],
)
async def test_offers_that_are_none(service: Service, kind: str, body: str | bytes, status: int, problem: str) -> None:
    async with Client(f"{service.url}/whip/other?identity=bob", Microphone(500), hears=False):
        async with httpx.AsyncClient() as client:
            response = await client.post(whip(service, "alice"), headers={"Content-Type": kind}, content=body)
        assert response.status_code == status
        assert problem in response.json()["message"]
        await asyncio.sleep(0.05)
        assert [room.name for room in service.streams.rooms] == ["other"], (
            "nothing is left of it, the other room is there"
        )


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/whip/lounge", "identity: expected 1 to 256 bytes"),
        ("/whip/lounge?identity=", "identity: expected 1 to 256 bytes"),
        ("/whip/lounge?identity=%1b[2J", "identity: expected 1 to 256 bytes of printable text"),
        ("/whip/lounge?identity=a%E2%80%8Dlice", "identity: expected 1 to 256 bytes of printable text"),
        ("/whip/lounge?identity=%E2%80%8D", "identity: expected 1 to 256 bytes of printable text"),
        ("/whip/lounge?identity=%E3%85%A4", "identity: expected 1 to 256 bytes of printable text"),
        ("/whip/lounge?identity=%E2%80%AEalice", "identity: expected 1 to 256 bytes of printable text"),
        ("/whip/lounge?identity=" + "x" * 257, "identity: expected 1 to 256 bytes"),
        ("/whip/no%23name?identity=alice", "room: expected up to 128 printable"),
        ("/whip/" + "x" * 129 + "?identity=alice", "room: expected up to 128 printable"),
    ],
)
async def test_names_that_are_none(service: Service, path: str, problem: str) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.post(service.url + path, headers={"Content-Type": "application/sdp"}, content=OFFER)
    assert response.status_code == 400
    assert problem in response.json()["message"]
    await asyncio.sleep(0.05)
    assert list(service.streams.rooms) == []


@pytest.mark.parametrize("room", ["日本", "комната", "café", "a b", "نیم‌فاصله"])
async def test_rooms_and_people_of_any_alphabet(service: Service, room: str) -> None:
    """Joined by WHIP, told in the metadata, and left by the resource that was given."""
    names = ["Zoë", "می‌خواهم", "👩‍👩‍👧", "אבג"]
    async with contextlib.AsyncExitStack() as stack:
        for name in names:
            url = httpx.URL(f"{service.url}/whip/{quote(room)}", params={"identity": name})
            client = await stack.enter_async_context(Client(str(url), Microphone(500), hears=False))
            assert client.response.headers["location"].isascii()
        here = service.streams.rooms.open(room)
        assert here.identities == names
        assert list(here.bus.mixer.volumes()) == names
        assert (await client.delete()).status_code == 200
        assert here.identities == names[:-1]


async def test_what_happens_is_told(service: Service) -> None:
    room = service.streams.rooms.open("lounge")
    mixer = AudioMixer(room)
    events = mixer.room_events()
    async with mixer:
        async with Client(f"{service.url}/whip/lounge?identity=alice", Microphone(500)) as alice:
            async with Client(f"{service.url}/whip/lounge?identity=listener"):
                pass
            await alice.delete()
        told = [await anext(events) for _ in range(7)]
    assert (told[0].what, told[0].identity) == ("joined", "")
    of_alice = [event.what for event in told if event.identity == "alice"]
    assert of_alice == ["participant-joined", "published", "unpublished", "participant-left"]
    assert ("listener", "participant-joined") in [(event.identity, event.what) for event in told]
