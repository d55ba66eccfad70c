"""What only Janus's VideoRooms have: moderators, renames, pins, sources that fall silent, mids that are reused."""

import asyncio
import random
from collections.abc import Iterator

import pytest
from playwright.async_api import Page
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from audiomixer import AudioMixer
from audiomixer.rooms.base import RoomError
from audiomixer.service.http.server import serving
from tests.browser import TONE
from tests.rooms.elsewhere import AMPLITUDE, TONES, VOLUME, Ear, mixing, new_room, speaking
from tests.rooms.janus_server import ADMIN_KEY, Janus, Participant, janus


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Janus]:
    with janus(tmp_path_factory.mktemp("janus")) as running:
        yield running


@pytest.fixture
def room() -> str:
    return new_room()


@pytest.fixture(autouse=True)
def _loopback() -> None:
    """The server's address is not loopback."""


async def test_a_rename_and_a_kick(server: Janus, room: str) -> None:
    async with mixing(server, room) as ear, speaking(server, room, "alice", "bob") as (alice, bob):
        await ear.until(lambda: ear.volumes.keys() == {"alice", "bob"}, 3)
        await ear.until(lambda: ear.level(TONES["alice"]) > 0.19, 3)
        await alice.ask(request="configure", display="alicia")
        await ear.until(lambda: ear.volumes.keys() == {"alicia", "bob"}, 1)
        await ear.until(lambda: ear.volumes["alicia"] > 0.9 * VOLUME, 2)
        await bob.kick()
        await ear.until(lambda: ear.volumes.keys() == {"alicia"}, 1)


async def test_the_mixer_is_kicked(server: Janus, room: str) -> None:
    """It does not come back, and its stream goes on."""
    async with mixing(server, room) as ear, speaking(server, room, "alice") as (alice,):
        await ear.until(lambda: ear.level(TONES["alice"]) > 0.19, 5)
        mixer = next(iter(await alice.others()))
        await alice.ask(request="kick", id=mixer)
        await ear.until(lambda: ear.events[-1] == "ended", 2)
        await ear.until(lambda: ear.volumes == {}, 1)
        frames = ear.frames
        await asyncio.sleep(1)
        assert ear.frames - frames == pytest.approx(50, abs=3)


async def test_those_who_publish_nothing_are_muted(server: Janus, room: str) -> None:
    """And those whose microphone sends silence, or nothing more, of which Janus tells nothing."""
    listener = Participant(room, "listener", 500)
    async with mixing(server, room) as ear, speaking(server, room, "alice") as (alice,):
        await listener.enter()
        await ear.until(lambda: ear.volumes.get("alice", 0) > 0.9 * VOLUME, 5)
        await ear.until(lambda: ear.volumes.get("listener") == -1, 1)
        alice.microphone.muted = True
        await ear.until(lambda: ear.volumes["alice"] == -1, 2)
        alice.microphone.muted = False
        await ear.until(lambda: ear.volumes["alice"] > 0.9 * VOLUME, 2)
        await alice.ask(request="unpublish")
        await ear.until(lambda: ear.volumes["alice"] == -1, 2)
        assert ear.volumes.keys() == {"alice", "listener"}
        await listener.leave()


async def test_pins_and_keys(server: Janus, room: str) -> None:
    """A room is made with a pin, by the admin key, and cannot be joined without it."""
    url = f"janus+{server.url}/{room}"
    with pytest.raises(RoomError, match="admin_key"):
        await AudioMixer(url, ice=server.ice).start()
    async with AudioMixer(f"{url}?admin_key={ADMIN_KEY}&pin=1234", ice=server.ice):
        for wrong in (url, f"{url}?pin=4321"):
            with pytest.raises(RoomError, match=f"room: '{room}' cannot be joined: .*pin"):
                await AudioMixer(wrong, ice=server.ice).start()
        alice = Participant(room, "alice", 440)
        await alice.join(pin="1234")
        mixer = AudioMixer(f"{url}?pin=1234", ice=server.ice)
        ear = Ear(mixer)
        async with mixer:
            await ear.until(lambda: ear.volumes.get("alice", 0) > 0.9 * VOLUME, 5)
        await ear.close()
        await alice.leave()


