"""Publishers that nobody here wrote: FFmpeg's WHIP muxer, in a process of its own. (Chromium: tests/e2e.)"""

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.conftest import Service

PUBLISH = """
import sys, time, av, numpy as np
url, certificate, key = sys.argv[1:]
with av.open(url, "w", format="whip", options={"cert_file": certificate, "key_file": key}) as container:
    stream = container.add_stream("libopus", rate=48000)
    stream.codec_context.layout, stream.codec_context.bit_rate = "stereo", 64000
    tone = (np.sin(np.arange(960) * 2 * np.pi * 1000 / 48000) * 9830).astype(np.int16).repeat(2)[None]
    began = time.monotonic()
    for n in range(200):
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 48000, n * 960
        container.mux(stream.encode(frame))
        time.sleep(max(0, began + n * 0.02 - time.monotonic()))
"""


async def test_ffmpeg_publishes_by_whip_with_a_certificate_of_its_own(service: Service, tmp_path: Path) -> None:
    """4 s of a tone, and it is gone. (With GnuTLS, FFmpeg makes certificates on a curve that OpenSSL 4 lacks.)"""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=whip"]
    command = ["openssl", "req", "-x509", *curve, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    url = f"{service.url}/whip/lounge?identity=ffmpeg"
    publisher = await asyncio.create_subprocess_exec(sys.executable, "-c", PUBLISH, url, certificate, key)
    heard: list[dict[str, int]] = []
    async with asyncio.timeout(20):
        while not (room := service.streams.rooms.get("lounge")):
            await asyncio.sleep(0.02)
        async for volumes in room.volumes.subscribe():
            heard.append(volumes)
            if publisher.returncode is not None or len(heard) > 5:
                break
        stats = room.stats()["ffmpeg"]
        await publisher.wait()
        while service.streams.rooms.get("lounge"):
            await asyncio.sleep(0.05)
    assert 6500 < heard[-1]["ffmpeg"] < 7500, "a sine of 0.3"
    assert stats.received > 100
    assert stats.lost == 0
