"""Files, and what happens when they cannot be written."""

import asyncio
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
import pytest

from audiomixer.audio.encoding import EncodedPacket, Encoder
from audiomixer.outputs.base import OutputError
from audiomixer.outputs.file import FileOutput
from audiomixer.outputs.opening import open_output
from tests.signals import frames, level_at, sine, stereo


@pytest.mark.parametrize("suffix", ["m4a", "mp3", "ogg", "wav", "mka"])
async def test_every_kind_of_file_has_the_audio_in_its_time(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"show.{suffix}"
    output = FileOutput(str(path), 128)
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


@pytest.mark.parametrize("target", ["show.flac", "show", "ftp://host/show.mp3", "https://host/a.m4a", ""])
def test_targets_that_are_none(target: str) -> None:
    with pytest.raises(ValueError, match=r"^output: expected \*\.m4a"):
        open_output(target, 128)


@pytest.mark.parametrize("target", ["/nowhere/show.m4a", "/proc/show.wav"])
async def test_a_path_that_cannot_be_written(target: str) -> None:
    output = FileOutput(target, 128)
    with pytest.raises(OutputError, match=f"^output: cannot write {target}: "):
        await output.start()


async def into_a_pipe(folder: Path) -> tuple[FileOutput, int]:
    """An output into a pipe, and the pipe's end that nobody reads."""
    path = folder / "pipe.wav"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    output = FileOutput(str(path), 128)
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
    monkeypatch.setattr("audiomixer.outputs.queued._FINISH_TIMEOUT", 1.0)
    await output.stop()
    assert asyncio.get_running_loop().time() - began < 3, "it does not wait for ever"
    assert output.error == "it did not take everything in time"
    os.close(reader)


async def test_recordings_are_rotated_and_fit_together(tmp_path: Path) -> None:
    """7 s of a tone, a new file every 3 s: 3, 3 and 1 s, each from its own zero, named by its beginning."""
    output = FileOutput(str(tmp_path / "show.mka"), 128, rotate=3)
    await output.start()
    output.begin(datetime(2026, 1, 31, 23, 59, 58, tzinfo=UTC))
    encoder = Encoder(output.encoding)
    for frame in frames(stereo(sine(1000, 0.3, 7))):
        output.write(encoder.encode(frame))
    output.write(encoder.encode(None))
    await output.stop()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["show-20260131T235958Z.mka", "show-20260201T000001Z.mka", "show-20260201T000004Z.mka"]
    for name, seconds in zip(names, (3, 3, 1), strict=True):
        with av.open(str(tmp_path / name)) as container:
            assert container.start_time is not None
            assert abs(container.start_time) < 30_000
            length = sum(frame.samples for frame in container.decode(audio=0)) / 48_000
        assert length == pytest.approx(seconds, abs=0.03)


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own needs root")
async def test_a_disk_that_was_full_ends_no_recording(tmp_path: Path) -> None:
    """Room for half a second; when there is room again, the recording goes on in another file."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], check=True)
    try:
        output = FileOutput(str(small / "show.wav"), 128)
        events: list[str] = []
        output.on_event = lambda event: events.append(event.state)
        await output.start()
        output.begin(datetime(2026, 1, 31, 12, tzinfo=UTC))
        packets = [EncodedPacket(bytes(3840), n * 960, 960) for n in range(900)]
        output.write(packets[:300])
        async with asyncio.timeout(10):
            while events != ["lost"]:
                await asyncio.sleep(0.02)
        assert not output.connected
        (small / "show.wav").unlink()
        async with asyncio.timeout(20):
            for n in range(300, 900):
                output.write(packets[n : n + 1])
                await asyncio.sleep(0.02)
                if events[-1] == "connected":
                    break
        await output.stop()
        assert (output.error, events) == (None, ["lost", "connected"])
        assert [file.name for file in small.iterdir()] == [Path(output.files[-1]).name]
        assert re.fullmatch(r"show-20260131T1200\d\dZ\.wav", Path(output.files[-1]).name)
    finally:
        subprocess.run(["umount", str(small)], check=True)
