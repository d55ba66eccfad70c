"""What is durable: a service that ends, in whatever way, goes on where it was."""

import asyncio
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, select, update
from sqlalchemy.orm import Session

from audiomixer.service import Settings
from audiomixer.service.resources.checkpoints import CHECKPOINT
from audiomixer.service.resources.lifecycles import Office
from audiomixer.service.resources.retention import forget
from audiomixer.service.resources.store import (
    MediaProcessor,
    Participant,
    PlayerStreamer,
    Room,
    Store,
    migrate,
    now,
)
from tests.rooms.client import Client, Microphone
from tests.service.api import Api, running
from tests.service.receiver import receiving
from tests.service.test_media_processors import payloads


@pytest.mark.local
async def test_streams_go_on_where_they_were(tmp_path: Path) -> None:
    """Stopped in order and started again: same stream, same room, `s` goes on, HLS has a discontinuity."""
    async with receiving() as receiver:
        async with running(tmp_path) as api:
            streamer = await api.streamer(StatusCallback=receiver.url)
            processor = await api.processor("lounge", streamer, context={"audioBitrate": 192})
            before = (await payloads(api, streamer, 3))[-1]
            session = await session_of(api, streamer)
        async with running(tmp_path) as api:
            async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
                after = await payloads(api, streamer, 4)
            assert after[-1]["p"] != {}, "it is in its room again"
            assert [int(str(p["s"])) for p in after] == list(
                range(int(str(after[0]["s"])), int(str(after[0]["s"])) + 4)
            )
            assert 0 < int(str(after[0]["s"])) - int(str(before["s"])) <= 12
            playlist = (await api.client.get(f"{api.url}/hls/{streamer}/audio.m3u8?token={session}")).text
            assert "#EXT-X-DISCONTINUITY\n" in playlist
            assert (await api.get(f"MediaProcessors/{processor['sid']}"))["status"] == "started"
            async with asyncio.timeout(10):  # Alice takes a moment to leave.
                while await connected(api, "lounge") != ["audio-mixer-v2"]:
                    await asyncio.sleep(0.1)
            await api.post(f"MediaProcessors/{processor['sid']}", 200, Status="ended")
            await receiver.until(3)
        assert receiver.events() == [f"player-streamer-{event}" for event in ("created", "started", "ended")]


async def connected(api: Api, room: str) -> list[str]:
    here = (await api.get(f"Rooms/{room}/Participants", Status="connected"))["participants"]
    return [participant["identity"] for participant in here]


async def session_of(api: Api, streamer: str) -> str:
    master = await api.client.get(await api.playback_url(streamer))
    return master.text.splitlines()[-1].partition("token=")[2]


