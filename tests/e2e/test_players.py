"""The same URL in the players that people use: each plays it, with the metadata in step. (How late: `make bench`.)"""

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from playwright.async_api import Browser

from tests.e2e.players import PLAYERS, clicking, pairs, script, scripts

SILENT = {"Chromium itself"}
"""Lets WebAudio hear nothing."""
MOST_LATE = {"player.js, WHEP": 0.4, "hls.js, low latency": 3.0, "hls.js": 9.0, "Amazon IVS": 9.0, "Shaka": 9.0}
"""On a busy machine."""


@pytest.mark.parametrize("player", PLAYERS)
async def test_players_in_chromium(browser: Browser, tmp_path: Path, npm: Callable[[str], Path], player: str) -> None:
    page = await browser.new_page()
    loaded = scripts(npm, tmp_path)
    async with clicking(tmp_path) as (url, stream, clicker), asyncio.timeout(60):
        await asyncio.sleep(3)
        await page.goto(f"{url}/web/style.css")
        if player in loaded:
            await page.add_script_tag(content=loaded[player])
        playing = f"{url}/hls/{stream.sid}/index.m3u8"
        await page.evaluate(script(player), [url, playing])
        if player in SILENT:
            await page.wait_for_function("audio.currentTime > 4")
            return
        await page.wait_for_function("heard.clicks.length >= 4 && heard.payloads.length >= 8", timeout=40_000)
        heard = await page.evaluate("heard")
    assert heard["errors"] == []
    latencies, errors = pairs(clicker, heard)
    assert np.median(latencies) < MOST_LATE[player]
    assert len(errors) >= 2
    assert np.median(np.abs(errors)) < (0.5 if player == "Amazon IVS" else 0.25), (
        "IVS looks for cues every quarter second"
    )


PROGRAMS = {
    "ffmpeg": "ffmpeg -nostdin -v error -i {url} -t 6 -y {wav}",
    "mpv": "mpv --no-config --no-terminal --no-video --length=6 --ao=pcm --ao-pcm-file={wav} {url}",
    "VLC": "cvlc -q --no-video --run-time=8 --sout=#transcode{{acodec=s16l,channels=2,samplerate=48000}}:"
    "std{{access=file,mux=wav,dst={wav}}} {url} vlc://quit",
    "GStreamer": "timeout -s INT 9 gst-launch-1.0 -q uridecodebin uri={url} ! audioconvert ! audioresample !"
    " audio/x-raw,format=S16LE,channels=2,rate=48000 ! wavenc ! filesink location={wav}",
}


@pytest.mark.parametrize("program", PROGRAMS)
async def test_programs(tmp_path: Path, program: str) -> None:
    """Each hears three clicks, at the distance at which they were made."""
    wav = tmp_path / "heard.wav"
    async with clicking(tmp_path) as (url, stream, _):
        await asyncio.sleep(5)
        command = PROGRAMS[program].format(url=f"{url}/hls/{stream.sid}/index.m3u8", wav=wav).split()
        if program == "VLC":
            command = ["setpriv", "--reuid=65534", "--clear-groups", *command]
            tmp_path.chmod(0o777)
            for parent in tmp_path.parents[:3]:
                parent.chmod(parent.stat().st_mode | 0o055)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            await asyncio.wait_for(process.wait(), 40)
        finally:
            if process.returncode is None:
                process.kill()
    with av.open(str(wav)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=48_000)
        decoded = [r.to_ndarray()[0] for frame in container.decode(audio=0) for r in resampler.resample(frame)]
    loud = np.flatnonzero(np.abs(np.concatenate(decoded)) > 0.1) / 48_000
    begins = loud[np.insert(np.diff(loud) > 0.5, 0, True)]
    assert len(begins) >= 3
    assert np.diff(begins)[:2] == pytest.approx([1.9, 1.9], abs=0.05)
