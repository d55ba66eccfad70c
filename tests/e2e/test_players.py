"""The same URL in the players that people use: each plays it, with the metadata in step. (How late: `make bench`.)"""

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from playwright.async_api import Browser

from tests.e2e.players import PLAYERS, Clicker, clicking, pairs, script, scripts

SILENT = {"Chromium itself"}
"""Lets WebAudio hear nothing."""
MOST_LATE = {"player.js, WHEP": 0.5, "hls.js, low latency": 12.0, "hls.js": 12.0, "Amazon IVS": 12.0, "Shaka": 12.0}
"""On a busy machine."""


async def play(
    browser: Browser, player: str, loaded: dict[str, str], url: str, sid: str, clicker: Clicker
) -> dict[str, Any]:
    """What a player hears and tells; of one that lets nobody listen, nothing."""
    page = await browser.new_page()
    await page.goto(f"{url}/web/style.css")
    if player in loaded:
        await page.add_script_tag(content=loaded[player])
    await page.evaluate(script(player), [url, f"{url}/hls/{sid}/index.m3u8"])
    if player in SILENT:
        await page.wait_for_function("audio.currentTime > 4")
        return {}
    async with asyncio.timeout(50):
        while True:
            await asyncio.sleep(0.5)
            heard: dict[str, Any] = await page.evaluate("heard")
            # Which clicks and payloads come first is up to the player: a pair of each is what is asked for.
            if len(heard["clicks"]) >= 5 and len(pairs(clicker, heard)[0]) >= 3:
                await page.close()
                return heard


async def test_players_in_chromium(browser: Browser, tmp_path: Path, npm: Callable[[str], Path]) -> None:
    """WHEP alone, as it plays at once or not at all; and all the others together."""
    loaded = scripts(npm, tmp_path)
    async with clicking(tmp_path) as (url, stream, clicker), asyncio.timeout(80):
        await asyncio.sleep(3)
        first, *others = PLAYERS
        results = [await play(browser, first, loaded, url, stream.sid, clicker)]
        playing = (play(browser, player, loaded, url, stream.sid, clicker) for player in others)
        results += await asyncio.gather(*playing)
    for player, heard in zip(PLAYERS, results, strict=True):
        if player in SILENT:
            continue
        assert heard["errors"] == [], player
        latencies, errors = pairs(clicker, heard)
        assert np.median(latencies) < MOST_LATE[player], player
        # IVS looks for cues now and then only.
        assert np.median(np.abs(errors)) < (0.5 if player == "Amazon IVS" else 0.3), player


PROGRAMS = {
    "ffmpeg": "ffmpeg -nostdin -v error -i {url} -t 6 -y {wav}",
    "mpv": "mpv --no-config --no-terminal --no-video --length=6 --ao=pcm --ao-pcm-file={wav} {url}",
    "VLC": "cvlc -q --no-video --run-time=8 --sout=#transcode{{acodec=s16l,channels=2,samplerate=48000}}:"
    "std{{access=file,mux=wav,dst={wav}}} {url} vlc://quit",
    "GStreamer": "timeout -s INT 9 gst-launch-1.0 -q uridecodebin uri={url} ! audioconvert ! audioresample !"
    " audio/x-raw,format=S16LE,channels=2,rate=48000 ! wavenc ! filesink location={wav}",
}


async def run(program: str, folder: Path, url: str) -> Path:
    """What a program makes of a stream, as a file."""
    wav = folder / f"{program}.wav"
    command = PROGRAMS[program].format(url=url, wav=wav).split()
    if program == "VLC":  # It does not run as root.
        folder.chmod(0o777)
        for parent in folder.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o055)
        command = ["setpriv", "--reuid=65534", "--clear-groups", *command]
    nowhere = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = await asyncio.create_subprocess_exec(*command, **nowhere)
    try:
        await asyncio.wait_for(process.wait(), 40)
    finally:
        if process.returncode is None:
            process.kill()
    return wav


async def test_programs(tmp_path: Path) -> None:
    """All of them at once; each hears three clicks, at the distance at which they were made."""
    async with clicking(tmp_path) as (url, stream, _):
        await asyncio.sleep(5)
        master = f"{url}/hls/{stream.sid}/index.m3u8"
        files = await asyncio.gather(*(run(program, tmp_path, master) for program in PROGRAMS))
    for wav in files:
        with av.open(str(wav)) as container:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=48_000)
            decoded = [r.to_ndarray()[0] for frame in container.decode(audio=0) for r in resampler.resample(frame)]
        loud = np.flatnonzero(np.abs(np.concatenate(decoded)) > 0.1) / 48_000
        begins = loud[np.insert(np.diff(loud) > 0.5, 0, True)]
        assert len(begins) >= 3, wav.stem
        assert np.diff(begins)[:2] == pytest.approx([1.9, 1.9], abs=0.05), wav.stem
