"""Recordings and HLS in a bucket of S3: there whole, whatever becomes of the server or of us meanwhile."""

import asyncio
import contextlib
import os
import random
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import av
import pytest

from audiomixer.audio.encoding import Encoder
from audiomixer.audio.survey import survey
from audiomixer.outputs.base import Output, OutputError
from audiomixer.outputs.bucket import Bucket
from audiomixer.outputs.file import FileOutput
from audiomixer.outputs.folder import Folder
from audiomixer.outputs.opening import open_output
from audiomixer.outputs.spool import Spool
from audiomixer.service.recorder import Recorder
from tests.s3 import S3, s3_server
from tests.signals import frames, sine, stereo


@pytest.fixture
async def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3]:
    async with s3_server(tmp_path / "s3", monkeypatch) as server:
        yield server


async def play(output: Output, seconds: float, pace: float = 0.0) -> None:
    """Writes a tone, so many seconds of real time for each of its own."""
    encoder = Encoder(output.encoding)
    for n, frame in enumerate(frames(stereo(sine(1000, 0.3, seconds)))):
        output.write(encoder.encode(frame))
        if n % 50 == 49:
            await asyncio.sleep(pace)


@contextlib.asynccontextmanager
async def spooling(folder: Path, bucket: Bucket, limit: int = 10**9) -> AsyncIterator[Spool]:
    spool = Spool(folder, bucket, limit)
    await spool.open()
    running = asyncio.create_task(spool.run())
    try:
        yield spool
    finally:
        running.cancel()
        await spool.close()


@pytest.mark.parametrize("suffix", ["m4a", "mp3", "ogg", "wav", "mka"])
async def test_a_recording_is_in_the_bucket_when_it_has_stopped(s3: S3, suffix: str) -> None:
    output = open_output(f"s3://bucket/shows/tonight.{suffix}", 128)
    await output.start()
    output.begin(datetime.now(UTC))
    await play(output, 3)
    await output.stop()
    assert output.error is None
    stored = survey(str(s3.bucket / "shows" / f"tonight.{suffix}"))
    assert stored.seconds == pytest.approx(3, abs=0.1)
    assert stored.loudness == pytest.approx(-10.5, abs=0.5)


async def test_no_bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    await s3.server.kill()
    with pytest.raises(OutputError, match=r"s3://bucket: "):
        await open_output("s3://bucket/tonight.m4a", 128).start()
    for url in ("s3://bucket", "s3:///tonight.m4a", "s3://bucket/notes.txt", "s3://bucket/meta.jsonl"):
        with pytest.raises(ValueError, match="expected"):
            open_output(url, 128)


async def test_while_the_server_is_away_a_recording_waits_and_is_whole_in_the_end(s3: S3) -> None:
    output = open_output("s3://bucket/tonight.mp3", 192, rotate=2)
    await output.start()
    output.begin(datetime.now(UTC))
    await play(output, 2)
    await s3.server.kill()
    await play(output, 3)
    stopping = asyncio.create_task(output.stop())
    await asyncio.sleep(1)
    assert not stopping.done()
    await s3.server.start()
    await asyncio.wait_for(stopping, 20)
    assert output.error is None
    found = sorted(s3.bucket.glob("tonight-*.mp3"))
    assert sum(survey(str(path)).seconds for path in found) == pytest.approx(5, abs=0.3)


async def test_what_there_is_of_a_long_recording_can_be_played_before_it_ends(s3: S3, tmp_path: Path) -> None:
    async with spooling(tmp_path / "spool", Bucket("s3://bucket")) as spool:
        path = tmp_path / "spool" / "show.wav"
        spool.begin(str(path))
        source = tmp_path / "tone.wav"
        output = open_output(str(source), 128)
        await output.start()
        output.begin(datetime.now(UTC))
        await play(output, 8)
        await output.stop()
        whole = source.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        async with asyncio.timeout(10):
            while not (s3.bucket / "show.wav").exists():
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        assert survey(str(s3.bucket / "show.wav")).seconds == pytest.approx(4, abs=0.1)
        path.write_bytes(whole)
        spool.finish(str(path))
        assert await spool.until_empty(10)
        assert (s3.bucket / "show.wav").read_bytes() == whole
        assert not path.exists()


async def test_what_a_process_has_left_is_stored_by_the_next_one(s3: S3, tmp_path: Path) -> None:
    left = tmp_path / "spool" / "lounge" / "1.m4a"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"a recording")
    (left.parent / "empty.m4a").touch()
    async with spooling(tmp_path / "spool", Bucket("s3://bucket/recordings")) as spool:
        assert await spool.until_empty(10)
    assert (s3.bucket / "recordings" / "lounge" / "1.m4a").read_bytes() == b"a recording"
    assert not (s3.bucket / "recordings" / "lounge" / "empty.m4a").exists()
    assert not list((tmp_path / "spool").iterdir())