async def test_what_was_over_meanwhile_has_ended_with_the_right_reason(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        streamer, other = await api.streamer(), await api.streamer(MaxDuration=1)
        processor = await api.processor("lounge", streamer, MaxDuration=1)
    await asyncio.sleep(1.1)
    async with running(tmp_path) as api:
        ended = await api.get(f"MediaProcessors/{processor['sid']}")
        assert (ended["status"], ended["ended_reason"]) == ("ended", "max-duration-exceeded")
        assert (await api.get(f"PlayerStreamers/{streamer}"))["ended_reason"] == "stream-disconnected-by-source"
        await asyncio.sleep(0.1)
        assert (await api.get(f"PlayerStreamers/{other}"))["ended_reason"] == "max-duration-exceeded"


async def test_the_time_of_day_may_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour ahead while it runs, and then a day back, also over a restart: nothing ends, and `s` goes on."""
    real, steps = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + steps[-1])
    async with running(tmp_path) as api:
        streamer = await api.streamer(MaxDuration=600)
        processor = await api.processor("lounge", streamer, MaxDuration=600)
        numbers = []
        for step in (0.0, 3600.0, -86_400.0):
            steps.append(step)
            numbers += [int(str(payload["s"])) for payload in await payloads(api, streamer, 4)]
            await asyncio.sleep(CHECKPOINT)
        assert numbers == sorted(set(numbers))
        assert numbers[-1] - numbers[0] <= 2 * (3 * CHECKPOINT + 8)
        assert (await api.get(f"MediaProcessors/{processor['sid']}"))["status"] == "started"
        session = await session_of(api, streamer)
        playlist = (await api.client.get(f"{api.url}/hls/{streamer}/audio.m3u8?token={session}")).text
        dates = [datetime.fromisoformat(date) for date in re.findall("PROGRAM-DATE-TIME:(.*)", playlist)]
        assert dates == sorted(dates)
    async with running(tmp_path) as api:
        after = [int(str(payload["s"])) for payload in await payloads(api, streamer, 2)]
        assert numbers[-1] < after[0] < numbers[-1] + 30
        assert (await api.get(f"PlayerStreamers/{streamer}"))["status"] == "started"


async def test_what_has_ended_long_ago_is_forgotten(tmp_path: Path) -> None:
    """After 90 days: two rooms and a stream have ended, one room yesterday; another stream has gone on all the time."""
    async with running(tmp_path) as api:
        old, recent = [(await api.post("Rooms", UniqueName=name))["sid"] for name in ("old", "recent")]
        async with Client(api.whip("old"), Microphone(500), token=api.token("alice")):
            await api.settle()
        ended, goes_on = await api.streamer(), await api.streamer()
        for room in (old, recent):
            await api.post(f"Rooms/{room}", 200, Status="completed")
        await api.post(f"PlayerStreamers/{ended}", 200, Status="ended")

        def backdate(session: Session) -> None:
            for kind, sid, days in ((Room, old, 91), (Room, recent, 1), (PlayerStreamer, ended, 91)):
                session.get_one(kind, sid).ended = now() - days * 86_400
            session.get_one(PlayerStreamer, goes_on).created -= 91 * 86_400

        await api.service.store.run(backdate)
        office = Office(api.settings, api.service.store, api.service.callbacks)
        assert not await forget(
            Office(Settings(**vars(api.settings) | {"retention_days": 0}), office.store, office.callbacks)
        )
        await api.get(f"Rooms/{old}")
        await forget(office)
        await api.get(f"Rooms/{old}", 404)
        await api.get(f"PlayerStreamers/{ended}", 404)
        assert (await api.get(f"Rooms/{recent}"))["status"] == "completed"
        assert (await api.get(f"PlayerStreamers/{goes_on}"))["status"] == "created"
        left = await office.store.run(lambda session: session.scalars(select(Participant)).all())
        assert left == []


async def test_who_was_unconnected_stays_so(tmp_path: Path) -> None:
    async with running(tmp_path, room_creation=False) as api:
        streamer = await api.streamer()
        await api.processor("lounge", streamer)
    async with running(tmp_path) as api, Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
        assert (await payloads(api, streamer, 3))[-1]["p"] == {}


async def test_who_has_left_its_room_does_not_return(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        streamer = await api.streamer()
        processor = await api.processor("lounge", streamer)
        past = update(MediaProcessor).where(MediaProcessor.sid == processor["sid"]).values(leaves=now() - 1)
        await api.service.store.run(lambda session: session.execute(past))
    async with running(tmp_path) as api, Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
        assert (await payloads(api, streamer, 3))[-1]["p"] == {}


def test_the_schema_is_what_the_migrations_make(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from audiomixer.service.resources.store import Base

    engine = create_engine(f"sqlite:///{tmp_path / 'new.db'}")
    migrate(engine)
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "postgresql+nothing://x"])
def test_databases_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="^database_url: expected"):
        Store(url)


@pytest.mark.local
async def test_postgresql(tmp_path: Path, postgresql: str) -> None:
    """The same over a real PostgreSQL: made, resumed, ended, listed."""
    settings: dict[str, Any] = {"database_url": postgresql}
    async with running(tmp_path, **settings) as api:
        streamer = await api.streamer(Video="true")
        processor = await api.processor("a ünïcode room", streamer)
        async with Client(api.whip("a ünïcode room"), Microphone(500), token=api.token("alice")):
            await payloads(api, streamer, 2)
    async with running(tmp_path, **settings) as api:
        assert await payloads(api, streamer, 1)
        await api.post(f"MediaProcessors/{processor['sid']}", 200, Status="ended")
        assert len((await api.get("MediaProcessors", PageSize=1))["media_processors"]) == 1
        assert len((await api.get("Rooms/a ünïcode room/Participants"))["participants"]) == 3
        assert (await api.post("Rooms", 400, UniqueName="nul\x00"))["code"] == 20001
        await api.get("Rooms/nul%00", 404)
