"""Files, and what happens when they cannot be written."""

import asyncio
import os
import socket
from pathlib import Path

import av
import numpy as np
import pytest

from audiomixer.encoding import EncodedPacket, Encoder
from audiomixer.outputs.base import OutputError
from audiomixer.outputs.push import PushOutput
from tests.signals import frames, level_at, sine, stereo


@pytest.mark.parametrize("suffix", ["m4a", "mp3", "ogg", "wav", "mka"])
async def test_every_kind_of_file_has_the_audio_in_its_time(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"show.{suffix}"
    output = PushOutput(str(path), 128)
    await output.start()
    encoder = Encoder(output.encoding)
    for frame in frames(stereo(sine(1000, 0.3, 5))):
        output.write(encoder.encode(frame))
    output.write(encoder.encode(None))
    await output.stop()
    assert output.error is None
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=48_000)
        decoded = [r.to_ndarray() for frame in container.decode(audio=0) for r in resampler.resample(frame)]
    samples = np.concatenate(decoded, axis=1)
    assert samples.shape[1] / 48_000 == pytest.approx(5, abs=0.06)
    assert level_at(samples[0, 48_000:144_000], 1000) == pytest.approx(0.3, rel=0.06)


async def test_a_server_gets_what_is_pushed(tmp_path: Path) -> None:
    """FFmpeg listens for RTMP and writes down what comes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"rtmp://127.0.0.1:{free.getsockname()[1]}/live/show"
    path = tmp_path / "received.flv"
    command = ["ffmpeg", "-v", "error", "-listen", "1", "-i", url, "-c", "copy", str(path)]
    server = await asyncio.create_subprocess_exec(*command)
    output = PushOutput(url, 128)
    async with asyncio.timeout(10):
        while True:
            try:
                await output.start()
                break
            except OutputError:
                await asyncio.sleep(0.2)
    encoder = Encoder(output.encoding)
    for frame in frames(stereo(sine(1000, 0.3, 5))):
        output.write(encoder.encode(frame))
    output.write(encoder.encode(None))
    await output.stop()
    await server.wait()
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        packets = [packet for packet in container.demux() if packet.size]
    assert len(packets) == pytest.approx(5 * 48_000 / 1024, abs=3)


@pytest.mark.parametrize("target", ["show.flac", "show", "ftp://host/show.mp3", "https://host/a.m4a", ""])
def test_targets_that_are_none(target: str) -> None:
    with pytest.raises(ValueError, match=r"^output: expected \*\.m4a"):
        PushOutput(target, 128)


@pytest.mark.parametrize("target", ["/nowhere/show.m4a", "/proc/show.wav"])
async def test_a_path_that_cannot_be_written(target: str) -> None:
    output = PushOutput(target, 128)
    with pytest.raises(OutputError, match=f"^output: cannot write {target}: "):
        await output.start()


async def test_a_server_that_refuses_is_named_without_its_secrets() -> None:
    output = PushOutput("rtmp://127.0.0.1:9/live/secret-key", 128)
    with pytest.raises(OutputError, match=r"^output: cannot write rtmp://127\.0\.0\.1: Connection refused") as refused:
        await output.start()
    assert "secret" not in str(refused.value)


async def into_a_pipe(folder: Path) -> tuple[PushOutput, int]:
    """An output into a pipe, and the pipe's end that nobody reads."""
    path = folder / "pipe.wav"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    output = PushOutput(str(path), 128)
    await output.start()
    return output, reader


async def test_a_reader_that_goes_away_ends_the_output_and_not_the_mix(tmp_path: Path) -> None:
    output, reader = await into_a_pipe(tmp_path)
    packets = [EncodedPacket(bytes(3840), n * 960, 960) for n in range(100)]
    output.write(packets[:1])
    await asyncio.sleep(0.2)
    os.close(reader)
    output.write(packets[1:])
    await asyncio.sleep(0.2)
    output.write(packets)
    began = asyncio.get_running_loop().time()
    await output.stop()
    assert asyncio.get_running_loop().time() - began < 1
    assert output.error == "Broken pipe"
    assert output.dropped >= 100


async def test_a_writer_that_stands_still_loses_packets_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that nobody reads: the mix is not held up, and 20 s of packets wait at most."""
    output, reader = await into_a_pipe(tmp_path)
    packets = [EncodedPacket(bytes(3840), n * 960, 960) for n in range(1500)]
    before = asyncio.get_running_loop().time()
    output.write(packets)
    assert asyncio.get_running_loop().time() - before < 0.5
    assert 400 <= output.dropped <= 500
    began = asyncio.get_running_loop().time()
    monkeypatch.setattr("audiomixer.outputs.push._FINISH_TIMEOUT", 1.0)
    await output.stop()
    assert asyncio.get_running_loop().time() - began < 3, "it does not wait for ever"
    assert output.error == "it did not take everything in time"
    os.close(reader)
