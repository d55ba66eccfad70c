"""Chromium with a fake microphone, and packages of npm."""

import subprocess
import wave
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.signals import sine

TONE = 1000
"""What the fake microphone hears, in Hz."""
PACKAGES = Path(__file__).parent.parent / "target" / "npm"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--allow-loopback-in-peer-connection",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    microphone = tmp_path / "microphone.wav"
    with wave.open(str(microphone), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes((sine(TONE, 0.3, 10) * 32767).astype(np.int16).tobytes())
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=[*FLAGS, f"--use-file-for-fake-audio-capture={microphone}"]
        )
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page on which nothing may go wrong."""
    page = await browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page
    assert errors == []


@pytest.fixture
async def plain_page(browser: Browser) -> AsyncIterator[Page]:
    """A page on which no script may fail; what it asks for need not be there."""
    page = await browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    assert errors == []


@pytest.fixture(scope="session")
def npm() -> Callable[[str], Path]:
    """The folder of a package, such as `hls.js@1.7`, which is fetched once."""

    def fetch(package: str) -> Path:
        name = package[: package.rindex("@")]
        prefix = PACKAGES / package.replace("/", "_")
        if not (prefix / "node_modules" / name / "package.json").exists():
            command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(prefix), package]
            subprocess.run(command, check=True, timeout=60)
        return prefix / "node_modules" / name

    return fetch
