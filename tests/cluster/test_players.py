"""What people notice in their browsers when a worker, or control, is killed."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from unittest.mock import ANY

import av
import jwt
import pytest
from playwright.async_api import Browser, Page, expect

from tests.clients.stacks import STACKS
from tests.cluster.machines import Machines
from tests.cluster.test_cluster import busy
from tests.e2e.command import free_port, run
from tests.e2e.test_service import LISTEN, App
from tests.e2e.test_service import until as until_page
from tests.outputs.servers import nginx_rtmp
from tests.rooms.client import Client, Microphone
from tests.service.api import Api, running

HLS = """
(url) => {
    const retry = { maxNumRetry: 20, retryDelayMs: 300, maxRetryDelayMs: 1000 };
    const policy = { maxTimeToFirstByteMs: 10000, maxLoadTimeMs: 20000, timeoutRetry: retry, errorRetry: retry };
    const load = { default: policy };
    globalThis.hls = new Hls({ lowLatencyMode: true, playlistLoadPolicy: load });
    globalThis.audio = document.body.appendChild(document.createElement('audio'));
    globalThis.told = [];
    hls.on(Hls.Events.ERROR, (_, { type, details, fatal }) => told.push(`${type} ${details} ${fatal}`));
    hls.loadSource(url);
    hls.attachMedia(audio);
    audio.play();
}
"""
GOES_ON = "(before) => audio.currentTime > before + 0.2 && hls.latency < 5"


async def player_token(api: Api, streamer: str) -> str:
    grant = (await api.post(f"PlayerStreamers/{streamer}/PlaybackGrant", Ttl=60))["grant"]
    settings = api.settings
    claims = {"iss": settings.api_key, "sub": settings.account_sid, "exp": 9e9, "grants": {"player": grant}}
    return jwt.encode(claims, settings.api_secret, headers={"cty": "twilio-fpa;v=1", "typ": "JWT"})


async def test_players_and_pages_come_back_within_ten_seconds(
    api: Api, browser: Browser, plain_page: Page, npm: Callable[[str], Path], pytestconfig: pytest.Config
) -> None:
    """player.js by WebRTC, hls.js, and the page of somebody who talks."""
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    token = api.token("alice", "lounge")
    listener, talker, reader = plain_page, await browser.new_page(), await browser.new_page()
    await talker.goto(f"{api.url}/rooms/lounge#token={token}")
    await talker.get_by_role("button", name="Join").click()
    await expect(talker.get_by_role("status")).to_have_text("You are in the room.", timeout=15_000)
    await listener.goto(f"{api.url}/web/style.css")
    arguments = [f"{api.url}/web/player.js", await player_token(api, streamer), {}]
    assert await listener.evaluate(LISTEN, arguments) == streamer
    await reader.goto(f"{api.url}/web/style.css")
    await reader.add_script_tag(path=npm("hls.js@1.7") / "dist" / "hls.min.js")
    await reader.evaluate(HLS, await api.playback_url(streamer))
    await until_page(listener, "log.payloads.some(({ p }) => p.alice?.v > 300)")
    await until_page(reader, "audio.currentTime > 1", 20)
    for times in range(1, 1 + pytestconfig.getoption("--kills")):
        os.kill((await busy(api)).process, signal.SIGKILL)
        killed, at = time.monotonic(), await listener.evaluate("Date.now()")
        back = f"log.rebuffered === {times} && log.payloads.at(-1).at > {at} && player.state === 'playing'"
        await until_page(listener, back)
        position = await reader.evaluate("audio.currentTime")
        await reader.wait_for_function(GOES_ON, arg=position, timeout=1000 * (10 - (time.monotonic() - killed)))
        await until_page(listener, f"log.payloads.some(({{ p, at }}) => at > {at} + 1000 && p.alice?.v > 300)")
        await expect(talker.get_by_role("status")).to_have_text("You are in the room.")
        assert time.monotonic() - killed < 12
        numbers = [payload["s"] for payload in await listener.evaluate("log.payloads")]
        assert numbers == sorted(set(numbers))
    await api.client.get(f"{api.url}/healthz")


@contextlib.asynccontextmanager
async def control(machines: Machines, data: Path) -> AsyncIterator[App]:
    app = App(free_port(), data, engine="ray", ray_address=machines.address, media_port="0")
    await app.start()
    try:
        yield app
    finally:
        if app.process.returncode is None:
            await app.stop()
        # Whatever is at work is not in the database of another.
        (data / "audiomixer.db").unlink()
        async with running(data, engine="ray", ray_address=machines.address) as api:
            pass
        assert api.service.cluster
        await api.service.cluster.retire()


async def test_nobody_notices_when_control_is_killed(
    machines: Machines, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """kill -9, and started again: a listener misses no packet, a server that is pushed to sees one connection."""
    kills = pytestconfig.getoption("--kills")
    async with nginx_rtmp(tmp_path) as (_, port), control(machines, tmp_path / "data") as app:
        streamer, processor = await app.stream("show")
        token = app.access_token(identity="alice", video={"room": "show"})
        context = {"room": {"name": "show"}, "identity": "pusher", "outputs": [f"rtmp://127.0.0.1:{port}/live/show"]}
        pusher = await app.post("MediaProcessors", Extension="audio-mixer-v2", ExtensionContext=json.dumps(context))
        playback = (await app.post(f"PlayerStreamers/{streamer}/PlaybackGrant", Ttl=60))["grant"]["playbackUrl"]
        seconds = 8 + 6 * kills
        async with Client(f"{app.url}/whip/show", Microphone(500), token=token) as alice:
            listening = asyncio.create_task(
                STACKS["pion"]().run(
                    "listen",
                    f"{app.url}/whep/{streamer}",
                    "--token",
                    playback.partition("token=")[2],
                    seconds=seconds,
                )
            )
            await asyncio.sleep(3)
            for _ in range(kills):
                await app.stop(signal.SIGKILL)
                await asyncio.sleep(1)
                await app.start()
                await asyncio.sleep(2)
                people = (await app.get("Rooms/show/Participants?Status=connected"))["participants"]
                assert sorted(person["identity"] for person in people) == ["alice", "media-processor", "pusher"]
            heard = await listening
            assert heard["received"] >= 50 * seconds - 2, heard
            assert heard["messages"] >= 2 * seconds - 2
            assert alice.pc.connectionState == "connected"
        assert (await app.get(f"MediaProcessors/{processor}"))["status"] == "started"
        await app.post(f"MediaProcessors/{pusher['sid']}", Status="ended")
        worker = next(worker for worker in (await app.get("Workers"))["workers"] if (worker["load"] or {}).get("jobs"))[
            "name"
        ]
        options = ["--url", app.url, "--data", str(app.data)]
        assert await run("drain", worker, "--wait", *options) == (0, ANY, "")
        assert await run("drain", worker, "--back", *options) == (0, f"{worker} is active\n", "")
        code, _, problem = await run("drain", "nobody", *options)
        assert (code, problem.partition(":")[0]) == (2, "audiomixer")
        assert worker in problem
    (recorded,) = (tmp_path / "recorded").iterdir()
    with av.open(str(recorded)) as container:
        times = [float(packet.pts * packet.time_base) for packet in container.demux(audio=0) if packet.pts is not None]
    assert times[-1] > seconds
    assert max(b - a for a, b in pairwise(times)) < 0.05
