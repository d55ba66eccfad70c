"""The service over HTTP, apart from media."""

import asyncio
import json
import re
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
from starlette.responses import JSONResponse

from audiomixer.service.http.server import PortError, serving
from audiomixer.service.streams import Streams
from tests.conftest import Service


async def get(service: Service, path: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(service.url + path)


async def test_what_there_is(service: Service) -> None:
    assert (await get(service, "/overview.json")).json() == {"needsTokens": False, "rooms": [], "streams": []}
    stream = await service.streams.start("lounge")
    overview = (await get(service, "/overview.json")).json()
    assert overview["rooms"] == [{"name": "lounge", "identities": []}]
    assert overview["streams"][0] == {
        "sid": stream.sid,
        "room": "lounge",
        "bitrate": 128,
        "seconds": 0,
        "listeners": 0,
    }


@pytest.mark.parametrize("path", ["/", "/rooms/lounge", "/web/room.js", "/web/style.css", "/healthz"])
async def test_the_pages_are_there(service: Service, path: str) -> None:
    response = await get(service, path)
    assert response.status_code == 200
    assert len(response.content) > 10


@pytest.mark.parametrize(
    "path",
    [
        "/hls/VJ0/index.m3u8",
        "/hls/VJ0/0.ts",
        "/hls/VJ0/x.ts",
        "/v1/PlayerStreamers/VJ0/TimedMetadata",
        "/nothing",
        "/web/../app.py",
    ],
)
async def test_what_is_not_there_is_said_in_json(service: Service, path: str) -> None:
    response = await get(service, path)
    assert response.status_code == 404
    assert response.json()["status"] == 404


async def test_the_page_of_a_stream_that_is_not_there_is_still_a_page(service: Service) -> None:
    response = await get(service, "/listen/VJ0")
    assert response.status_code == 404
    assert response.headers["content-type"].startswith("text/html")


async def test_hls_is_served_to_other_sites_and_ends(service: Service) -> None:
    stream = await service.streams.start("lounge")
    early = await get(service, f"/hls/{stream.sid}/audio.m3u8")
    assert early.status_code == 404
    assert early.json()["message"] == "stream: nothing to play yet"
    async with httpx.AsyncClient(headers={"Origin": "https://elsewhere.example"}) as client:
        master = await client.get(f"{service.url}/hls/{stream.sid}/index.m3u8")
        assert master.headers["access-control-allow-origin"] == "*"
        assert master.headers["content-type"].startswith("application/vnd.apple.mpegurl")
        await asyncio.sleep(2.6)
        media = await client.get(f"{service.url}/hls/{stream.sid}/audio.m3u8")
        assert "0.ts" in media.text
        segment = await client.get(f"{service.url}/hls/{stream.sid}/0.ts")
        assert segment.headers["content-type"] == "video/mp2t"
        assert segment.headers["access-control-allow-origin"] == "*"
        assert segment.content[:1] == segment.content[188:189] == b"G"
        await service.streams.stop(stream.sid)
        ended = await client.get(f"{service.url}/hls/{stream.sid}/audio.m3u8")
        assert ended.text.endswith("#EXT-X-ENDLIST\n"), "players get the end"
    assert (await get(service, "/overview.json")).json()["streams"] == []


async def test_low_latency_hls_over_http(service: Service) -> None:
    """A reload that waits for the next part, and that part by its hint; a delta update; gzip; what is nonsense."""
    stream = await service.streams.start("lounge")
    media = f"{service.url}/hls/{stream.sid}/audio.m3u8"
    await asyncio.sleep(2.2)
    async with httpx.AsyncClient() as client:
        plain = await client.get(media, headers={"Accept-Encoding": "identity"})
        zipped = await client.get(media, headers={"Accept-Encoding": "gzip"})
        assert zipped.headers["Content-Encoding"] == "gzip"
        assert int(zipped.headers["Content-Length"]) < int(plain.headers["Content-Length"]) / 2
        assert plain.headers["Cache-Control"] == "no-cache"
        hint = re.findall(r'PRELOAD-HINT:TYPE=PART,URI="((\d+)\.(\d+)\.ts)"', zipped.text)[0]
        part, reload = await asyncio.gather(
            client.get(f"{service.url}/hls/{stream.sid}/{hint[0]}"),
            client.get(media, params={"_HLS_msn": hint[1], "_HLS_part": hint[2], "_HLS_skip": "YES"}),
        )
        assert part.content[:1] == b"G"
        assert f'URI="{hint[0]}",INDEPENDENT' in reload.text
        assert reload.headers["Cache-Control"] == "public, max-age=6"
        for wrong in ({"_HLS_msn": "x"}, {"_HLS_msn": "99999"}, {"_HLS_part": "1"}, {"_HLS_msn": "9" * 400}):
            refused = await client.get(media, params=wrong)
            assert refused.status_code == 400
            assert refused.json()["message"].startswith(next(iter(wrong)))


@pytest.mark.parametrize("service", ["0123456789abcdef0123456789abcdef"], indirect=True)
async def test_browsers_of_other_sites_may_publish_and_listen_with_a_token(service: Service) -> None:
    headers = {
        "Origin": "https://elsewhere.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    async with httpx.AsyncClient() as client:
        response = await client.options(f"{service.url}/whip/lounge", headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "*"
    assert "authorization" in response.headers["access-control-allow-headers"].lower()


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"Origin": "https://elsewhere.example"}, "Origin: expected no other site's"),
        ({"Origin": "null"}, "Origin: expected no other site's"),
        ({"Host": "rebound.example"}, "Host: expected localhost, got 'rebound.example'"),
        ({"Host": "rebound.example", "Origin": "http://rebound.example"}, "Host: expected localhost"),
    ],
)
async def test_pages_of_other_sites_do_not_get_into_rooms_without_tokens(
    service: Service, headers: dict[str, str], problem: str
) -> None:
    async with httpx.AsyncClient(headers=headers) as client:
        for answer in (
            await client.post(
                f"{service.url}/whip/lounge?identity=eve", headers={"Content-Type": "application/sdp"}, content="v=0"
            ),
            await client.get(f"{service.url}/rooms/lounge/volumes"),
            await client.get(f"{service.url}/overview.json"),
        ):
            assert answer.status_code == 403
            assert problem in answer.json()["message"]
            assert "access-control-allow-origin" not in answer.headers


