"""`audiomixer serve` as the application of the old service sees it: over HTTP, with `requests`, and in Chromium."""

import asyncio
import json
import signal
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import requests
from playwright.async_api import Browser, Page

from audiomixer.service.resources.callbacks import signature
from tests.e2e.command import AUDIOMIXER, free_port
from tests.rooms.client import Client, Microphone
from tests.service.api import GIVEN
from tests.service.receiver import receiving

LISTEN = """
async ([module, token, options]) => {
    const { Player } = await import(module);
    globalThis.log = { states: [], payloads: [], errors: [], rebuffered: 0 };
    const player = (globalThis.player = await Player.connect(token, options));
    player.on('stateChanged', (state) => log.states.push(state));
    player.on('timedMetadataReceived', ({ metadata, time }) => {
        log.payloads.push({ ...JSON.parse(metadata), time, at: Date.now() });
    });
    player.on('error', ({ code, message }) => log.errors.push({ code, message }));
    player.on('rebuffering', () => (log.rebuffered += 1));
    player.attach(document.body.appendChild(document.createElement('audio')));
    player.play();
    return player.streamerSid;
}
"""


class App:
    """An application written for the old service: only the base URL is new."""

    def __init__(self, port: int, data: Path, **more: str) -> None:
        self.port = port
        self.data = data
        self.more = more
        self.url = f"http://127.0.0.1:{port}"
        self.process: Process

    async def start(self) -> None:
        environment = {"AUDIOMIXER_ALLOWED_NETWORKS": "127.0.0.0/8", "AUDIOMIXER_DATA": str(self.data), "PATH": ""}
        environment |= {f"AUDIOMIXER_{name.upper()}": value for name, value in self.more.items()}
        command = (AUDIOMIXER, "serve", "--port", str(self.port))
        self.process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env=environment)
        assert self.process.stdout
        async with asyncio.timeout(20):
            while b"Serving" not in (line := await self.process.stdout.readline()):
                assert line, "it has ended"
        credentials = json.loads((self.data / "credentials.json").read_text())
        self.account, self.auth_token = credentials["account_sid"], credentials["auth_token"]
        self.key, self.secret = credentials["api_key"], credentials["api_secret"]

    async def stop(self, number: int = signal.SIGTERM) -> str:
        """Ends it; gives its log."""
        self.process.send_signal(number)
        _, log = await self.process.communicate()
        return log.decode()

    def call(self, method: str, path: str, **form: Any) -> Any:
        response = requests.request(
            method, f"{self.url}/v1/{path}", data=form or None, auth=(self.account, self.auth_token), timeout=10
        )
        response.raise_for_status()
        return response.json()

    async def post(self, path: str, **form: Any) -> Any:
        return await asyncio.to_thread(self.call, "POST", path, **form)

    async def get(self, path: str) -> Any:
        return await asyncio.to_thread(self.call, "GET", path)

    def access_token(self, **grants: Any) -> str:
        """As the vendor's library makes it."""
        claims = {"jti": f"{self.key}-1", "iss": self.key, "sub": self.account, "exp": 9e9, "grants": grants}
        return jwt.encode(claims, self.secret, headers={"cty": "twilio-fpa;v=1", "typ": "JWT", "alg": "HS256"})

    async def stream(self, room: str, **form: Any) -> tuple[str, str]:
        streamer = (await self.post("PlayerStreamers", Video="false", MaxDuration=600, **form))["sid"]
        context = json.dumps({"identity": "media-processor", "room": {"name": room}, "outputs": [streamer]})
        processor = await self.post(
            "MediaProcessors", Extension='"audio-mixer-v2"', ExtensionContext=context, MaxDuration=600, **form
        )
        return streamer, processor["sid"]

    async def player_token(self, streamer: str) -> str:
        grant = (await self.post(f"PlayerStreamers/{streamer}/PlaybackGrant", Ttl=60))["grant"]
        return self.access_token(identity="listener", player=grant)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    app = App(free_port(), tmp_path, **{name: str(value) for name, value in GIVEN.items()})
    await app.start()
    yield app
    if app.process.returncode is None:
        await app.stop()


async def until(page: Page, condition: str, seconds: float = 10) -> None:
    await page.wait_for_function(condition, timeout=1000 * seconds)


async def listen(page: Page, app: App, streamer: str, options: dict[str, Any] | None = None) -> None:
    # A page of another site.
    await page.goto(f"http://localhost:{app.port}/web/style.css")
    arguments = [f"{app.url}/web/player.js", await app.player_token(streamer), options or {}]
    assert await page.evaluate(LISTEN, arguments) == streamer


