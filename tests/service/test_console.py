"""A host's console in Chromium: what is done there is heard in the stream, and what happens is seen there."""

import asyncio
import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.rooms.client import Client, Microphone
from tests.service.api import Api
from tests.service.test_media_processors import payloads
from tests.service.test_sources import files  # noqa: F401 - a fixture


async def volumes(api: Api, streamer: str) -> dict[str, int]:
    told: Any = (await payloads(api, streamer, 2))[-1]["p"]
    return {identity: volume["v"] for identity, volume in told.items()}


async def test_a_host_at_the_console(api: Api, page: Page, files: str) -> None:  # noqa: F811
    """By keys: bob is turned down, muted, put aside; by mouse: a jingle, and bob is removed, and let in again."""
    streamer = await api.streamer()
    await api.processor("friday show", streamer)
    async with (
        Client(api.whip("friday show"), Microphone(500), token=api.token("alice")),
        Client(api.whip("friday show"), Microphone(900), token=api.token("bob")),
    ):
        await page.goto(f"{api.url}/console/friday%20show#token={api.token('mia', 'friday show', host=True)}")
        bob = page.locator("article.strip", has_text="bob")
        await expect(page.locator("article.strip")).to_have_count(2)
        await expect(page.locator("#air")).to_have_text("On air")
        await expect(bob.get_by_role("meter")).to_have_attribute("aria-valuetext", "−17 dBFS", timeout=3000)
        await expect(bob.locator(".health")).to_contain_text("% lost")
        loud = (await volumes(api, streamer))["bob"]

        await page.keyboard.press("2")
        for _ in range(12):
            await page.keyboard.press("ArrowDown")
        await expect(bob.locator("output")).to_have_text("−6.0 dB")
        await asyncio.sleep(0.3)
        assert (await volumes(api, streamer))["bob"] == pytest.approx(loud / 2, rel=0.02)
        await page.keyboard.press("m")
        await expect(bob.get_by_role("button", name="Mute")).to_have_attribute("aria-pressed", "true")
        await asyncio.sleep(0.2)
        assert (await volumes(api, streamer))["bob"] == -1
        await page.keyboard.press("m")
        await page.keyboard.press("a")
        await expect(bob.get_by_role("button", name="Room only")).to_have_attribute("aria-pressed", "false")
        await asyncio.sleep(0.2)
        assert (await volumes(api, streamer))["bob"] == -1

        await page.get_by_label("Address of a file or stream").fill(f"{files}/jingle.wav")
        await page.get_by_role("button", name="Play").click()
        await expect(page.locator("article.strip", has_text="jingle")).to_be_visible()
        await expect(page.locator("#sources li")).to_contain_text("0:03")
        await page.get_by_role("button", name="Pause").click()
        await expect(page.get_by_role("button", name="Resume")).to_be_visible()
        await page.locator("#sources").get_by_role("button", name="Stop").click()
        await expect(page.locator("#sources li")).to_have_count(0)
        await expect(page.locator("article.strip")).to_have_count(2)

        levels = page.get_by_label("The mix")
        await expect(levels).to_contain_text(re.compile(r"Short term\s*−1\d\.\d LUFS"), timeout=6000)
        await expect(levels).to_contain_text("0.0 dB")
        await page.locator("body").click()
        await page.keyboard.press("r")
        await expect(page.get_by_role("button", name=re.compile(r"Recording 0:\d\d"))).to_be_visible(timeout=5000)
        await page.get_by_role("button", name="Recording").click()
        await expect(page.get_by_role("button", name="Record", exact=True)).to_be_visible()
        (recording,) = (await api.get("Rooms/friday%20show/Recordings"))["recordings"]
        assert recording["status"] in {"processing", "completed"}

        page.on("dialog", lambda dialog: dialog.accept())
        await bob.get_by_role("button", name="Remove").click()
        await expect(page.locator("article.strip")).to_have_count(1)
        assert "bob" not in await volumes(api, streamer)
        await page.get_by_role("button", name="Let in").click()
        await expect(page.get_by_role("button", name="Let in")).to_have_count(0)
        async with Client(api.whip("friday show"), Microphone(900), token=api.token("bob")):
            await expect(page.locator("article.strip")).to_have_count(2)
            await expect(bob.locator("output")).to_have_text("−6.0 dB")


@pytest.mark.parametrize(
    ("host", "room", "problem"),
    [(False, "lounge", "grants.video.host: expected true"), (True, "other", "it is for room 'other', not 'lounge'")],
)
async def test_who_is_no_host_of_the_room(api: Api, plain_page: Page, host: bool, room: str, problem: str) -> None:
    await api.post("Rooms", UniqueName="lounge")
    await plain_page.goto(f"{api.url}/console/lounge#token={api.token('mia', room, host=host)}")
    await expect(plain_page.locator("#state")).to_contain_text(problem)
    await expect(plain_page.locator("article.strip")).to_have_count(0)
