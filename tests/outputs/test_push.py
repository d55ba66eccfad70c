"""What is pushed arrives at real servers; when they go away, hang or come back, the output does what it can."""

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import av
import httpx
import pytest

from audiomixer.audio.encoding import Encoder
from audiomixer.outputs.base import OutputError, OutputEvent
from audiomixer.outputs.push import PushOutput
from tests.e2e.command import free_port
from tests.outputs.servers import PASSWORD, Server, icecast, nginx_rtmp, srt_listener
from tests.signals import frames, sine, stereo

TONE = list(frames(stereo(sine(1000, 0.3, 1))))
PAYLOAD = '{"s": %d, "p": {"Älice": {"v": 300}}}'


@asynccontextmanager
async def live(output: PushOutput) -> AsyncIterator[list[OutputEvent]]:
    """Feeds an output in real time with a tone and payloads, as a mixer does; gives what it tells."""
    events: list[OutputEvent] = []
    output.on_event = events.append
    await output.start()

    async def feed() -> None:
        encoder, began, n = Encoder(output.encoding), time.monotonic(), 0
        while True:
            output.write(encoder.encode(TONE[n % 50]))
            n += 1
            if n % 25 == 0:
                output.write_metadata(PAYLOAD % (n // 25), n * 0.02)
            await asyncio.sleep(max(0, began + n * 0.02 - time.monotonic()))

    feeding = asyncio.create_task(feed())
    try:
        yield events
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await output.stop()


async def until(holds: Callable[[], bool], seconds: float) -> float:
    """Waits until something holds; how long that took."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)
    return time.monotonic() - began


def payloads_in(flv: bytes) -> list[int]:
    """Sequence numbers of the payloads in script data."""
    found = []
    for part in flv.split(b"onTextData")[1:]:
        text = part[part.index(b"{") : part.index(b"\0\0\x09")]
        found.append(json.loads(text)["s"])
    return found


async def test_rtmp_with_metadata_reaches_nginx(tmp_path: Path) -> None:
    async with nginx_rtmp(tmp_path) as (_, port):
        output = PushOutput(f"rtmp://127.0.0.1:{port}/live/secret-key", 128)
        async with live(output):
            source = f"rtmp://127.0.0.1:{port}/live/secret-key"
            copying = ["-t", "2", "-map", "0:a", "-c", "copy", str(tmp_path / "seen.flv")]
            viewer = Server(["ffmpeg", "-v", "error", "-i", source, *copying], None)
            await asyncio.sleep(0.5)
            async with viewer:
                await asyncio.wait_for(viewer.wait(), 15)
        assert output.name == f"rtmp://127.0.0.1:{port}"
    with av.open(str(tmp_path / "seen.flv")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert sum(packet.size > 0 for packet in container.demux()) > 80
    (recorded,) = (tmp_path / "recorded").iterdir()
    with av.open(str(recorded)) as container:
        times = [float(packet.pts * packet.time_base) for packet in container.demux(audio=0) if packet.pts is not None]
    assert times[-1] > 2
    assert max(b - a for a, b in pairwise(times)) < 0.05


async def test_rtmp_payloads_are_script_data_in_step(tmp_path: Path) -> None:
    """FFmpeg listens, and writes down the bytes that came."""
    port = free_port()
    path, url = tmp_path / "came.flv", f"rtmp://127.0.0.1:{port}/live/show"
    server = Server(["ffmpeg", "-v", "error", "-listen", "1", "-i", url, "-map", "0", "-c", "copy", str(path)], None)
    async with server:
        output = PushOutput(url, 128)
        async with asyncio.timeout(10):
            while True:
                try:
                    async with live(output):
                        await asyncio.sleep(4)
                    break
                except OutputError:
                    await asyncio.sleep(0.2)
                    output = PushOutput(url, 128)
        await asyncio.wait_for(server.wait(), 10)
    assert payloads_in(path.read_bytes())[:6] == [1, 2, 3, 4, 5, 6]


async def test_rtmps_and_certificates_that_nobody_has_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    async with nginx_rtmp(tmp_path, (certificate, key)) as (_, port):
        with pytest.raises(OutputError, match=r"^output: cannot connect to rtmps://localhost"):
            await PushOutput(f"rtmps://localhost:{port}/live/show", 128).start()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        output = PushOutput(f"rtmps://localhost:{port}/live/show", 128)
        async with live(output):
            await until(lambda: output.written > 50, 5)
        assert output.error is None
    (recorded,) = (tmp_path / "recorded").iterdir()
    assert recorded.stat().st_size > 10_000


@pytest.mark.parametrize(("mount", "codec"), [("show.mp3", "mp3"), ("show.ogg", "opus")])
async def test_icecast(tmp_path: Path, mount: str, codec: str) -> None:
    async with icecast(tmp_path) as (_, port):
        output = PushOutput(f"icecast://source:{PASSWORD}@127.0.0.1:{port}/{mount}", 128)
        async with live(output):
            await until(lambda: output.written > 25, 5)
            url = f"http://127.0.0.1:{port}/{mount}"
            async with httpx.AsyncClient() as client, client.stream("GET", url) as response:
                assert response.headers["Content-Type"] == ("audio/mpeg" if codec == "mp3" else "application/ogg")
                heard = b""
                async for data in response.aiter_bytes():
                    heard += data
                    if len(heard) > 60_000:
                        break
        (tmp_path / mount).write_bytes(heard)
        assert PASSWORD not in output.name
    with av.open(str(tmp_path / mount)) as container:
        assert container.streams.audio[0].codec_context.name.startswith(("mp3", "opus")[codec == "opus"])
        assert sum(frame.samples for frame in container.decode(audio=0)) > 48_000


async def test_srt_carries_the_id3_tags(tmp_path: Path) -> None:
    path = tmp_path / "came.ts"
    server, port = srt_listener(path)
    async with server:
        await asyncio.sleep(1)
        output = PushOutput(f"srt://127.0.0.1:{port}", 128)
        async with live(output):
            await until(lambda: output.written > 200, 8)
        await asyncio.wait_for(server.wait(), 10)
    data = path.read_bytes()
    assert len(data) % 188 == 0
    assert data.count(b"metadata.live-video.net") >= 5
    with av.open(str(path)) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["aac"]
        assert sum(packet.size > 0 for packet in container.demux(audio=0)) > 100


async def test_srt_without_the_program_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OutputError, match=r"^output: cannot connect to srt://127\.0\.0\.1:9: SRT needs the ffmpeg"):
        await PushOutput("srt://127.0.0.1:9", 128).start()


@pytest.mark.parametrize("url", ["rtmp://127.0.0.1:9/live/secret", "icecast://source:secret@127.0.0.1:9/x.mp3"])
async def test_a_server_that_refuses_is_named_without_its_secrets(url: str) -> None:
    with pytest.raises(OutputError, match=r"^output: cannot connect to \w+://127\.0\.0\.1:9: Conn") as refused:
        await PushOutput(url, 128).start()
    assert "secret" not in str(refused.value)


async def test_a_server_that_is_killed_is_found_when_it_is_back(tmp_path: Path) -> None:
    async with nginx_rtmp(tmp_path) as (server, port):
        output = PushOutput(f"rtmp://127.0.0.1:{port}/live/show", 128)
        async with live(output) as events:
            for _ in range(2):
                await asyncio.sleep(0.5)
                await server.kill()
                await until(lambda: not output.connected, 6)
                await asyncio.sleep(1)
                await server.start()
                assert await until(lambda: output.connected, 5) < 5
        assert [event.state for event in events] == ["lost", "connected"] * 2
        assert output.reconnects == 2
        assert output.dropped > 100
        assert output.error is None


async def test_a_server_that_hangs_is_given_up_and_found_again(tmp_path: Path) -> None:
    """nginx stands still, until the kernel's buffers are full; then it goes on."""
    async with icecast(tmp_path) as (server, port):
        output = PushOutput(f"icecast://source:{PASSWORD}@127.0.0.1:{port}/show.mp3", 192)
        async with live(output) as events:
            await asyncio.sleep(0.5)
            server.signal(signal.SIGSTOP)
            flood = Encoder(output.encoding)
            while output.connected:
                for frame in TONE:
                    output.write(flood.encode(frame))
                await asyncio.sleep(0.01)
                if events:
                    break
            server.signal(signal.SIGCONT)
            assert await until(lambda: output.connected and events[-1].state == "connected", 12) < 12
        assert [event.state for event in events] == ["lost", "connected"]
