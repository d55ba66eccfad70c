"""Recordings where people open them: in a browser."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Page
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from audiomixer.audio.encoding import Encoder
from audiomixer.outputs.file import FileOutput
from audiomixer.service import serving
from tests.signals import sine, stereo


@pytest.mark.parametrize("suffix", [".m4a", ".mka", ".ogg", ".mp3", ".wav"])
async def test_a_browser_seeks_in_it(tmp_path: Path, page: Page, suffix: str) -> None:
    """A minute, of which four moments are asked for in no order."""
    output = FileOutput(str(tmp_path / f"show{suffix}"), 128)
    await output.start()
    encoder = Encoder(output.encoding)
    tone = stereo(sine(440, 0.2, 1))
    for _ in range(60):
        output.write(encoder.encode(tone))
        await asyncio.sleep(0.01)
    output.write(encoder.encode(None))
    await output.stop()
    (tmp_path / "index.html").write_text(
        f"<link rel=icon href='data:,'><audio src='show{suffix}' preload=auto></audio>"
    )
    app = Starlette(routes=[Mount("/", StaticFiles(directory=tmp_path, html=True))])
    async with serving(app, "127.0.0.1", 0) as url:
        await page.goto(f"{url}/index.html")
        await page.wait_for_function("document.querySelector('audio').readyState >= 3")
        for second in (40, 5, 55, 20):
            found = await page.evaluate(
                """async (second) => {
                    const audio = document.querySelector('audio');
                    const seeked = new Promise((resolve, reject) => {
                        audio.onseeked = resolve;
                        audio.onerror = () => reject(new Error(audio.error.message));
                        setTimeout(() => reject(new Error('not within five seconds')), 5000);
                    });
                    audio.currentTime = second;
                    await seeked;
                    await audio.play();
                    await new Promise((resolve) => setTimeout(resolve, 300));
                    audio.pause();
                    return audio.currentTime;
                }""",
                second,
            )
            assert second < found < second + 1
