"""A cluster that the service has started by itself."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.e2e.command import free_port
from tests.e2e.test_service import App


def end(address: str) -> None:
    """Ends all processes of a cluster, and no other's."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            try:
                command = (process / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if address in command or f"gcs_server_port={address.rpartition(':')[2]}" in command:
                os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    address = tmp_path / "ray-address"
    if address.exists():
        end(address.read_text())


async def test_it_goes_on_when_the_service_stops_and_is_found_again(folder: Path) -> None:
    """The terminal is told of the media ports; an order to stop stops the service alone."""
    app = App(free_port(), folder, engine="ray", workers="2", media_port="0")
    await app.start()
    streamer, _ = await app.stream("show")
    names = [worker["name"] for worker in (await app.get("Workers"))["workers"]]
    assert len(names) == 2
    await app.stop()
    await app.start()
    assert [worker["name"] for worker in (await app.get("Workers"))["workers"]] == names
    async with asyncio.timeout(5):
        while sorted((worker["load"] or {}).get("jobs") or 0 for worker in (await app.get("Workers"))["workers"]) != [
            0,
            1,
        ]:
            await asyncio.sleep(0.1)
    grant = (await app.post(f"PlayerStreamers/{streamer}/PlaybackGrant", Ttl=60))["grant"]
    master = (await asyncio.to_thread(requests.get, grant["playbackUrl"], timeout=10)).text
    token = master.splitlines()[-1].partition("token=")[2]
    url = f"{app.url}/hls/{streamer}/audio.m3u8?token={token}"
    playlist = (await asyncio.to_thread(requests.get, url, timeout=10)).text
    assert "#EXTINF" in playlist
    assert "#EXT-X-DISCONTINUITY\n" not in playlist
    log = await app.stop()
    assert all(json.loads(line) for line in log.splitlines() if line.startswith("{"))