async def test_the_flow_of_the_old_sample_application(app: App, plain_page: Page) -> None:
    """Room, streamer, processor, grant, token; a participant; a player; the end; and every callback of it."""
    page = plain_page
    async with receiving() as receiver:
        room = await app.post("Rooms", UniqueName="show", Type="group", StatusCallback=receiver.url)
        streamer, processor = await app.stream("show", StatusCallback=receiver.url)
        token = app.access_token(identity="alice", video={"room": "show"})
        async with Client(f"{app.url}/whip/show", Microphone(1000), token=token):
            await listen(page, app, streamer)
            await until(page, "log.payloads.some(({ p }) => p.alice?.v > 1000)")
            assert await page.evaluate("player.state") == "playing"
            assert await page.evaluate("player.stats.transport") == "whep"
            assert 0 < await page.evaluate("player.liveLatency") < 0.5
            await app.post(f"PlayerStreamers/{streamer}/TimedMetadata", Metadata='{"poll": 7}')
            await until(page, "log.payloads.some(({ poll }) => poll === 7)")
        assert (await app.post(f"MediaProcessors/{processor}", Status="ENDED"))["ended_reason"] == "ended-via-api"
        await app.post(f"PlayerStreamers/{streamer}", Status="ENDED")
        await app.post(f"Rooms/{room['sid']}", Status="completed")
        await until(page, "player.state === 'ended'")
        log = await page.evaluate("log")
        assert log["states"] == ["buffering", "playing", "buffering", "ended"]
        assert log["errors"] == []
        numbers = [payload["s"] for payload in log["payloads"] if "s" in payload]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        await receiver.until(11)
    by_resource: dict[str, list[str]] = {}
    for told in receiver.told:
        sid = next(
            told.parameters[f"{kind}Sid"]
            for kind in ("MediaProcessor", "PlayerStreamer", "Room")
            if f"{kind}Sid" in told.parameters
        )
        assert told.parameters["SequenceNumber"] == str(len(by_resource.setdefault(sid, [])))
        assert told.signature == signature(app.auth_token, told.url, told.parameters)
        by_resource[sid].append(told.event)
    assert by_resource[processor] == ["media-processor-started", "media-processor-ended"]
    assert by_resource[streamer] == ["player-streamer-created", "player-streamer-started", "player-streamer-ended"]
    assert by_resource[room["sid"]][0] == "room-created"
    assert by_resource[room["sid"]][-1] == "room-ended"
    assert sorted(by_resource[room["sid"]][1:-1]) == ["participant-connected"] * 2 + ["participant-disconnected"] * 2


@pytest.mark.local
async def test_a_player_survives_kill_9(app: App, plain_page: Page, pytestconfig: pytest.Config) -> None:
    """Killed in mid-stream and started again: the player comes back by itself, and `s` only rises."""
    page = plain_page
    streamer, _ = await app.stream("show")
    await listen(page, app, streamer)
    await until(page, "log.payloads.length > 4")
    for times in range(1, 1 + pytestconfig.getoption("--kills")):
        await app.stop(signal.SIGKILL)
        await app.start()
        began = await page.evaluate("Date.now()")
        await until(page, f"log.rebuffered === {times} && log.payloads.at(-1).at > {began}")
    log = await page.evaluate("log")
    numbers = [payload["s"] for payload in log["payloads"]]
    assert numbers == sorted(set(numbers))
    assert log["errors"] == []
    assert log["states"][-1] == "playing"
    assert (await app.get(f"PlayerStreamers/{streamer}"))["status"] == "started"


@pytest.mark.local
async def test_what_was_recorded_is_there_after_kill_9(app: App, pytestconfig: pytest.Config) -> None:
    """What each process has recorded is a file of its own, and none of it is lost."""
    _, processor = await app.stream("show")
    recording = await app.post(f"MediaProcessors/{processor}/Recordings", Format="m4a")
    kills = pytestconfig.getoption("--kills")
    for _ in range(kills):
        await asyncio.sleep(3)
        await app.stop(signal.SIGKILL)
        await app.start()
    await asyncio.sleep(3)
    await app.post(f"Recordings/{recording['sid']}", Status="stopped")
    async with asyncio.timeout(20):
        while (found := await app.get(f"Recordings/{recording['sid']}"))["status"] != "completed":
            await asyncio.sleep(0.3)
    assert len(found["files"]) == kills + 1
    assert found["duration"] == pytest.approx(3 * (kills + 1), abs=1.2 * (kills + 1))


