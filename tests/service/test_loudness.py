"""The loudness of streams, by ExtensionContext and in the metrics."""

import asyncio
from typing import Any

import pytest

from tests.rooms.client import Client, Microphone
from tests.service.api import Api


async def test_a_stream_is_brought_to_its_target(api: Api) -> None:
    context = {"audioLoudness": -16, "audioLeveler": False, "audioDenoise": False}
    made = await api.processor("lounge", await api.streamer(), context=context)
    measured = 'audiomixer_loudness_lufs{media_processor="%s",window="short_term"}' % made["sid"]
    async with Client(api.whip("lounge"), Microphone(1000, 0.02), token=api.token("alice")):
        async with asyncio.timeout(15):
            while (await api.metrics()).get(measured, -100) != pytest.approx(-16, abs=0.5):
                await asyncio.sleep(0.5)
        assert (await api.metrics())[measured.replace("short_term", "integrated")] < -10
    other = await api.processor("other", await api.streamer())
    assert other["sid"] not in (await api.client.get(f"{api.url}/metrics")).text


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"audioLoudness": -3}, "audioLoudness: expected -40 to -12 LUFS"),
        ({"audioLoudness": True}, "audioLoudness"),
        ({"audioLoudness": "-16"}, "audioLoudness"),
        ({"audioDenoise": "yes"}, "audioDenoise: expected true or false"),
        ({"audioLeveler": 1}, "audioLeveler: expected true or false"),
    ],
)
async def test_what_is_no_target(api: Api, context: dict[str, Any], message: str) -> None:
    refusal = await api.processor("lounge", await api.streamer(), status=400, context=context)
    assert message in refusal["message"]
