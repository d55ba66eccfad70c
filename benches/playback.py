"""How late a click is heard that a participant makes, and how far from it its payload is told, player by player.

A participant who joined by WHIP clicks; whenever the mix has a click, a payload is inserted. Each player plays the
stream in Chromium (Debian's) while a worklet listens; WHEP is also listened to without a browser, each packet decoded
as it comes.

    python -m benches.playback --clicks 100
"""

import argparse
import asyncio
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtp import RtpPacket
from playwright.async_api import async_playwright

from audiomixer.clock.frame import SAMPLE_RATE
from tests.browser import FLAGS, PACKAGES
from tests.e2e.players import PLAYERS, Clicker, clicking, pairs, script, scripts

_SILENT = {"Chromium itself"}


def npm(package: str) -> Path:
    """The folder of a package of npm, which is fetched once."""
    prefix = PACKAGES / package
    name = package[: package.rindex("@")]
    if not (prefix / "node_modules" / name).exists():
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(prefix), package]
        subprocess.run(command, check=True)
    return prefix / "node_modules" / name


def row(name: str, latencies: list[float], errors: list[float]) -> str:
    """A line of the table."""
    if not latencies:
        return f"{name:24} nothing heard"
    middle, most = np.quantile(latencies, [0.5, 0.95])
    line = f"{name:24} {len(latencies):4} {middle:8.3f} {most:8.3f}"
    if errors:
        line += f" {np.median(errors):+8.3f} {np.quantile(np.abs(errors), 0.95):8.3f}"
    return line


async def without_a_browser(url: str, sid: str, clicker: Clicker, clicks: int) -> list[float]:
    """A stock aiortc, whose packets are decoded as they come: what it adds by waiting is left out."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.addTransceiver("audio", direction="recvonly")
    decoder: Any = av.CodecContext.create("libopus", "r")
    heard: list[float] = []

    async def handle(packet: RtpPacket, arrival_time_ms: int) -> None:
        for frame in decoder.decode(av.Packet(packet.payload)):
            samples = np.abs(frame.to_ndarray().reshape(-1, 2)[:, 0].astype(np.float32)) / 32768
            if samples.max() > 0.1 and (not heard or time.time() - heard[-1] > 0.5):
                heard.append(time.time() + int((samples > 0.1).argmax()) / SAMPLE_RATE)

    receiver: Any = connection.getTransceivers()[0].receiver
    receiver._handle_rtp_packet = handle
    await connection.setLocalDescription(await connection.createOffer())
    async with httpx.AsyncClient() as client:
        headers = {"Content-Type": "application/sdp"}
        response = await client.post(f"{url}/whep/{sid}", content=connection.localDescription.sdp, headers=headers)
    await connection.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
    while len(heard) < clicks:
        await asyncio.sleep(0.1)
    await connection.close()
    made = np.array([click.made for click in clicker.clicks])
    return [at - made[made < at].max() for at in heard]


async def measure(clicks: int, players: list[str]) -> None:
    print(f"{'':24} {'n':>4} {'p50':>8} {'p95':>8} {'payload':>8} {'p95':>8}   seconds", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loaded = scripts(npm, folder)
        async with clicking(folder) as (url, stream, clicker), async_playwright() as playwright:
            print(row("WHEP, no browser", await without_a_browser(url, stream.sid, clicker, clicks), []), flush=True)
            browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
            for player in players:
                if player in _SILENT:
                    continue
                page = await browser.new_page()
                await page.goto(f"{url}/web/style.css")
                if player in loaded:
                    await page.add_script_tag(content=loaded[player])
                await page.evaluate(script(player), [url, f"{url}/hls/{stream.sid}/index.m3u8"])
                # The first ones may be heard while the player still finds its place.
                await page.wait_for_function(f"heard.clicks.length > {clicks + 4}", timeout=clicks * 3000 + 30_000)
                heard = await page.evaluate("heard")
                heard["clicks"] = heard["clicks"][4:]
                print(row(player, *pairs(clicker, heard)), flush=True)
                await page.close()
            await browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, default=100, help="for each player")
    parser.add_argument("--players", nargs="*", default=list(PLAYERS), help="those to measure, beside WHEP by itself")
    options = parser.parse_args()
    asyncio.run(measure(options.clicks, options.players))


if __name__ == "__main__":
    main()
