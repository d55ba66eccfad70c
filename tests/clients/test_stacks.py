"""Clients that nobody here wrote publish and listen."""

import asyncio
from pathlib import Path

import httpx
import numpy as np
import pytest

from audiomixer import AudioMixer, Participant
from audiomixer.webrtc import connection
from audiomixer.webrtc.ice import LOOPBACK
from audiomixer.webrtc.peer import Peer
from tests.clients.stacks import STACKS, TONE, packets_of, tone
from tests.conftest import Service
from tests.opus import Decoder
from tests.signals import frames, level_at, sine


async def heard_in(service: Service, seconds: float) -> float:
    """The clients' tone at its loudest half second within so many, in the mix of their room."""
    levels, samples = [0.0], []
    async with AudioMixer("local:lounge", rooms=service.streams.rooms) as mixer:
        async for frame in mixer.frames():
            samples.append(frame.samples[:, 0])
            if len(samples) == 25:
                levels.append(level_at(np.concatenate(samples), TONE))
                samples = []
            if frame.time > seconds:
                break
    return max(levels)


@pytest.mark.parametrize("stack", STACKS)
async def test_a_publisher_is_heard(service: Service, stack: str, tmp_path: Path) -> None:
    url = f"{service.url}/whip/lounge?identity={stack}"
    more = [] if stack == "webrtcbin" else ["--opus", str(tone(tmp_path))]
    client = STACKS[stack]()
    hearing = asyncio.create_task(heard_in(service, 6))
    told = await client.run("publish", url, *more, seconds=3)
    assert told["connected"], told
    assert told["connect_ms"] < 5000
    assert told["sent"] > 100
    assert await hearing > 0.1
    room = service.streams.rooms.get("lounge")
    assert room is None or stack not in room.identities, "it has left"


@pytest.mark.parametrize("stack", STACKS)
async def test_a_listener_hears_and_is_told(service: Service, stack: str, tmp_path: Path) -> None:
    stream = await service.streams.start("lounge")
    room = service.streams.rooms.open("lounge")
    alice = room.bus.mixer.add_participant("alice")
    publishing = asyncio.create_task(_speak(alice))
    written = tmp_path / "heard.packets"
    more = [] if stack == "webrtcbin" else ["--opus", str(written)]
    told = await STACKS[stack]().run("listen", f"{service.url}/whep/{stream.sid}", *more, seconds=5)
    publishing.cancel()
    assert told["connected"], told
    assert told["received"] > 100
    assert told["messages"] >= 4
    if more:
        decoder = Decoder()
        decoded = [decoder.decode(packet, 960) for packet in packets_of(written)]
        assert level_at(np.concatenate(decoded[-50:]), TONE) > 0.1
    else:
        assert told["level"] > -25


async def _speak(participant: Participant) -> None:
    """Says the tone until it is cancelled."""
    pieces, loop = frames(sine(TONE, 0.3, 1)), asyncio.get_running_loop()
    began, said = loop.time(), 0
    while True:
        participant.push_pcm(pieces[said % len(pieces)])
        said += 1
        await asyncio.sleep(max(0.0, began + 0.02 * said - loop.time()))


@pytest.mark.parametrize("more", ["--rsa", "--sendrecv", "--hide", "--gcm"])
async def test_pion_with_an_rsa_certificate_both_ways_without_an_address_or_with_one_cipher(
    service: Service, more: str, tmp_path: Path
) -> None:
    url = f"{service.url}/whip/lounge?identity=pion"
    told = await STACKS["pion"]().run("publish", url, "--opus", str(tone(tmp_path)), more, seconds=1)
    assert told["connected"], told


async def test_pion_publishes_and_listens_by_tcp(service: Service, tmp_path: Path) -> None:
    url = f"{service.url}/whip/lounge?identity=pion"
    hearing = asyncio.create_task(heard_in(service, 6))
    told = await STACKS["pion"]().run("publish", url, "--opus", str(tone(tmp_path)), "--tcp", seconds=3)
    assert told["connected"], told
    assert told["connect_ms"] < 3000
    assert await hearing > 0.1
    stream = await service.streams.start("lounge")
    told = await STACKS["pion"]().run("listen", f"{service.url}/whep/{stream.sid}", "--tcp", seconds=2)
    assert (told["connected"], told["received"] > 80, told["messages"] >= 2) == (True, True, True), told


@pytest.mark.parametrize("more", [[], ["--tcp"]])
async def test_pion_restarts_ice_and_goes_on(service: Service, tmp_path: Path, more: list[str]) -> None:
    """The session has another name then, and the old one's candidates are refused; nobody has left."""
    url = f"{service.url}/whip/lounge?identity=pion"
    room = service.streams.rooms.open("lounge")

    events = room.events.subscribe()
    running = asyncio.create_task(
        STACKS["pion"]().run("publish", url, "--opus", str(tone(tmp_path)), "--restart", *more, seconds=4)
    )
    async with asyncio.timeout(10):
        while not room.identities:
            await asyncio.sleep(0.005)
        peer = next(iter(room._members.values())).peer
        before = peer.session
        while peer.session == before:
            await asyncio.sleep(0.005)
    transport = peer._transports().pop().transport
    async with asyncio.timeout(5):
        while transport._connection is not peer._restart.agent:
            await asyncio.sleep(0.01)
    heard = peer.media.inlet.authentic
    await asyncio.sleep(1)
    assert peer.media.inlet.authentic - heard > 45
    told = await running
    assert (told["connected"], told["error"]) == (True, "")
    seen = [(await anext(events)).what for _ in range(4)]
    assert seen == ["participant-joined", "published", "unpublished", "participant-left"], "nobody left in between"


async def test_libdatachannel_joins_every_time(service: Service, request: pytest.FixtureRequest) -> None:
    """Its checks may come before the answer has been read, and it goes by the last fingerprint that it was told."""
    client = STACKS["datachannel"]()
    failures = []
    for n in range(request.config.getoption("--joins")):
        told = await client.run("publish", f"{service.url}/whip/lounge?identity=guest{n}", seconds=0)
        if not told["connected"]:
            failures.append(told["error"])
    assert failures == []


async def test_what_does_not_connect_is_told_in_a_line(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever it was has gone before it read the answer."""
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT", 2.0)
    peer = Peer(LOOPBACK, "sendonly")
    offer = await peer.offer()
    await peer.close()
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{service.url}/whip/lounge?identity=bob", content=offer, headers={"Content-Type": "application/sdp"}
        )
        assert answer.status_code == 201
        async with asyncio.timeout(5):
            while not any("no connection came about" in record.getMessage() for record in caplog.records):
                await asyncio.sleep(0.05)
        assert (await http.get(f"{service.url}/healthz")).status_code == 200
