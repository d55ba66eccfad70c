"""HLS through nginx, as examples/nginx.conf has it: fetched once, whoever asks; and only by who may."""

import asyncio
import contextlib
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.command import free_port
from tests.outputs.servers import Server
from tests.service.api import Api, running

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "nginx.conf"


@contextlib.asynccontextmanager
async def nginx(folder: Path, upstream: str, port: int) -> AsyncIterator[None]:
    """nginx with the example's configuration, at other names, ports and places."""
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(folder / "live.key"), "-out", str(folder / "live.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    text = EXAMPLE.read_text()
    for example, here in {
        "127.0.0.1:8080": upstream,
        "listen 443": f"listen 127.0.0.1:{port}",
        "live.example.org": "localhost",
        "/etc/ssl": str(folder),
        "/var/cache/nginx": str(folder),
        "/var/log/nginx": str(folder),
    }.items():
        assert example in text
        text = text.replace(example, here)
    (folder / "nginx.conf").write_text(
        f"daemon off; user root; pid {folder}/pid; error_log {folder}/error.log;\n{text}"
    )
    async with Server(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], port):
        yield


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[tuple[Api, httpx.AsyncClient]]:
    """A service that is known by nginx's URL, and a client that speaks HTTP/2 where it can."""
    port = free_port()
    public = f"https://localhost:{port}"
    async with running(tmp_path / "data", public_url=public, proxies="127.0.0.1") as api:
        upstream = urlsplit(api.url).netloc
        async with nginx(tmp_path, upstream, port), httpx.AsyncClient(verify=False, timeout=10) as client:
            yield api, client


async def test_segments_and_playlists_are_fetched_once(proxied: tuple[Api, httpx.AsyncClient]) -> None:
    api, client = proxied
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    await asyncio.sleep(3)
    medias = []
    for _ in range(20):
        master = await client.get(await api.playback_url(streamer))
        medias.append(next(line for line in master.text.splitlines() if line.startswith("audio.m3u8")))
    assert len(set(medias)) == 20, "each player has a token of its own"
    base = f"{urlsplit(str(master.url)).scheme}://{urlsplit(str(master.url)).netloc}/hls/{streamer}"
    playlist = (await client.get(f"{base}/{medias[0]}")).text
    number = int(re.findall(r"(\d+)\.\d+\.ts", playlist)[-1]) + 1
    waiting = [client.get(f"{base}/{media}&_HLS_msn={number}&_HLS_part=1") for media in medias]
    reloads = await asyncio.gather(*waiting)
    assert {reload.status_code for reload in reloads} == {200}
    assert len({reload.text for reload in reloads}) == 1
    assert sum(reload.headers["X-Cache"] == "MISS" for reload in reloads) == 1
    hinted = re.findall(r'PRELOAD-HINT:TYPE=PART,URI="(.+?)"', reloads[0].text)[0]
    parts = await asyncio.gather(*(client.get(f"{base}/{hinted}") for _ in range(20)))
    assert len({part.content for part in parts}) == 1
    assert parts[0].content[:1] == b"G"


async def test_who_may_not_play_gets_nothing_though_it_is_in_the_cache(proxied: tuple[Api, httpx.AsyncClient]) -> None:
    api, client = proxied
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    await asyncio.sleep(3)
    master = await client.get(await api.playback_url(streamer))
    media = next(line for line in master.text.splitlines() if line.startswith("audio.m3u8"))
    base = str(master.url).partition("/index.m3u8")[0]
    playlist = (await client.get(f"{base}/{media}")).text
    number = int(re.findall(r"(\d+)\.\d+\.ts", playlist)[-1])
    waited = f"_HLS_msn={number}&_HLS_part=0"
    assert (await client.get(f"{base}/{media}&{waited}")).status_code == 200
    for forged in (f"audio.m3u8?{waited}", f"audio.m3u8?token=forged&{waited}"):
        assert (await client.get(f"{base}/{forged}")).status_code == 401
    other = await api.streamer()
    await api.processor("lounge", other)
    granted = urlsplit(await api.playback_url(other)).query
    for path in (f"/hls/{other}/../{streamer}/", f"/hls/{other}/%2e%2e/{streamer}/", f"/hls/{other}//../{streamer}/"):
        traversal = f"{api.settings.public_url}{path}audio.m3u8?{granted}&{waited}"
        curl = ["curl", "-sk", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", traversal]
        process = await asyncio.create_subprocess_exec(*curl, stdout=subprocess.PIPE)
        assert (await process.communicate())[0] == b"400"
    assert (
        await client.get(f"{api.settings.public_url}/hls/{streamer}/audio.m3u8?{granted}&{waited}")
    ).status_code == 401


async def test_it_is_served_by_http_2(proxied: tuple[Api, httpx.AsyncClient]) -> None:
    api, _ = proxied
    command = [
        "curl",
        "-sk",
        "--http2",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version}",
        f"{api.settings.public_url}/healthz",
    ]
    curl = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert (await curl.communicate())[0] == b"2"