async def test_a_page_at_another_port_of_this_machine_does(service: Service) -> None:
    async with httpx.AsyncClient(headers={"Origin": "http://localhost:3000"}) as client:
        assert (await client.get(f"{service.url}/overview.json")).status_code == 200


async def test_pages_say_what_they_may_load_and_who_may_frame_them(service: Service) -> None:
    for path in ("/", "/rooms/lounge", "/listen/VJ0"):
        headers = (await get(service, path)).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'self'" in headers["content-security-policy"]
    headers = (await get(service, "/web/room.js")).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


async def test_clients_may_ask_what_an_endpoint_takes(service: Service) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.options(f"{service.url}/whip/lounge")
        assert response.headers["accept-post"] == "application/sdp"
        assert (await client.get(f"{service.url}/whip/lounge")).status_code == 405


async def test_metadata_as_server_sent_events(service: Service) -> None:
    stream = await service.streams.start("lounge")
    payloads = []
    async with (
        httpx.AsyncClient() as client,
        client.stream("GET", f"{service.url}/v1/PlayerStreamers/{stream.sid}/TimedMetadata") as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                payloads.append(json.loads(line.removeprefix("data: ")))
            if len(payloads) == 3:
                break
    assert [payload["s"] - payloads[0]["s"] for payload in payloads] == [0, 1, 2]


async def test_a_port_in_use_is_said(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=f"^port: cannot listen on 127.0.0.1:{port}: Address already in use"):
            async with serving(lambda *_: None, "127.0.0.1", port):  # type: ignore[arg-type, return-value]
                raise AssertionError


async def test_who_says_nothing_in_a_tls_handshake_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiomixer.service.http.server._HANDSHAKE", 1.0)
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", files[1], "-out", files[0]], check=True, capture_output=True)
    async with serving(JSONResponse({"is": "there"}), "127.0.0.1", 0, tls=files) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
        async with httpx.AsyncClient(verify=False) as client:
            assert (await client.get(url)).json() == {"is": "there"}
        assert await asyncio.wait_for(reader.read(), 3) == b""
        writer.close()


async def test_streams_are_limited(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiomixer.service.streams._MOST", 2)
    streams: Streams = service.streams
    await streams.start("one")
    await streams.start("two")
    with pytest.raises(Exception, match="^streams: there are 2 already"):
        await streams.start("three")
    await asyncio.sleep(0.05)
    assert [room.name for room in streams.rooms] == ["one", "two"]
