"""Participants by WebSocket in the service: with tokens, on account, and removed by hosts; on workers as well."""

import asyncio
import json

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.rooms.client import Client, Microphone
from tests.rooms.test_pcm import drain, hear, talk, tone
from tests.service.api import Api
from tests.service.test_media_processors import payloads
from tests.signals import level_at


async def test_a_phone_in_a_room(api: Api) -> None:
    streamer = await api.streamer()
    await api.processor("日本 lounge", streamer)
    place = f"ws{api.url.removeprefix('http')}/pcm/%E6%97%A5%E6%9C%AC%20lounge?sample_rate=16000&token="
    with pytest.raises(InvalidStatus) as refused:
        await connect(place + api.token("phone", "elsewhere"))
    assert refused.value.response.status_code == 401
    assert "it is for room 'elsewhere'" in json.loads(refused.value.response.body or b"{}")["message"]
    async with (
        Client(api.whip("日本 lounge"), Microphone(500, 0.3), token=api.token("alice")),
        connect(place + api.token("phone")) as socket,
    ):
        assert json.loads(await socket.recv())["sample_rate"] == 16_000
        talking = asyncio.create_task(talk(socket, tone(1200, 0.3, 5, 16_000), 16_000))
        heard = np.frombuffer(b"".join(await hear(socket, 3)), "<i2").astype(np.float32)[-16_000:] / 32768
        assert level_at(heard, 500, 16_000) == pytest.approx(0.3, rel=0.1)
        assert level_at(heard, 1200, 16_000) < 0.003
        told = (await payloads(api, streamer, 2))[-1]["p"]
        assert told["phone"]["v"] == pytest.approx(0.3 / 2**0.5 * 32767, rel=0.05)
        listed = (await api.get("Rooms/日本 lounge/Participants", Status="connected"))["participants"]
        phone = next(one for one in listed if one["identity"] == "phone")
        assert phone["codec"] == "pcm"
        assert "websockets" in phone["client"]
        await api.post(f"Rooms/日本 lounge/Participants/{phone['sid']}", 200, KeptOut=True)
        with pytest.raises(ConnectionClosed):
            await drain(socket)
        talking.cancel()
        await asyncio.sleep(0.5)
        assert (await api.get(f"Rooms/日本 lounge/Participants/{phone['sid']}"))["status"] == "disconnected"
    with pytest.raises(InvalidStatus) as refused:
        await connect(place + api.token("phone"))
    assert refused.value.response.status_code == 403


async def test_a_phone_that_vanishes_is_gone_soon(api: Api) -> None:
    socket = await connect(f"ws{api.url.removeprefix('http')}/pcm/lounge?token={api.token('phone')}")
    await socket.recv()
    await asyncio.sleep(0.5)
    rooms = await api.get("Rooms/lounge/Participants", Status="connected")
    assert [one["identity"] for one in rooms["participants"]] == ["phone"]
    # Nothing is answered any more, though the connection stays.
    socket.transport.pause_reading()
    async with asyncio.timeout(15):
        while (await api.get("Rooms/lounge/Participants", Status="connected"))["participants"]:
            await asyncio.sleep(0.3)
    socket.transport.abort()
