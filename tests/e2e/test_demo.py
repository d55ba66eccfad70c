"""`audiomixer demo`, looked at with what people have: a pipe, ffprobe, Ctrl-C."""

import asyncio
import json
import signal
import subprocess
from itertools import groupby, pairwise
from typing import Any

import pytest

from tests.e2e.command import free_port, run, running, stream_url


async def test_twenty_seconds_of_metadata() -> None:
    code, out, err = await run("demo", "--port", "0", "--duration", "20", "--json")
    assert (code, err) == (0, "")
    payloads = [json.loads(line) for line in out.splitlines()]
    assert len(payloads) >= 35
    assert all(later["s"] == earlier["s"] + 1 for earlier, later in pairwise(payloads))
    assert all(set(payload["p"]) == {"alice", "bob", "carol"} for payload in payloads)
    volumes = {name: [payload["p"][name]["v"] for payload in payloads] for name in ("alice", "bob", "carol")}
    for name in ("alice", "carol"):
        assert -1 not in volumes[name]
        assert max(volumes[name]) > 1000
        assert min(volumes[name]) < 100
    # Bob is muted for 4 s of every 9.
    spells = [(muted, len(list(spell))) for muted, spell in groupby(volume < 0 for volume in volumes["bob"])]
    assert [muted for muted, _ in spells] == [False, True, False, True, False]
    assert all(length in {7, 8} for muted, length in spells if muted)
    assert spells[2][1] in {10, 11}


@pytest.mark.parametrize("bitrate", [128, 192])
async def test_ffprobe_plays_its_hls(bitrate: int) -> None:
    port = free_port()
    async with running("demo", "--port", str(port), "--audio-bitrate", str(bitrate), "--json"):
        url, sid = await stream_url(port)
        await asyncio.sleep(9)
        probe = ["ffprobe", "-v", "error", "-show_streams", "-show_packets", "-show_data", "-of", "json"]
        command = [*probe, "-read_intervals", "%+8", f"{url}/hls/{sid}/index.m3u8"]
        shown = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    probed = json.loads(shown.stdout)
    audio, text = probed["streams"]
    assert (audio["codec_name"], audio["profile"]) == ("aac", "LC")
    assert (audio["sample_rate"], audio["channels"]) == ("48000", 2)
    assert text["codec_name"] == "timed_id3"
    sound = [packet for packet in probed["packets"] if packet["stream_index"] == audio["index"]]
    assert len(sound) > 200
    bits = 8 * sum(int(packet["size"]) - 7 for packet in sound)
    assert bits / len(sound) / 1024 * 48_000 == pytest.approx(bitrate * 1000, rel=0.03)
    tags = [packet for packet in probed["packets"] if packet["stream_index"] == text["index"]]
    assert len(tags) >= 8
    for earlier, later in pairwise(tags):
        assert float(later["pts_time"]) - float(earlier["pts_time"]) == pytest.approx(0.5, abs=1024 / 48_000)
        assert metadata(later)["s"] == metadata(earlier)["s"] + 1
    assert set(metadata(tags[0])["p"]) == {"alice", "bob", "carol"}


def metadata(packet: dict[str, Any]) -> Any:
    """The JSON in the ID3 tag that ffprobe shows as a hexadecimal dump (FFmpeg 5.1 hides the first five bytes)."""
    rows = [line.split(":", 1)[1][:42] for line in packet["data"].splitlines() if line]
    tag = bytes.fromhex("".join(rows))
    return json.loads(tag.split(b"metadata.live-video.net\0")[1])


async def test_ctrl_c_is_clean() -> None:
    async with running("demo", "--port", "0") as process:
        assert process.stdout
        shown = ""
        async with asyncio.timeout(20):
            while "HLS" not in shown:
                shown += (await process.stdout.read(1000)).decode()
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(5):
            rest, errors = await process.communicate()
        assert process.returncode == 0
        assert errors == b""
        assert "/listen/VJ" in shown + rest.decode()
