"""Recordings by REST: made, stored, fetched; by restarts, by hosts, in buckets."""

import asyncio
import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from audiomixer.audio.survey import survey
from tests.files import decode
from tests.rooms.client import Client, Microphone
from tests.s3 import s3_server
from tests.service.api import Api, running
from tests.service.receiver import receiving
from tests.signals import level_at


async def until(api: Api, recording: str, status: str, seconds: float = 20) -> Any:
    async with asyncio.timeout(seconds):
        while (found := await api.get(f"Recordings/{recording}"))["status"] != status:
            await asyncio.sleep(0.2)
    return found


async def test_a_recording_from_beginning_to_end(api: Api) -> None:
    async with receiving() as receiver:
        processor = await api.processor("lounge", await api.streamer(), StatusCallback=receiver.url)
        async with Client(api.whip("lounge"), Microphone(1000, 0.1), token=api.token("alice")):
            await asyncio.sleep(1)
            made = await api.post(f"MediaProcessors/{processor['sid']}/Recordings", Format="MP3")
            assert made["status"] == "recording"
            assert made["media_processor_sid"] == processor["sid"]
            await api.get(f"Recordings/{made['sid']}/Media", 409)
            await asyncio.sleep(3)
            running_now = await api.get(f"Recordings/{made['sid']}")
            assert running_now["duration"] == pytest.approx(3, abs=0.8)
            assert running_now["size"] > 20_000
            await api.post(f"Recordings/{made['sid']}", 200, Status="stopped")
        done = await until(api, made["sid"], "completed")
        (file,) = done["files"]
        assert file["key"].startswith("lounge/2")
        assert done["duration"] == file["duration"] == pytest.approx(3.2, abs=0.8)
        assert file["loudness"] == pytest.approx(-20.7, abs=1)
        assert done["size"] == file["size"]
        path = Path(api.settings.recordings) / file["key"]
        assert path.stat().st_size == file["size"]

        media = await api.client.get(file["media"])
        assert media.headers["content-type"] == "audio/mpeg"
        assert media.content == path.read_bytes()
        part = await api.client.get(file["media"], headers={"Range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, media.content[100:200])
        assert level_at(decode(path)[:, 0], 1000) == pytest.approx(0.1, rel=0.2)

        waveform = await api.get(f"Recordings/{made['sid']}/Waveform", File=0)
        assert len(waveform["peaks"]) > 200
        assert np.median(waveform["peaks"]) == pytest.approx(10, abs=2)
        drawn = await api.client.get(f"{api.url}/v1/Recordings/{made['sid']}/Waveform.png", params={"Width": 640})
        with av.open(io.BytesIO(drawn.content)) as picture:
            frame = next(picture.decode(video=0))
            assert (frame.width, frame.height) == (640, 120)

        assert [r["sid"] for r in (await api.get("Rooms/lounge/Recordings"))["recordings"]] == [made["sid"]]
        async with asyncio.timeout(5):
            while "recording-completed" not in receiver.events():
                await asyncio.sleep(0.1)
        told = [event for event in receiver.events() if event.startswith("recording-")]
        assert told == ["recording-started", "recording-stored", "recording-completed"]
        for folder in (api.settings.data / "spool" / "0").glob("*/"):
            assert not list(folder.iterdir())

        assert (await api.client.delete(done["url"])).status_code == 204
        await api.get(f"Recordings/{made['sid']}", 404)
        assert not path.exists()


async def test_tracks_and_dual(api: Api) -> None:
    processor = await api.processor("lounge", await api.streamer())
    recordings = f"MediaProcessors/{processor['sid']}/Recordings"
    async with (
        Client(api.whip("lounge"), Microphone(500, 0.2), token=api.token("alice")),
        Client(api.whip("lounge"), Microphone(1500, 0.2), token=api.token("bob 日本")),
    ):
        await asyncio.sleep(1.5)
        tracks = await api.post(recordings, Layout="tracks")
        dual = await api.post(recordings, Layout="dual", Identity="alice", Format="wav")
        await asyncio.sleep(3)
        # What ends with its MediaProcessor is as good as what is stopped.
        await api.post(f"MediaProcessors/{processor['sid']}", 200, Status="ENDED")
    dual, tracks = await until(api, dual["sid"], "completed"), await until(api, tracks["sid"], "completed")
    store = Path(api.settings.recordings)
    both = decode(store / dual["files"][0]["key"])
    left, right = both[48_000:96_000, 0], both[48_000:96_000, 1]
    assert level_at(left, 500) == pytest.approx(0.2, rel=0.15)
    assert level_at(right, 1500) == pytest.approx(0.2, rel=0.15)
    assert level_at(left, 1500) < 0.002
    assert level_at(right, 500) < 0.002
    alone = {Path(file["key"]).name: store / file["key"] for file in tracks["files"]}
    assert alone.keys() == {"alice.mka", "bob %E6%97%A5%E6%9C%AC.mka"}
    for path in alone.values():
        assert survey(str(path)).seconds == pytest.approx(3.2, abs=0.7)


@pytest.mark.local
async def test_a_restart_goes_on_in_another_file(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        processor = await api.processor("lounge", await api.streamer())
        made = await api.post(f"MediaProcessors/{processor['sid']}/Recordings", Rotate=3600)
        await asyncio.sleep(2)
    async with running(tmp_path / "data") as api:
        await asyncio.sleep(3)
        found = await api.get(f"Recordings/{made['sid']}")
        assert found["status"] == "recording"
        assert len(found["files"]) == 1
        await api.post(f"Recordings/{made['sid']}", 200, Status="stopped")
        done = await until(api, made["sid"], "completed")
        assert len({file["key"] for file in done["files"]}) == 2
        assert done["duration"] == pytest.approx(5, abs=1.2)


async def test_one_recording_after_another_in_the_same_room(api: Api) -> None:
    processor = await api.processor("日本" * 60, await api.streamer())
    sids = []
    for _ in range(5):
        made = await api.post(f"MediaProcessors/{processor['sid']}/Recordings", Format="mp3")
        await asyncio.sleep(0.7)
        await api.post(f"Recordings/{made['sid']}", 200, Status="stopped")
        sids.append(made["sid"])
    for sid in sids:
        done = await until(api, sid, "completed")
        assert done["error"] is None
        assert done["duration"] == pytest.approx(0.7, abs=0.3)
    listed = await api.get(f"MediaProcessors/{processor['sid']}/Recordings", Status="completed")
    assert [one["sid"] for one in listed["recordings"]] == sids[::-1]
    listed = await api.get(f"MediaProcessors/{processor['sid']}/Recordings", Status="recording")
    assert listed["recordings"] == []


async def test_hosts_record_their_room(api: Api) -> None:
    bearer = {"Authorization": f"Bearer {api.token('host', 'lounge', host=True)}"}
    streamer = await api.streamer()
    async with receiving() as receiver, Client(api.whip("lounge"), Microphone(1000), token=api.token("alice")):
        url = f"{api.url}/v1/Rooms/lounge/Recordings"
        refused = await api.client.post(url, headers=bearer, auth=None)
        assert refused.status_code == 409
        assert "expected one that a MediaProcessor mixes" in refused.json()["message"]
        await api.processor("lounge", streamer, StatusCallback=receiver.url)
        made = (await api.client.post(url, headers=bearer, auth=None)).json()
        other = await api.client.post(url.replace("lounge", "other"), headers=bearer, auth=None)
        assert other.status_code == 401
        assert made["status_callback"] is None
        for method, path in (("GET", ""), ("POST", ""), ("DELETE", ""), ("GET", "/Media"), ("GET", "/Waveform")):
            refused = await api.client.request(
                method, f"{api.url}/v1/Recordings/{made['sid']}{path}", headers=bearer, auth=None
            )
            assert refused.status_code == 401
        await asyncio.sleep(1)
        stopped = await api.client.post(f"{url}/{made['sid']}", data={"Status": "stopped"}, headers=bearer, auth=None)
        assert stopped.json()["status"] == "processing"
    await until(api, made["sid"], "completed")


@pytest.mark.local
async def test_in_a_bucket_that_is_away_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        s3_server(tmp_path / "s3", monkeypatch) as s3,
        running(tmp_path / "data", recordings="s3://bucket/recordings") as api,
    ):
        processor = await api.processor("lounge", await api.streamer())
        made = await api.post(f"MediaProcessors/{processor['sid']}/Recordings", Format="ogg")
        await s3.server.kill()
        await asyncio.sleep(2)
        await api.post(f"Recordings/{made['sid']}", 200, Status="stopped")
        async with asyncio.timeout(10):
            while not (waiting := await api.get(f"Recordings/{made['sid']}"))["error"]:
                await asyncio.sleep(0.2)
        assert waiting["status"] == "processing"
        assert (await api.metrics())["audiomixer_spooled_bytes"] > 0
        await s3.server.start()
        done = await until(api, made["sid"], "completed")
        assert done["error"] is None
        (file,) = done["files"]
        stored = (s3.bucket / "recordings" / file["key"]).read_bytes()
        redirect = await api.client.get(file["media"])
        assert redirect.status_code == 307
        fetched = await api.client.get(redirect.headers["location"], auth=None, headers={"Range": "bytes=0-3"})
        assert fetched.content == stored[:4] == b"OggS"


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"Format": "flac"}, "Format: "),
        ({"Layout": "stereo"}, "Layout: "),
        ({"Layout": "dual"}, "Identity: expected one"),
        ({"Identity": "alice"}, "Identity: expected one if Layout is dual"),
        ({"Layout": "tracks", "Rotate": 60}, "Layout: expected neither"),
        ({"Rotate": 5}, "Rotate: "),
        ({"StatusCallback": "http://10.0.0.1/"}, "StatusCallback: "),
    ],
)
async def test_what_cannot_be_recorded(api: Api, form: dict[str, Any], message: str) -> None:
    processor = await api.processor("lounge", await api.streamer())
    refusal = await api.post(f"MediaProcessors/{processor['sid']}/Recordings", 400, **form)
    assert message in refusal["message"]
    assert (await api.get(f"MediaProcessors/{processor['sid']}/Recordings"))["recordings"] == []


async def test_of_what_has_ended_nothing_is_recorded(api: Api) -> None:
    processor = await api.processor("lounge", await api.streamer())
    await api.post(f"MediaProcessors/{processor['sid']}", 200, Status="ended")
    refusal = await api.post(f"MediaProcessors/{processor['sid']}/Recordings", 409)
    assert "expected one that has not ended" in refusal["message"]
    await api.post("MediaProcessors/ZX" + 32 * "0" + "/Recordings", 404)
