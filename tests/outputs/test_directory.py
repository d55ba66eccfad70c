"""HLS in a directory: whole at any time, and playable."""

import asyncio
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from audiomixer.audio.encoding import Encoder
from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.outputs.base import OutputError
from audiomixer.outputs.directory import DirectoryOutput
from tests.signals import frames, sine, stereo


def named(folder: Path) -> list[str]:
    """The segments in the playlist, every one of which has to be there, and whole."""
    names = re.findall(r"^\S+\.ts$", (folder / "audio.m3u8").read_text(), re.MULTILINE)
    for name in names:
        assert (folder / name).stat().st_size % 188 == 0
    return names


async def test_a_stream_of_a_minute(tmp_path: Path) -> None:
    """Written faster than real time, and looked at all the while."""
    folder = tmp_path / "hls"
    output = DirectoryOutput(f"{folder}/", 128)
    await output.start()
    output.begin(datetime.now(UTC))
    encoder = Encoder(output.encoding)
    looked = 0
    for n, frame in enumerate(frames(stereo(sine(1000, 0.3, 60)))):
        output.write(encoder.encode(frame))
        if n % 25 == 24:
            output.write_metadata('{"s": %d}' % n, (n + 1) * 0.02)
            await asyncio.sleep(0.02)
            if (folder / "audio.m3u8").exists():
                looked += len(named(folder)) > 0
    assert looked > 50
    assert "#EXT-X-PART" not in (folder / "audio.m3u8").read_text()
    await output.stop()
    assert not list(folder.glob(".*")), "nothing is left half written"
    assert (folder / "audio.m3u8").read_text().endswith("#EXT-X-ENDLIST\n")
    assert len(list(folder.glob("*.ts"))) <= 42, "old segments are deleted"
    command = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name,channels", "-of", "csv=p=0"]
    probed = subprocess.run([*command, str(folder / "index.m3u8")], check=True, capture_output=True, text=True)
    assert "aac,2" in probed.stdout
    assert b"metadata.live-video.net" in (folder / named(folder)[-1]).read_bytes()


async def test_a_directory_that_cannot_be_made() -> None:
    with pytest.raises(OutputError, match=r"^output: cannot write /nowhere/hls/: No such file"):
        await DirectoryOutput("/nowhere/hls/", 128).start()


async def test_a_directory_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "hls"
    output = DirectoryOutput(f"{folder}/", 128)
    states: list[str] = []
    output.on_event = lambda event: states.append(event.state)
    await output.start()
    output.begin(datetime.now(UTC))
    encoder = Encoder(output.encoding)

    async def seconds(count: int) -> None:
        for n in range(50 * count):
            output.write(encoder.encode(np.zeros((FRAME_SIZE, 2), np.float32)))
            if n % 10 == 0:
                await asyncio.sleep(0.01)

    await seconds(4)
    folder.rename(tmp_path / "away")
    await seconds(6)
    (tmp_path / "away").rename(folder)
    await seconds(6)
    await output.stop()
    assert states == ["lost", "connected"]
    assert named(folder)
