"""Participants by WebSocket: samples and Opus packets in, what they hear out."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import av
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from audiomixer.audio.encoding import Encoder, Encoding
from audiomixer.mixer import AudioMixer
from tests.conftest import Service
from tests.rooms.client import Client, Microphone
from tests.signals import Signal, decibels, frames, level_at, rms, sine, stereo, thd_n


def url(service: Service, identity: str, **query: Any) -> str:
    words = "&".join(f"{name}={value}" for name, value in query.items())
    return f"ws{service.url.removeprefix('http')}/pcm/lounge?identity={identity}&{words}"


def samples(signal: Signal) -> bytes:
    return (signal * 32767).astype("<i2").tobytes()


def tone(frequency: float, amplitude: float, seconds: float, rate: int) -> Signal:
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


async def talk(socket: ClientConnection, signal: Signal, rate: int) -> None:
    """In real time, 20 ms at a time."""
    size, due = rate // 50, asyncio.get_running_loop().time()
    for start in range(0, len(signal), size):
        await socket.send(samples(signal[start : start + size]))
        due += 0.02
        await asyncio.sleep(max(0, due - asyncio.get_running_loop().time()))


async def hear(socket: ClientConnection, seconds: float) -> list[bytes]:
    heard: list[bytes] = []
    try:
        async with asyncio.timeout(seconds):
            async for message in socket:
                assert isinstance(message, bytes)
                heard.append(message)
    except TimeoutError:
        pass
    return heard


async def drain(socket: ClientConnection) -> None:
    """Until it is closed."""
    async with asyncio.timeout(5):
        while True:
            await socket.recv()


async def mixed(live: AudioMixer, seconds: float) -> Signal:
    """The left side of the mix."""
    pieces: list[Signal] = []
    async for frame in live.frames():
        pieces.append(frame.samples[:, 0])
        if len(pieces) * 0.02 >= seconds:
            break
    return np.concatenate(pieces)


@pytest.fixture
async def live(service: Service) -> AsyncIterator[AudioMixer]:
    async with AudioMixer(service.streams.rooms.open("lounge")) as live:
        yield live


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000, 44_100, 48_000])
async def test_samples_are_heard_at_the_right_pitch(service: Service, live: AudioMixer, rate: int) -> None:
    async with connect(url(service, "phone", sample_rate=rate)) as socket:
        hello = json.loads(await socket.recv())
        assert (hello["codec"], hello["sample_rate"]) == ("pcm", rate)
        talking = asyncio.create_task(talk(socket, tone(1000, 0.3, 3, rate), rate))
        hearing = asyncio.create_task(hear(socket, 3))
        heard = (await mixed(live, 2.5))[-72_000:]
        await asyncio.gather(talking, hearing)
    assert level_at(heard, 1000) == pytest.approx(0.3, rel=0.01)
    assert level_at(heard, 1001) < level_at(heard, 1000)
    assert level_at(heard, 999) < level_at(heard, 1000)
    assert thd_n(heard, 1000) < -60
    await asyncio.sleep(0.2)
    assert live.room.bus.mixer.identities == []


async def test_the_mix_without_oneself_comes_back(service: Service, live: AudioMixer) -> None:
    async with (
        connect(url(service, "phone", sample_rate=8000)) as socket,
        Client(f"{service.url}/whip/lounge?identity=alice", Microphone(500, 0.3)),
    ):
        await socket.recv()
        talking = asyncio.create_task(talk(socket, tone(1200, 0.3, 4, 8000), 8000))
        pieces = await hear(socket, 4)
        await talking
    assert {len(piece) for piece in pieces} == {320}
    assert len(pieces) == pytest.approx(200, abs=12)
    heard = np.frombuffer(b"".join(pieces), "<i2").astype(np.float32)[-16_000:] / 32768
    assert level_at(heard, 500, 8000) == pytest.approx(0.3, rel=0.1)
    assert level_at(heard, 1200, 8000) < 0.003


async def test_who_sends_faster_than_it_is_heard_loses_nothing(service: Service, live: AudioMixer) -> None:
    """An utterance of three seconds comes at once, in one message after the other, as text to speech makes it."""
    async with connect(url(service, "bot", sample_rate=16_000)) as socket:
        await socket.recv()
        recording = asyncio.create_task(mixed(live, 4))
        await asyncio.sleep(0.1)
        data = samples(tone(1000, 0.3, 3, 16_000))
        for start in range(0, len(data), 60_000):
            await socket.send(data[start : start + 60_000])
        heard = await recording
    loud = np.abs(heard.reshape(-1, 960)).max(axis=1) > 0.2
    assert loud.sum() * 0.02 == pytest.approx(3, abs=0.06)
    assert np.flatnonzero(loud)[-1] - np.flatnonzero(loud)[0] + 1 == loud.sum(), "without a gap"


async def test_frames_that_come_unevenly_make_no_gap(service: Service, live: AudioMixer) -> None:
    async with connect(url(service, "phone", sample_rate=16_000)) as socket:
        await socket.recv()
        recording = asyncio.create_task(mixed(live, 2.6))
        await asyncio.sleep(0.1)
        signal, due = tone(1000, 0.3, 2.4, 16_000), asyncio.get_running_loop().time()
        for n in range(120):
            await socket.send(samples(signal[n * 320 : n * 320 + 320]))
            due += 0.02
            late = 0.045 if n % 10 == 5 else 0.0
            await asyncio.sleep(max(0, due + late - asyncio.get_running_loop().time()))
        heard = await recording
    assert thd_n(heard[48_000:96_000], 1000) < -55


async def test_opus(service: Service, live: AudioMixer) -> None:
    async with connect(url(service, "bot", codec="opus")) as socket:
        await socket.recv()
        encoder = Encoder(Encoding("opus", 64))

        async def talk() -> None:
            due = asyncio.get_running_loop().time()
            for frame in frames(stereo(sine(1000, 0.3, 3))):
                for packet in encoder.encode(frame):
                    await socket.send(packet.data)
                due += 0.02
                await asyncio.sleep(max(0, due - asyncio.get_running_loop().time()))

        talking = asyncio.create_task(talk())
        hearing = asyncio.create_task(hear(socket, 3))
        heard = (await mixed(live, 2.5))[-48_000:]
        await talking
        packets = await hearing
    assert level_at(heard, 1000) == pytest.approx(0.3, rel=0.05)
    decoder = av.CodecContext.create("libopus", "r")
    silent = np.concatenate([f.to_ndarray() for p in packets for f in decoder.decode(av.Packet(p))], axis=1)
    assert len(packets) > 130
    assert rms(silent / 32768) < 1e-3, "it does not hear itself"


async def test_what_is_said_beside_the_audio(service: Service, live: AudioMixer) -> None:
    async with connect(url(service, "phone", sample_rate=8000)) as socket:
        await socket.recv()
        talking = asyncio.create_task(talk(socket, tone(1000, 0.3, 3, 8000), 8000))
        await asyncio.sleep(1)
        await socket.send('{"muted": true}')
        await asyncio.sleep(0.3)
        assert decibels(rms(await mixed(live, 0.2))) < -90
        await socket.send('{"muted": false}')
        await asyncio.sleep(0.3)
        assert rms(await mixed(live, 0.2)) > 0.1
        await talking


@pytest.mark.parametrize("message", ["hello", '{"muted": 1}', "[]", b"odd", 9000 * "["])
async def test_what_cannot_be_taken_ends_it(service: Service, live: AudioMixer, message: str | bytes) -> None:
    async with connect(url(service, "phone")) as socket:
        await socket.recv()
        await socket.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            await drain(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1003
        assert "expected" in closed.value.rcvd.reason
    await asyncio.sleep(0.1)
    assert live.room.bus.mixer.identities == []


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({"sample_rate": 11_025}, 400, "sample_rate: expected one of 8000"),
        ({"sample_rate": "fast"}, 400, "sample_rate: "),
        ({"codec": "mp3"}, 400, "codec: expected pcm or opus"),
        ({"codec": "opus", "sample_rate": 16_000}, 400, "sample_rate: expected 48000"),
        ({"identity": "%20"}, 400, "identity: "),
    ],
)
async def test_what_is_refused(service: Service, query: dict[str, Any], status: int, message: str) -> None:
    given = {"identity": "phone"} | query
    with pytest.raises(InvalidStatus) as refused:
        await connect(url(service, str(given.pop("identity")), **given))
    assert refused.value.response.status_code == status
    assert message in json.loads(refused.value.response.body or b"{}")["message"]


@pytest.mark.parametrize("service", ["0123456789abcdef0123456789abcdef"], indirect=True)
async def test_who_has_no_token(service: Service) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(url(service, "phone", token="nonsense"))
    assert refused.value.response.status_code == 401


async def test_another_of_the_same_identity_takes_its_place(service: Service, live: AudioMixer) -> None:
    async with connect(url(service, "phone")) as first:
        await first.recv()
        async with connect(url(service, "phone")) as second:
            await second.recv()
            with pytest.raises(ConnectionClosed):
                await drain(first)
            assert live.room.bus.mixer.identities == ["phone"]
            await service.streams.rooms.end("lounge")
            with pytest.raises(ConnectionClosed):
                await drain(second)
