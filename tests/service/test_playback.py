"""Who may play: grants, tokens, origins; and payloads of an application's own."""

import asyncio
import io
import json

import av
import httpx
import jwt
import pytest

from audiomixer.auth.playback import PlaybackKey
from audiomixer.auth.tokens import TokenError
from tests.rooms.client import Client
from tests.service.api import Api


async def playing(api: Api) -> str:
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    return streamer


async def fetch(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(url, headers=headers)


async def test_a_grant_bounds_when_playing_starts_not_how_long_it_lasts(api: Api) -> None:
    """A grant of 1 s: one player starts within it and goes on after it; another comes too late."""
    streamer = await playing(api)
    grant = await api.post(f"PlayerStreamers/{streamer}/PlaybackGrant", Ttl=1)
    assert grant["sid"] == grant["grant"]["playerStreamerSid"] == streamer
    assert grant["grant"]["requestCredentials"] is None
    assert await api.get(f"PlayerStreamers/{streamer}/PlaybackGrant") == grant
    url = grant["grant"]["playbackUrl"]
    media = next(line for line in (await fetch(url)).text.splitlines() if line.startswith("audio.m3u8"))
    await asyncio.sleep(2)
    late = await fetch(url)
    assert (late.status_code, late.json()["message"]) == (401, "token: it has expired")
    playlist = await fetch(f"{api.url}/hls/{streamer}/{media}")
    assert playlist.status_code == 200
    segment = next(line for line in playlist.text.splitlines() if line.endswith(".ts"))
    assert (await fetch(f"{api.url}/hls/{streamer}/{segment}")).content[:1] == b"G"
    assert (await fetch(f"{api.url}/hls/{streamer}/0.ts")).status_code == 404, "names cannot be guessed"
    session = media.partition("token=")[2]
    async with Client(f"{api.url}/whep/{streamer}", token=session) as listener:
        await asyncio.sleep(1)
        assert listener.heard


async def test_the_access_token_with_the_grant_opens_whep(api: Api) -> None:
    streamer = await playing(api)
    grant = (await api.post(f"PlayerStreamers/{streamer}/PlaybackGrant"))["grant"]
    async with Client(f"{api.url}/whep/{streamer}", token=api.token("bob", player=grant)) as listener:
        assert listener.response.headers["Playback-Session"]
        await asyncio.sleep(1)
        assert listener.payloads


@pytest.mark.parametrize("token", ["", "x", "joins", "other"])
async def test_who_may_not_play(api: Api, token: str) -> None:
    streamer = await playing(api)
    other = (await api.playback_url(await api.streamer())).partition("token=")[2]
    given = {"joins": api.token("alice"), "other": other}.get(token, token)
    for path in (
        f"hls/{streamer}/index.m3u8",
        f"hls/{streamer}/audio.m3u8",
        f"v1/PlayerStreamers/{streamer}/TimedMetadata",
    ):
        assert (await fetch(f"{api.url}/{path}?token={given}")).status_code == 401
    listener = Client(f"{api.url}/whep/{streamer}", token=given)
    with pytest.raises(httpx.HTTPStatusError):
        await listener.__aenter__()
    assert listener.response.status_code == 401
    await listener.pc.close()


async def test_only_pages_of_the_site_that_was_named(api: Api) -> None:
    streamer = await playing(api)
    url = await api.playback_url(streamer, AccessControlAllowOrigin="https://show.example")
    assert (await fetch(url, Origin="https://show.example")).status_code == 200
    assert (await fetch(url)).status_code == 200, "players that are no pages"
    refused = await fetch(url, Origin="https://elsewhere.example")
    assert refused.status_code == 403
    media = (await fetch(url)).text.splitlines()[-1]
    refused = await fetch(f"{api.url}/hls/{streamer}/{media}", Origin="https://elsewhere.example")
    assert refused.status_code == 403
    problem = await api.post(f"PlayerStreamers/{streamer}/PlaybackGrant", 400, AccessControlAllowOrigin="show.example")
    assert "AccessControlAllowOrigin: expected an origin" in problem["message"]


async def test_ttl_is_bounded(api: Api) -> None:
    streamer = await api.streamer()
    for ttl in (0, 61, "x"):
        assert "Ttl: " in (await api.post(f"PlayerStreamers/{streamer}/PlaybackGrant", 400, Ttl=ttl))["message"]
    await api.get(f"PlayerStreamers/{streamer}/PlaybackGrant", 404)
    await api.post(f"PlayerStreamers/{streamer}", 200, Status="ended")
    assert (await api.post(f"PlayerStreamers/{streamer}/PlaybackGrant", 400))["code"] == 20001


async def test_an_applications_own_payloads_are_in_the_stream(api: Api) -> None:
    """Sent once: the server-sent events, a WebRTC listener and the ID3 of HLS have it."""
    streamer = await playing(api)
    session = (await fetch(await api.playback_url(streamer))).text.splitlines()[-1].partition("token=")[2]
    text = json.dumps({"s": 10**9, "poll": "Which song?\u2028Two lines"}, ensure_ascii=False)
    async with Client(f"{api.url}/whep/{streamer}", token=session) as listener:
        await asyncio.sleep(0.8)
        seen: list[str] = []

        async def read() -> None:
            path = f"{api.url}/v1/PlayerStreamers/{streamer}/TimedMetadata"
            async with httpx.AsyncClient() as client, client.stream("GET", path, params={"token": session}) as events:
                async for line in events.aiter_text():
                    seen.append(line)  # noqa: PERF401 - it is read meanwhile

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.2)
        assert (await api.post(f"PlayerStreamers/{streamer}/TimedMetadata", Metadata=text))["metadata"] == text
        await asyncio.sleep(1.5)
        reading.cancel()
        assert f"data: {text}\n\n" in "".join(seen)
        assert json.loads(text) in listener.payloads
    await asyncio.sleep(1)
    base = f"{api.url}/hls/{streamer}"
    playlist = (await fetch(f"{base}/audio.m3u8?token={session}")).text.splitlines()
    whole = b"".join([(await fetch(f"{base}/{line}")).content for line in playlist if line.endswith(".ts")])
    with av.open(io.BytesIO(whole), format="mpegts") as container:
        tags = [bytes(packet) for packet in container.demux(container.streams[1]) if packet.size]
    assert sum("Which song?" in tag.decode(errors="ignore") for tag in tags) == 1