async def test_hls_with_a_player_given_by_the_page(app: App, plain_page: Page, npm: Callable[[str], Path]) -> None:
    """hls.js, where WebRTC is not wanted: it plays, and its payloads come in step."""
    page = plain_page
    streamer, _ = await app.stream("show")
    await page.goto(f"{app.url}/web/style.css")
    await page.add_script_tag(path=npm("hls.js@1.7") / "dist" / "hls.min.js")
    arguments = [f"{app.url}/web/player.js", await app.player_token(streamer), {"transport": "hls"}]
    await page.evaluate(
        LISTEN.replace("connect(token, options)", "connect(token, { ...options, hls: Hls })"), arguments
    )
    await until(page, "log.payloads.length > 6", 30)
    assert await page.evaluate("player.stats.transport") == "hls.js"
    assert await page.evaluate("player.position") > 2
    payloads = await page.evaluate("log.payloads")
    apart = [later["time"] - payloads[0]["time"] - (later["s"] - payloads[0]["s"]) / 2 for later in payloads]
    assert max(map(abs, apart)) < 0.05
    # Each is delivered when its audio is heard.
    late = [p["at"] / 1000 - p["time"] for p in payloads]
    assert max(late) - min(late) < 0.6


async def test_hls_js_in_low_latency_mode_plays_on_after_kill_9(
    app: App, plain_page: Page, npm: Callable[[str], Path], pytestconfig: pytest.Config
) -> None:
    """A page with hls.js and nothing of ours: within ten seconds of each kill it plays what is live."""
    page = plain_page
    streamer, _ = await app.stream("show")
    grant = (await app.post(f"PlayerStreamers/{streamer}/PlaybackGrant", Ttl=60))["grant"]
    await page.goto(f"http://localhost:{app.port}/web/style.css")
    await page.add_script_tag(path=npm("hls.js@1.7") / "dist" / "hls.min.js")
    await asyncio.sleep(3)
    await page.evaluate(
        """(url) => {
            const retry = { maxNumRetry: 20, retryDelayMs: 300, maxRetryDelayMs: 1000 };
            const patience = { maxTimeToFirstByteMs: 10000, maxLoadTimeMs: 20000 };
            const policy = { ...patience, timeoutRetry: retry, errorRetry: retry };
            const load = { default: policy };
            globalThis.hls = new Hls({ lowLatencyMode: true, playlistLoadPolicy: load });
            globalThis.audio = document.body.appendChild(document.createElement('audio'));
            globalThis.told = [];
            hls.on(Hls.Events.ERROR, (_, { type, details, fatal }) => told.push(`${type} ${details} ${fatal}`));
            hls.loadSource(url);
            hls.attachMedia(audio);
            audio.play();
        }""",
        grant["playbackUrl"],
    )
    await until(page, "audio.currentTime > 1")
    for _ in range(pytestconfig.getoption("--kills")):
        await app.stop(signal.SIGKILL)
        await app.start()
        restarted = asyncio.get_running_loop().time()
        while await page.evaluate("hls.latency") > 5 or not await page.evaluate("globalThis.moved"):
            before = await page.evaluate("audio.currentTime")
            await asyncio.sleep(0.5)
            await page.evaluate("(before) => { globalThis.moved = audio.currentTime > before + 0.2; }", before)
            assert asyncio.get_running_loop().time() - restarted < 10, await page.evaluate("[hls.latency, ...told]")
        await page.evaluate("globalThis.moved = false")


@pytest.mark.parametrize(
    ("token", "code"),
    [("x", 20101), ("x.e30.x", 20101), ("expired", 56001), pytest.param("gone", 56007, marks=pytest.mark.local)],
)
async def test_errors_of_the_player(app: App, browser: Browser, token: str, code: int) -> None:
    page = await browser.new_page()
    await page.goto(f"{app.url}/web/style.css")
    streamer = "VJ" + "0" * 32
    if token == "gone":
        streamer, _ = await app.stream("show")
        token = await app.player_token(streamer)
        await app.stop()
        (app.data / "audiomixer.db").unlink()
        await app.start()
    elif token == "expired":
        url = f"{app.url}/hls/{streamer}/index.m3u8?token=x"
        token = app.access_token(player={"playbackUrl": url, "playerStreamerSid": streamer})
    failing = "async ([module, token]) => (await import(module)).Player.connect(token).catch(({ code }) => code)"
    assert await page.evaluate(failing, [f"{app.url}/web/player.js", token]) == code