async def test_where_everybody_encrypts_nothing_is_mixed(server: Janus, room: str) -> None:
    """It would be noise."""
    await server.create(room, require_e2ee=True)
    alice = Participant(room, "alice", 440)
    async with mixing(server, room) as ear:
        await alice.enter()
        await alice.publish(440, e2ee=True)
        await ear.until(lambda: "alice skipped" in ear.events, 3)
        await asyncio.sleep(1)
        assert ear.volumes == {"alice": -1}
        assert ear.level(440) == 0
    await alice.leave()


async def test_nobody_is_taken_for_another(server: Janus, room: str) -> None:
    """People come and go, and have the sections of those who went: each is heard under the right name."""
    chance = random.Random(1)
    here: dict[str, Participant] = {}
    numbers = iter(range(100))

    async def come() -> None:
        number = next(numbers)
        person = Participant(room, f"p{number}", 300 + 100 * number)
        here[person.identity] = person
        await person.join()

    async with mixing(server, room) as ear:
        for _ in range(3):
            await asyncio.gather(*(come() for _ in range(3)))
            await ear.until(lambda: all(ear.volumes.get(who, 0) > 0.9 * VOLUME for who in here), 8)
            assert ear.volumes.keys() == here.keys()
            for person in here.values():
                await ear.until(lambda f=person.frequency: ear.level(f) > 0.9 * AMPLITUDE, 3)  # type: ignore[misc]
            for gone in chance.sample(sorted(here), 2):
                await here.pop(gone).leave()
        for person in here.values():
            await person.leave()


async def test_a_browser(server: Janus, room: str, plain_page: Page) -> None:
    """Chromium, with nothing but a WebSocket."""
    page = Starlette(routes=[Route("/", lambda request: HTMLResponse("<link rel=icon href=data:,>"))])
    async with serving(page, "127.0.0.1", 0) as url, mixing(server, room) as ear:
        await plain_page.goto(url)
        await plain_page.evaluate(_PUBLISH, [f"{server.url}/", int(room)])
        await ear.until(lambda: ear.level(TONE) > 0.2, 8)
        await ear.until(lambda: ear.volumes.get("chromium", 0) > 5000, 2)
        await plain_page.close()
        await ear.until(lambda: "chromium" not in ear.volumes, 5)


_PUBLISH = """async ([url, room]) => {
    const socket = new WebSocket(url, 'janus-protocol');
    await new Promise((open) => (socket.onopen = open));
    const asked = new Map();
    socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.janus !== 'ack') asked.get(message.transaction)?.(message);
    };
    let session;
    const ask = (message) => new Promise((answered) => {
        const transaction = crypto.randomUUID?.() ?? String(Math.random());
        asked.set(transaction, answered);
        socket.send(JSON.stringify({ transaction, ...(session && { session_id: session }), ...message }));
    });
    session = (await ask({ janus: 'create' })).data.id;
    const handle_id = (await ask({ janus: 'attach', plugin: 'janus.plugin.videoroom' })).data.id;
    const tell = (body, jsep) => ask({ janus: 'message', handle_id, body, ...(jsep && { jsep }) });
    await tell({ request: 'join', ptype: 'publisher', room, display: 'chromium' });
    const stream = await navigator.mediaDevices.getUserMedia({ audio: {
        echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    const pc = (globalThis.pc = new RTCPeerConnection());
    stream.getTracks().forEach((track) => pc.addTrack(track, stream));
    await pc.setLocalDescription();
    await new Promise((done) => { if (pc.iceGatheringState === 'complete') done();
        else pc.onicegatheringstatechange = () => pc.iceGatheringState === 'complete' && done(); });
    const { jsep } = await tell({ request: 'publish' }, pc.localDescription.toJSON());
    await pc.setRemoteDescription(jsep);
}"""