async def test_where_the_spool_is_full_recording_goes_on_once_there_is_room(s3: S3, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    async with spooling(folder, Bucket("s3://bucket"), 20_000) as spool:
        output = FileOutput(str(folder / "lounge" / "show.mp3"), 128, spool=spool)
        await output.start()
        output.begin(datetime.now(UTC))
        await s3.server.kill()
        (folder / "lounge").mkdir(exist_ok=True)
        (folder / "lounge" / "older.mp3").write_bytes(bytes(30_000))
        spool.finish(str(folder / "lounge" / "older.mp3"))
        playing = asyncio.create_task(play(output, 12, 1))
        async with asyncio.timeout(5):
            while output.connected:
                await asyncio.sleep(0.1)
        assert spool.is_full
        with pytest.raises(OSError, match="the spool is full"):
            spool.check_room()
        await s3.server.start()
        await playing
        assert output.connected
        await output.stop()
        assert await spool.until_empty(20)
        assert output.dropped > 0
    found = [survey(str(path)).seconds for path in (s3.bucket / "lounge").glob("show*.mp3")]
    assert len(found) >= 1
    assert 2 < sum(found) < 12


async def test_whatever_is_in_a_file_it_is_stored(s3: S3, tmp_path: Path) -> None:
    """Cut off where it was being begun, it has no audio at all."""
    whole = tmp_path / "whole.m4a"
    output = open_output(str(whole), 128)
    await output.start()
    output.begin(datetime.now(UTC))
    await play(output, 1)
    await output.stop()
    cut = tmp_path / "cut.m4a"
    cut.write_bytes(whole.read_bytes()[:200])
    with pytest.raises((OSError, av.FFmpegError)):
        survey(str(cut))
    store, name = Folder(str(tmp_path / "store")), "lounge/KV" + 32 * "a" + ".m4a"
    left = tmp_path / "spool" / "7" / "files" / name
    left.parent.mkdir(parents=True)
    left.write_bytes(whole.read_bytes()[:200])
    # What a process with another number left is taken over as well.
    recorder = Recorder(store, tmp_path / "spool", 1)
    await recorder.open()
    async with asyncio.timeout(10):
        while not (state := recorder.recordings().get("KV" + 32 * "a")) or not state.stored:
            await asyncio.sleep(0.1)
    assert (state.stored[0].size, state.stored[0].seconds) == (200, 0.0)
    assert store.path(name).stat().st_size == 200
    await recorder.acknowledge([state.stored[0].key])
    assert recorder.recordings() == {}
    await recorder.close()
    assert not left.exists()


async def test_hls_in_a_bucket(s3: S3) -> None:
    output = open_output("s3://bucket/show/", 128)
    await output.start()
    output.begin(datetime.now(UTC))
    playing = asyncio.create_task(play(output, 60, 0.1))
    await asyncio.sleep(3)
    await s3.server.kill()
    await asyncio.sleep(1)
    await s3.server.start()
    await playing
    await output.stop()
    playlist = (s3.bucket / "show" / "audio.m3u8").read_text()
    assert playlist.endswith("#EXT-X-ENDLIST\n")
    names = re.findall(r"^\S+\.ts$", playlist, re.MULTILINE)
    assert names
    assert all((s3.bucket / "show" / name).stat().st_size % 188 == 0 for name in names)
    assert output.error is None


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own needs root")
async def test_a_hundred_recordings_to_a_server_that_is_killed_slow_and_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every object is whole in the end, and none is lost."""
    disk = tmp_path / "s3"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], check=True)
    try:
        async with s3_server(disk, monkeypatch) as s3, spooling(tmp_path / "spool", Bucket("s3://bucket")) as spool:
            recorded: dict[str, bytes] = {}

            def record(n: int) -> None:
                path = tmp_path / "spool" / "show" / f"{n}.mp3"
                path.parent.mkdir(exist_ok=True)
                spool.begin(str(path))
                path.write_bytes(recorded.setdefault(f"show/{n}.mp3", random.Random(n).randbytes(90_000)))
                spool.finish(str(path))

            (disk / "full").write_bytes(bytes(8 * 1024 * 1024))
            for n in range(100):
                record(n)
                if n == 20:
                    await s3.server.kill()
                if n == 40:
                    await s3.server.start()
                if n in {50, 60}:
                    s3.server.signal(signal.SIGSTOP)
                if n in {55, 70}:
                    s3.server.signal(signal.SIGCONT)
                await asyncio.sleep(0.05)
            async with asyncio.timeout(20):
                while not spool.problem or len(list((s3.bucket / "show").iterdir())) < 30:
                    await asyncio.sleep(0.1)
            assert 0 < len(spool.waiting) < 100, "the disk is full"
            (disk / "full").unlink()
            assert await spool.until_empty(60)
            assert {f"show/{path.name}": path.read_bytes() for path in (s3.bucket / "show").iterdir()} == recorded
            assert not list((tmp_path / "spool").iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
