"""TURN servers for the clients: with credentials that are good for a while, to whoever has a token."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page

from audiomixer.webrtc.ice import IceServer
from tests.rooms.client import Client, Microphone
from tests.service.api import running
from tests.webrtc.coturn import ADDRESS, coturn

SECRET = "north-of-here"

PUBLISH = """
async ([module, endpoint, token]) => {
    const { connect } = await import(module);
    const pc = (globalThis.pc = new RTCPeerConnection({ iceTransportPolicy: 'relay' }));
    const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
    pc.addTransceiver(microphone.getTracks()[0], { direction: 'sendonly' });
    globalThis.leave = await connect(pc, endpoint, token);
}
"""

RELAY = """
async () => {
    const stats = [...(await pc.getStats()).values()];
    const pair = stats.find(({ type, nominated, state }) =>
        type === "candidate-pair" && nominated && state === "succeeded");
    const local = stats.find(({ id }) => id === pair?.localCandidateId);
    return local && [local.candidateType, local.relayProtocol];
}
"""


async def test_a_page_that_has_nothing_but_a_relay_by_tcp_is_heard(tmp_path: Path, plain_page: Page) -> None:
    page = plain_page
    async with coturn(tmp_path, SECRET) as port:
        url = f"turn:{ADDRESS}:{port}?transport=tcp"
        async with running(tmp_path / "data", turn_url=[url], turn_secret=SECRET) as api:
            streamer = await api.streamer()
            await api.processor("lounge", streamer)
            await page.goto(f"{api.url}/web/style.css")
            await page.evaluate(PUBLISH, [f"{api.url}/web/webrtc.js", api.whip("lounge"), api.token("alice")])
            async with asyncio.timeout(20):
                while await page.evaluate(RELAY) != ["relay", "tcp"]:
                    await asyncio.sleep(0.1)
            query = (await api.playback_url(streamer)).partition("?")[2]
            async with Client(f"{api.url}/whep/{streamer}?{query}") as listener, asyncio.timeout(20):
                while not any(payload["p"].get("alice", {"v": 0})["v"] > 100 for payload in listener.payloads):
                    await asyncio.sleep(0.1)
            await page.evaluate("leave()")


async def test_who_has_a_token_is_told_of_them(tmp_path: Path) -> None:
    """In answers, and when asked with OPTIONS; without a token nobody is, nor of passwords that are good for ever."""
    settings = {"stun_url": "stun:192.0.2.1", "turn_url": ["turn:192.0.2.1", "turns:turn.example.org"]}
    async with running(tmp_path / "secret", **settings, turn_secret=SECRET) as api:
        streamer = await api.streamer()
        await api.processor("lounge", streamer)
        playback = (await api.playback_url(streamer)).rpartition("token=")[2]
        async with httpx.AsyncClient() as http:
            for path, token in [("/whip/lounge", api.token("alice")), (f"/whep/{streamer}", playback)]:
                url, bearer = api.url + path, {"Authorization": f"Bearer {token}"}
                assert "Link" not in (await http.options(url)).headers
                assert (await http.options(url, headers={"Authorization": "Bearer x"})).status_code == 401
                told = await http.options(url, headers=bearer)
                assert (told.status_code, told.headers["Accept-Post"]) == (204, "application/sdp")
                links = told.headers.get_list("Link")
                assert links[0] == '<stun:192.0.2.1:3478>; rel="ice-server"'
                assert [re.findall("<(.*)>", link)[0] for link in links[1:]] == [
                    "turn:192.0.2.1:3478?transport=udp",
                    "turns:turn.example.org:5349?transport=tcp",
                ]
                assert all('credential-type="password"' in link for link in links[1:])
        async with Client(api.whip("lounge"), Microphone(500), token=api.token("bob")) as bob:
            assert len(bob.response.headers.get_list("Link")) == 3
    own = {"turn_url": ["turn:192.0.2.1"], "turn_username": "audio", "turn_password": "for ever"}
    async with running(tmp_path / "own", **own) as api, httpx.AsyncClient() as http:
        told = await http.options(api.whip("lounge"), headers={"Authorization": f"Bearer {api.token('alice')}"})
        assert "Link" not in told.headers


def test_credentials_are_made_as_coturn_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    # printf 1700086400:audiomixer | openssl dgst -sha1 -hmac north -binary | base64
    assert IceServer.parse("turn:x", secret="north").credentials() == (
        "1700086400:audiomixer",
        "wYRT7R9G9Nnmm7OW6nfWCVzR7wA=",
    )