async def test_the_pages_need_an_invitation(app: App, browser: Browser) -> None:
    """The listen page plays with a token at the end of its link, and says so without; the room page alike."""
    streamer, _ = await app.stream("show")
    account = await browser.new_page(http_credentials={"username": app.account, "password": app.auth_token})
    await account.goto(app.url)
    await account.get_by_text("entered by links with a token").wait_for()
    assert not await account.get_by_role("button", name="Enter").is_visible()
    page = await browser.new_page()
    await page.goto(f"{app.url}/listen/{streamer}")
    await page.get_by_role("button", name="Play").click()
    await page.get_by_text("needs an invitation").wait_for()
    await page.goto(f"{app.url}/listen/{streamer}#token={await app.player_token(streamer)}")
    await page.reload()
    await page.get_by_role("button", name="Play").click()
    await page.get_by_text("Playing live.").wait_for()
    await page.get_by_text("Nobody is in the room.").wait_for()
    await page.goto(f"{app.url}/rooms/show")
    await page.get_by_text("needs an invitation").wait_for()
    token = app.access_token(identity="chromium", video={"room": "show"})
    await page.goto(f"{app.url}/rooms/show#token={token}")
    await page.reload()
    await page.get_by_role("button", name="Join with microphone").click()
    await page.get_by_text("You are in the room.").wait_for()
    await app.stop(signal.SIGKILL)
    await app.start()
    async with asyncio.timeout(10):
        here: set[str] = set()
        while here != {"chromium", "media-processor"}:
            await asyncio.sleep(0.2)
            participants = (await app.get("Rooms/show/Participants?Status=connected"))["participants"]
            here = {participant["identity"] for participant in participants}
    await page.get_by_text("You are in the room.").wait_for()


async def test_who_is_put_out_of_a_room_is_told(app: App, plain_page: Page) -> None:
    """The room completes while somebody is in it by the page: it says so within seconds."""
    page = plain_page
    token = app.access_token(identity="chromium", video={"room": "show"})
    await page.goto(f"{app.url}/rooms/show#token={token}")
    await page.get_by_role("button", name="Join with microphone").click()
    await page.get_by_text("You are in the room.").wait_for()
    await app.post("Rooms/show", Status="completed")
    await page.get_by_text("The room has ended").wait_for(timeout=4000)
    assert await page.get_by_role("button", name="Join with microphone").is_visible()


async def test_a_listener_may_come_before_the_stream(app: App, plain_page: Page) -> None:
    """Connected and waiting at 0 s; the stream begins at 1 s, and plays by itself; as an old application listens."""
    page = plain_page
    streamer = (await app.post("PlayerStreamers"))["sid"]
    await listen(page, app, streamer)
    await page.wait_for_timeout(1000)
    assert await page.evaluate("player.state") == "buffering"
    context = json.dumps({"room": {"name": "show"}, "outputs": [streamer]})
    await app.post("MediaProcessors", Extension="audio-mixer-v2", ExtensionContext=context)
    await until(page, "player.state === 'playing' && log.payloads.length > 1")
    assert await page.evaluate("log.errors") == []


async def test_a_folder_serves_one_process(app: App) -> None:
    command = (AUDIOMIXER, "serve", "--port", "0", "--data", str(app.data))
    second = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    _, err = await second.communicate()
    assert second.returncode == 2
    assert b"is in use by another audiomixer" in err


async def test_a_port_that_is_taken_changes_nothing(tmp_path: Path) -> None:
    data = tmp_path / "new"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = (AUDIOMIXER, "serve", "--port", str(taken.getsockname()[1]), "--data", str(data))
        refused = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
        _, err = await refused.communicate()
    assert refused.returncode == 2
    assert b"port: cannot listen on 127.0.0.1" in err
    assert not data.exists(), "neither credentials nor a database that nobody was told of"


async def test_it_stops_in_order_and_logs_no_secret(app: App) -> None:
    """SIGTERM with a stream running and a reader of its payloads: it ends within seconds, with code 0."""
    streamer, processor = await app.stream("show")
    token = app.access_token(identity="alice", video={})
    async with Client(f"{app.url}/whip/show?token=hunter2", Microphone(500), token=token):
        url = f"{app.url}/v1/PlayerStreamers/{streamer}/TimedMetadata"
        auth = (app.account, app.auth_token)
        async with httpx.AsyncClient(auth=auth) as client, client.stream("GET", url), asyncio.timeout(5):
            log = await app.stop()
    assert app.process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    assert any(line.get("sid") == processor for line in lines)
    for secret in (token, app.auth_token, app.secret, "hunter2"):
        assert secret not in log
