"""What only LiveKit's rooms have: tokens, hidden mixers, a mix that is published, encryption, clusters."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from livekit import api, rtc
from playwright.async_api import Page
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from audiomixer import AudioMixer
from audiomixer.rooms.base import RoomError
from audiomixer.service.http.server import serving
from audiomixer.webrtc.ice import Ice
from tests.browser import TONE
from tests.e2e.command import free_port
from tests.rooms.elsewhere import TONES, VOLUME, Ear, mixing, new_room, speaking
from tests.rooms.livekit_server import LiveKit, Participant, livekit, token
from tests.signals import level_at
from tests.webrtc.coturn import ADDRESS, coturn


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveKit]:
    with livekit(tmp_path_factory.mktemp("livekit")) as running:
        yield running


@pytest.fixture
def room() -> str:
    return new_room()


class Listener:
    """Somebody in the room who hears, and reads, what the mixer publishes there."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self.heard = np.zeros(24_000, np.float32)
        self.data: list[str] = []
        self._reading: list[asyncio.Task[None]] = []
        self.room.on("track_subscribed", self._subscribed)
        self.room.on("data_received", self._received)

    def _subscribed(self, track: rtc.RemoteTrack, publication: object, participant: rtc.RemoteParticipant) -> None:
        if participant.identity == "audio-mixer-v2":
            self._reading.append(asyncio.create_task(self._read(rtc.AudioStream(track))))

    def _received(self, packet: rtc.DataPacket) -> None:
        if packet.topic == "timed-metadata":
            self.data.append(packet.data.decode())

    async def _read(self, stream: rtc.AudioStream) -> None:
        async for event in stream:
            samples = np.frombuffer(event.frame.data, np.int16).astype(np.float32) / 32768
            self.heard = np.concatenate([self.heard, samples.reshape(-1, event.frame.num_channels)[:, 0]])[-24_000:]

    async def leave(self) -> None:
        await self.room.disconnect()
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)


async def test_the_mix_is_published_in_its_room(server: LiveKit, room: str) -> None:
    """With the metadata as data packets. Neither the mixer itself nor another one mixes it again."""
    listener = Listener()
    async with mixing(server, room, publish=True) as ear, mixing(server, room) as other:
        await listener.room.connect(server.url, token("listener", room, speaks=False))
        async with speaking(server, room, "alice", "bob"):
            await ear.until(lambda: level_at(listener.heard, TONES["alice"]) > 0.19, 8)
            await ear.until(lambda: level_at(listener.heard, TONES["bob"]) > 0.19, 2)
            await ear.until(lambda: '"alice": {"v": 4' in listener.data[-1], 2)
            await asyncio.sleep(2)  # If it were mixed again, it would get louder and louder.
            for mixed in (ear, other):
                assert mixed.level(TONES["alice"]) == pytest.approx(0.2, rel=0.05)
            assert other.volumes["audio-mixer-v2"] == -1
            assert ear.volumes.keys() == {"alice", "bob"}, "neither the mixer nor who may only listen"
    await listener.leave()


async def test_a_token_that_may_not_publish(server: LiveKit, room: str) -> None:
    """It is told, and the room is mixed all the same."""
    mixer = AudioMixer(f"livekit+{server.url}/{room}?token={token('bot', room, speaks=False)}", publish=True)
    ear = Ear(mixer)
    async with mixer, speaking(server, room, "alice"):
        await ear.until(lambda: "refused" in ear.events, 12)
        await ear.until(lambda: ear.level(TONES["alice"]) > 0.19, 5)
    await ear.close()


async def test_a_mixer_that_is_removed(server: LiveKit, room: str) -> None:
    """It does not come back."""
    async with mixing(server, room, publish=True) as ear, speaking(server, room, "alice"):
        await ear.until(lambda: ear.level(TONES["alice"]) > 0.19, 5)
        async with server.api() as client:
            await client.room.remove_participant(api.RoomParticipantIdentity(room=room, identity="audio-mixer-v2"))
        await ear.until(lambda: ear.events[-1] == "ended", 3)
        await asyncio.sleep(1)
        assert ear.volumes == {}


async def test_nobody_sees_a_mixer_and_it_keeps_no_room_open(server: LiveKit, room: str) -> None:
    async with server.api() as client:
        timeouts = api.CreateRoomRequest(name=room, empty_timeout=1, departure_timeout=1)
        await client.room.create_room(timeouts)
    async with mixing(server, room) as ear, speaking(server, room, "alice") as (alice,):
        await ear.until(lambda: "alice published" in ear.events, 5)
        assert list(alice.room.remote_participants) == []
        await alice.leave()
        await ear.until(lambda: ear.events[-1] == "ended", 10)


async def test_several_mixers_of_one_identity(server: LiveKit, room: str) -> None:
    async with mixing(server, room) as one, mixing(server, room) as other, speaking(server, room, "alice"):
        for ear in (one, other):
            await ear.until(lambda e=ear: e.level(TONES["alice"]) > 0.19, 5)  # type: ignore[misc]
            assert ear.events[0] == "joined"
            assert "reconnecting" not in ear.events


