"""Pictures beside the sound, for receivers that take no sound alone."""

import asyncio
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from audiomixer.mixer import AudioMixer
from audiomixer.outputs.picture import SIZE, Picture, draw
from audiomixer.outputs.push import PushOutput, without_picture
from tests.e2e.command import free_port
from tests.outputs.servers import Server, nginx_rtmp
from tests.outputs.test_push import live
from tests.signals import sine


def probed(path: Path) -> tuple[str, str]:
    entries = "stream=codec_name,profile,width,height,pix_fmt"
    command = ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "csv=p=0", str(path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    (video,) = (line for line in told if line.startswith("h264"))
    (audio,) = (line for line in told if line.startswith("aac"))
    return video, audio


async def test_a_receiver_that_wants_a_picture_gets_one_in_step_with_the_sound(tmp_path: Path) -> None:
    """It is ffmpeg, which ends where there is no video."""
    port, path = free_port(), tmp_path / "seen.flv"
    url = f"rtmp://127.0.0.1:{port}/live/key"
    mapped = ["-map", "0:v:0", "-map", "0:a:0", "-c", "copy"]
    async with Server(["ffmpeg", "-v", "error", "-y", "-listen", "1", "-i", url, *mapped, str(path)], None) as receiver:
        await asyncio.sleep(1)
        async with AudioMixer("local:friday", outputs=[f"{url}?picture"]) as mixer:
            for _ in range(120):
                for identity, volume in (("alice", 0.3), ("bob", 0.01)):
                    if identity not in mixer.room.bus.mixer.identities:
                        mixer.room.bus.mixer.add_participant(identity).push_pcm(sine(500, volume, 0.9))
                await asyncio.sleep(0.05)
        await asyncio.wait_for(receiver.wait(), 10)
    video, audio = probed(path)
    assert video.endswith("Baseline,1280,720,yuv420p")
    assert audio.startswith("aac,LC")
    seen, keys, heard = [], [], []
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is not None and packet.size and packet.stream.type in {"video", "audio"}:
                at = float(packet.pts * packet.time_base)
                (seen if packet.stream.type == "video" else heard).append(at)
                if packet.stream.type == "video" and packet.is_keyframe:
                    keys.append(at)
    assert np.diff(seen) == pytest.approx(0.2, abs=0.01)
    assert np.diff(keys) == pytest.approx(2, abs=0.01)
    assert seen[-1] == pytest.approx(heard[-1], abs=0.3)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    changes = [n for n in range(1, len(frames)) if np.abs(frames[n].astype(int) - frames[n - 1]).max() > 60]
    assert changes, "meters move"
    assert np.diff(changes) == pytest.approx(5, abs=5.1)


async def test_a_still_picture_of_ones_own_to_nginx(tmp_path: Path) -> None:
    cover = tmp_path / "cover image.png"
    Image.new("RGB", (3000, 3000), (200, 30, 60)).save(cover)
    async with nginx_rtmp(tmp_path) as (_, port):
        output = PushOutput(f"rtmp://127.0.0.1:{port}/live/key?picture={str(cover).replace(' ', '%20')}", 128)
        async with live(output):
            await asyncio.sleep(4)
        await asyncio.sleep(0.5)
    (path,) = (tmp_path / "recorded").iterdir()
    assert probed(path)[0].startswith("h264")
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert frame.shape == (720, 1280, 3)
    assert frame[360, 640] == pytest.approx((200, 30, 60), abs=12)
    assert frame[360, 100].max() < 40


def test_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "cover.png").write_text("not a picture")
    for file in ("cover.png", "absent.png"):
        with pytest.raises(ValueError, match="picture: expected a picture that can be read"):
            PushOutput(f"rtmp://127.0.0.1/live/key?picture={tmp_path / file}", 128)
    with pytest.raises(ValueError, match="no picture for Icecast"):
        PushOutput("icecast://source:hackme@127.0.0.1:8000/show?picture", 128)


def test_the_rest_of_a_query_stays() -> None:
    assert without_picture("rtmp://h/a/k?auth=1&picture=a%20b.png&x=") == ("rtmp://h/a/k?auth=1&x=", "a b.png")
    assert without_picture("rtmp://h/a/k?picture") == ("rtmp://h/a/k", "")
    assert without_picture("rtmp://h/a/k?picture_id=3") == ("rtmp://h/a/k?picture_id=3", None)


@pytest.mark.parametrize("identity", ["alice", "日本語", "‮tricky", "x" * 256, "👩‍🚀", ""])
def test_whatever_somebody_is_called_can_be_drawn(identity: str) -> None:
    drawn = draw(identity, dict.fromkeys((f"{identity}{n}" for n in range(40)), 3000) | {identity: -1})
    assert drawn.size == SIZE


def test_payloads_of_the_application_are_no_volumes() -> None:
    picture = Picture()
    for payload in ("hello", "[]", '{"p": 3}', '{"p": {"a": 1}}', '{"p": {"a": {"v": "x"}}}'):
        picture.tell(payload)
