"""HLS as ffprobe sees it, without a clock."""

import asyncio
import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from audiomixer import TimedMetadata
from audiomixer.audio.encoding import Encoder
from audiomixer.audio.metadata import id3
from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.outputs.hls import HlsOutput, TooFarError
from tests.signals import frames, speech, stereo

BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)


async def stream(seconds: float, bitrate: int = 128, **options: Any) -> HlsOutput:
    """A stream of speech, as an AudioMixer would write it, not ended yet."""
    output = HlsOutput(bitrate, **options)
    await output.start()
    output.begin(BEGAN)
    encoder = Encoder(output.encoding)
    voice = stereo(np.resize(speech(), round(seconds * 48_000)))
    for n, frame in enumerate(frames(voice)):
        output.write(encoder.encode(frame))
        if n % 25 == 24:
            output.write_metadata(TimedMetadata.of(n // 25, {"alice": n}, 0).to_json(), (n + 1) * 0.02)
    return output


def durations(playlist: str) -> list[float]:
    return [float(duration) for duration in re.findall(r"#EXTINF:([\d.]+),", playlist)]


def packets(path: Path, stream_index: int) -> list[Any]:
    shown = subprocess.run(
        [
            "ffprobe",
            "-v",
            "error",
            "-select_streams",
            str(stream_index),
            "-show_packets",
            "-show_data",
            "-of",
            "json",
            path,
        ],
        capture_output=True,
        check=True,
    )
    return list(json.loads(shown.stdout)["packets"])


async def test_nothing_can_be_played_before_there_are_segments() -> None:
    output = await stream(0.9)
    assert output.media_playlist() is None
    assert "audio.m3u8" in output.master_playlist()
    await output.stop()


@pytest.mark.parametrize("bitrate", [128, 192])
async def test_what_is_in_the_segments(tmp_path: Path, bitrate: int) -> None:
    output = await stream(10, bitrate)
    await output.stop()
    playlist = output.media_playlist()
    assert playlist is not None
    assert playlist.endswith("#EXT-X-ENDLIST\n")
    numbers = [int(number) for number in re.findall(r"(\d+)\.ts", playlist)]
    assert durations(playlist)[4:-1] == pytest.approx([0.96] * 9, abs=0.01)
    whole = tmp_path / "whole.ts"
    whole.write_bytes(b"".join([await output.media(f"{n}.ts") or b"" for n in range(numbers[-1] + 1)]))
    with av.open(str(whole)) as container:
        audio = container.streams.audio[0]
        assert (audio.codec_context.name, audio.codec_context.profile) == ("aac", "LC")
        assert (audio.codec_context.sample_rate, audio.codec_context.channels) == (48_000, 2)
    sound = packets(whole, 0)
    bits = 8 * sum(int(packet["size"]) - 7 for packet in sound)  # less the ADTS headers
    assert bits / len(sound) / 1024 * 48_000 == pytest.approx(bitrate * 1000, rel=0.03)
    times = [float(packet["pts_time"]) for packet in sound]
    assert times[-1] - times[0] == pytest.approx(10, abs=0.1)
    assert all(later - earlier == pytest.approx(1024 / 48_000, abs=1e-4) for earlier, later in pairwise(times))
    text = packets(whole, 1)
    assert len(text) == 20
    with av.open(str(whole)) as container:
        tags = [bytes(packet) for packet in container.demux(container.streams[1]) if packet.size]
    assert tags[3] == id3('{"s": 3, "p": {"alice": {"v": 99}}}')
    moments = [float(packet["pts_time"]) for packet in text]
    assert all(later - earlier == pytest.approx(0.5, abs=1e-4) for earlier, later in pairwise(moments))
    assert moments[0] - times[0] == pytest.approx(0.5 + 1024 / 48_000, abs=1e-3)


async def test_the_window_slides_and_dates_follow_the_durations() -> None:
    output = await stream(48)
    playlist = output.media_playlist() or ""
    assert len(durations(playlist)) == 20
    assert max(durations(playlist)) < 1
    first = int(re.findall(r"#EXT-X-MEDIA-SEQUENCE:(\d+)", playlist)[0])
    assert re.findall(r"^(\d+)\.ts", playlist, re.M) == [str(first + n) for n in range(20)]
    dates = [datetime.fromisoformat(date) for date in re.findall(r"#EXT-X-PROGRAM-DATE-TIME:(\S+)", playlist)]
    for (earlier, later), duration in zip(pairwise(dates), durations(playlist), strict=False):
        assert later - earlier == pytest.approx(timedelta(seconds=duration), abs=timedelta(milliseconds=2))
    # The first four segments are of a third of a second.
    began = timedelta(seconds=4 * 0.32 + (first - 4) * 0.96)
    assert dates[0] - BEGAN == pytest.approx(began, abs=timedelta(seconds=0.2))
    assert await output.media(f"{first - 1}.ts"), "who is late still gets what has left the playlist"
    assert await output.media("0.ts") is None
    await output.stop()


async def test_parts_are_a_third_of_a_second_and_join_to_segments() -> None:
    output = await stream(12)
    playlist = output.media_playlist() or ""
    parts = re.findall(r'#EXT-X-PART:DURATION=([\d.]+),URI="(\d+)\.(\d+)\.ts",INDEPENDENT=YES', playlist)
    assert [float(duration) for duration, _, _ in parts] == pytest.approx([0.32] * len(parts), abs=1e-3)
    segment = parts[0][1]
    joined = [await output.media(f"{segment}.{n}.ts") or b"" for n in range(3)]
    assert b"".join(joined) == await output.media(f"{segment}.ts")
    assert all(part[0] == ord("G") and part[1:3] == b"\x40\x11" for part in joined), "each begins with tables"
    assert float(re.findall(r"PART-HOLD-BACK=([\d.]+)", playlist)[0]) >= 3 * 0.35


async def test_updates_leave_out_what_is_known() -> None:
    """A delta update of a playlist of 20 segments has those that begin less than 6 s before its end."""
    output = await stream(36)
    whole, update = output.media_playlist() or "", output.media_playlist(skip=True) or ""
    skipped = int(re.findall(r"#EXT-X-SKIP:SKIPPED-SEGMENTS=(\d+)", update)[0])
    assert 13 <= skipped <= 14
    assert durations(update) == durations(whole)[skipped:]
    assert "#EXT-X-SKIP" not in whole


async def test_requests_wait_for_what_is_to_come() -> None:
    """The stream is at 3 s; what is asked for comes at 0.1 s; then the stream ends."""
    output = await stream(3)
    playlist = output.media_playlist() or ""
    hinted = re.findall(r'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="((\d+)\.(\d+)\.ts)"', playlist)[0]
    waiting = asyncio.create_task(output.media(hinted[0]))
    reloading = asyncio.create_task(output.until(int(hinted[1]), int(hinted[2])))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    assert not reloading.done()
    encoder = Encoder(output.encoding, 150 * FRAME_SIZE)
    for _ in range(40):
        output.write(encoder.encode(np.zeros((FRAME_SIZE, 2), np.float32)))
    assert await asyncio.wait_for(waiting, 1)
    await asyncio.wait_for(reloading, 1)
    assert hinted[0] in (output.media_playlist() or "")
    with pytest.raises(TooFarError, match="^_HLS_msn: expected at most"):
        await output.until(int(hinted[1]) + 4)
    last = asyncio.create_task(output.until(int(hinted[1]) + 2))
    await asyncio.sleep(0.05)
    await output.stop()
    await asyncio.wait_for(last, 1)
    assert (output.media_playlist() or "").endswith("#EXT-X-ENDLIST\n")


async def test_a_stream_goes_on_after_interruptions_with_a_discontinuity() -> None:
    """Interrupted twice before: its first segment is number 70, and names cannot be guessed."""
    output = await stream(3, prefix="f00d-", first=70, interruptions=2)
    playlist = (output.media_playlist() or "").splitlines()
    assert "#EXT-X-MEDIA-SEQUENCE:70" in playlist
    assert "#EXT-X-DISCONTINUITY-SEQUENCE:1" in playlist, "the second is still in the list"
    assert "f00d-70.ts" in playlist[playlist.index("#EXT-X-DISCONTINUITY") :][:5]
    assert await output.media("f00d-70.ts")
    assert await output.media("70.ts") is None

    output = await stream(25, prefix="f00d-", first=70, interruptions=2)
    later = (output.media_playlist() or "").splitlines()
    assert "#EXT-X-DISCONTINUITY" not in later
    assert "#EXT-X-DISCONTINUITY-SEQUENCE:2" in later, "it has left the list"