async def test_payloads_that_are_none(api: Api) -> None:
    streamer = await playing(api)
    for metadata in ("", "x" * 1025, "é" * 513):
        refused = await api.post(f"PlayerStreamers/{streamer}/TimedMetadata", 400, Metadata=metadata)
        assert refused["message"].startswith("Metadata: ")
    waiting = await api.streamer()
    assert "is started" in (await api.post(f"PlayerStreamers/{waiting}/TimedMetadata", 400, Metadata="x"))["message"]


def test_playback_tokens() -> None:
    key = PlaybackKey("0123456789abcdef0123456789abcdef")
    assert key.verify(key.grant("VJ1", 15), "VJ1").origin is None
    permission = key.verify(key.grant("VJ1", 15, "https://show.example"), "VJ1")
    session = key.verify(key.session(permission), "VJ1")
    assert (session.sid, session.origin) == (permission.sid, permission.origin), "who goes on is bound as who started"
    later = key.verify(key.session(session), "VJ1")
    assert later.until == pytest.approx(session.until, abs=1), (
        "and ends when it has lasted a day, however often renewed"
    )
    for token in (
        None,
        "x",
        key.grant("VJ1", -1),
        key.grant("VJ2", 15),
        jwt.encode({"sub": "VJ1", "exp": 9e9}, "k" * 32),
    ):
        with pytest.raises(TokenError, match="^token: "):
            key.verify(token, "VJ1")