async def test_tokens(server: LiveKit, room: str) -> None:
    """One that is given is used as it is; one that is no good is told of."""
    url = f"livekit+{server.url}/{room}?token={token('bot', room)}"
    async with AudioMixer(url), speaking(server, room, "alice") as (alice,):
        assert [other.identity for other in alice.room.remote_participants.values()] == ["bot"]
    for bad in ("nonsense", token("bot", "another")[:-2]):
        with pytest.raises(RoomError, match=f"'{room}' cannot be joined: LiveKit answered 401") as caught:
            await AudioMixer(f"livekit+{server.url}/{room}?token={bad}").start()
        assert bad.split(".")[0] not in str(caught.value)
    with pytest.raises(RoomError, match=f"the token is for '{room}', not 'another'"):
        await AudioMixer(f"livekit+{server.url}/another?token={token('bot', room)}").start()
    with pytest.raises(ValueError, match="^room: expected a token, or an api_key and its api_secret"):
        AudioMixer(f"livekit+{server.url}/{room}")


async def test_what_is_encrypted_is_skipped(server: LiveKit, room: str) -> None:
    """It would be noise."""
    encrypted = rtc.E2EEOptions(key_provider_options=rtc.KeyProviderOptions(shared_key=b"secret"))
    eve = Participant(server, room, "eve", 2000)
    async with mixing(server, room) as ear, speaking(server, room, "alice"):
        await eve.join(rtc.RoomOptions(auto_subscribe=False, encryption=encrypted))
        await ear.until(lambda: "eve skipped" in ear.events, 5)
        await ear.until(lambda: ear.volumes.get("alice", 0) > 0.9 * VOLUME, 5)
        assert ear.volumes["eve"] == -1
        await eve.leave()


async def test_a_mixer_behind_a_firewall(tmp_path: Path, room: str) -> None:
    """It has no address that can be reached, but the server names a TURN server when it is joined."""
    async with coturn(tmp_path) as port:
        turn = f"{{host: {ADDRESS}, port: {port}, protocol: udp, username: audio, credential: mixer}}"
        with livekit(tmp_path, turn_servers=turn) as server:
            mixer = AudioMixer(server.room(room), ice=Ice([]))
            ear = Ear(mixer)
            async with mixer, speaking(server, room, "alice"):
                await ear.until(lambda: ear.level(TONES["alice"]) > 0.19, 8)
            await ear.close()


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[int]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


async def test_a_cluster(tmp_path: Path, room: str) -> None:
    """The speaker is on one node, the mixer on the other."""
    with redis(tmp_path) as port:
        more = f'redis: {{address: "127.0.0.1:{port}"}}'
        with livekit(tmp_path, more) as one, livekit(tmp_path, more) as other:
            async with mixing(one, room) as ear, speaking(other, room, "alice"):
                await ear.until(lambda: ear.level(TONES["alice"]) > 0.19, 10)
                assert ear.volumes.keys() == {"alice"}


@contextlib.asynccontextmanager
async def page_with_livekit(page: Page, package: Path) -> AsyncIterator[None]:
    """A page that has the client SDK."""
    script = "/livekit/dist/livekit-client.umd.js"
    routes = [
        Route(
            "/",
            lambda request: HTMLResponse(f"<!doctype html><link rel=icon href=data:,><script src={script}></script>"),
        ),
        Mount("/livekit", StaticFiles(directory=package)),
    ]
    async with serving(Starlette(routes=routes), "127.0.0.1", 0) as url:
        await page.goto(url)
        yield


async def test_a_browser(server: LiveKit, room: str, plain_page: Page, npm: Callable[[str], Path]) -> None:
    """Chromium with livekit-client: heard, muted, heard again, gone. Its codec is RED, and its microphone has DTX."""
    async with page_with_livekit(plain_page, npm("livekit-client@2.23.0")), mixing(server, room) as ear:
        await plain_page.evaluate(
            """async ([url, token]) => {
                globalThis.room = new LivekitClient.Room();
                await room.connect(url, token);
                await room.localParticipant.setMicrophoneEnabled(true, {
                    echoCancellation: false, noiseSuppression: false, autoGainControl: false });
            }""",
            [server.url, token("chromium", room)],
        )
        await ear.until(lambda: ear.level(TONE) > 0.2, 8)
        await ear.until(lambda: ear.volumes.get("chromium", 0) > 5000, 2)
        await plain_page.evaluate("room.localParticipant.setMicrophoneEnabled(false)")
        await ear.until(lambda: ear.volumes["chromium"] == -1, 1)
        await plain_page.evaluate("room.localParticipant.setMicrophoneEnabled(true)")
        await ear.until(lambda: ear.level(TONE) > 0.2, 3)
        await plain_page.evaluate("room.disconnect()")
        await ear.until(lambda: "chromium" not in ear.volumes, 2)
