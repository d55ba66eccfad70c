"""A worker by itself, as control calls it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from audiomixer.service.cluster.reports import VERSION, Greeting, Happening, Journal, Report
from audiomixer.service.cluster.worker import SECRET_HEADER, Worker, worker_settings
from audiomixer.service.jobs import Job
from audiomixer.service.settings import Settings
from tests.rooms.client import Client, Microphone

SECRET = "0123456789abcdef0123456789abcdef"
STREAMER = "VJ" + "0" * 32
OTHER = "VJ" + "1" * 32
JOB = Job("ZX1", "local:lounge", "mixer", (STREAMER,), 128)


def fields(tmp_path: Path) -> dict[str, object]:
    settings = Settings(data=tmp_path)
    settings.complete()
    told = worker_settings(settings, one_machine=True)
    assert settings.auth_token not in str(told)
    return told | {"auth_token": SECRET, "of_a_later_version": 1}


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    worker = Worker(fields(tmp_path), "127.0.0.1", "127.0.0.1", 0)
    yield worker
    await worker.close()


async def greeting(worker: Worker) -> Greeting:
    assert await worker.version() == VERSION
    return await worker.hello()


async def until(worker: Worker, number: int) -> Report:
    async with asyncio.timeout(5):
        while True:
            report = await worker.report(0, 0.2)
            if report.number >= number:
                return report
            await asyncio.sleep(0.05)


async def test_it_tells_what_it_is_at_and_what_happens(worker: Worker) -> None:
    first = await greeting(worker)
    progress = await worker.start(JOB)
    assert progress.seconds > 0
    headers = {SECRET_HEADER: SECRET, "Content-Type": "application/sdp"}
    client = Client(f"{first.url}/whip/lounge?identity=alice", Microphone(500))
    client._headers = headers
    async with client:
        report = await until(worker, 1)
        resource = client.response.headers["location"].rpartition("/")[2]
        assert report.happenings == [Happening("joined", "lounge", resource, "alice")]
        again = await greeting(worker)
        assert again.incarnation == first.incarnation
        assert again.rooms == {"lounge": {resource: "alice"}}
        assert dict(again.jobs) == {JOB.sid: JOB}
        assert again.number == 1
        assert (report.load.jobs, report.load.rooms, report.streams[0].sid) == (1, 1, STREAMER)
    assert (await until(worker, 2)).happenings[-1] == Happening("left", "lounge", resource)


async def test_nobody_else_is_answered(worker: Worker) -> None:
    url = (await greeting(worker)).url
    async with httpx.AsyncClient() as client:
        for headers in ({}, {SECRET_HEADER: "other"}):
            assert (await client.get(f"{url}/healthz", headers=headers)).status_code == 403
        assert (await client.get(f"{url}/healthz", headers={SECRET_HEADER: SECRET})).status_code == 200


async def test_what_nobody_asks_after_is_ended(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be cut off, and its jobs be another's: it uses no more numbers than are reserved."""
    monkeypatch.setattr("audiomixer.service.cluster.worker._ABANDONED", 0.5)
    await greeting(worker)
    await worker.start(JOB)
    async with asyncio.timeout(5):
        while worker._jobs:
            await asyncio.sleep(0.05)
    assert not (await worker.report(0, 0)).progress


async def test_a_job_is_not_started_twice_and_is_known_as_it_has_become(worker: Worker) -> None:
    await greeting(worker)
    await worker.start(replace(JOB, outputs=(STREAMER, OTHER)))
    with pytest.raises(ValueError, match="not at work"):
        await worker.start(JOB)
    await worker.drop(JOB.sid, OTHER)
    await worker.leave_room(JOB.sid)
    assert dict((await greeting(worker)).jobs) == {JOB.sid: replace(JOB, room=None)}


async def test_a_journal_keeps_what_may_still_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal()
    waiting = asyncio.create_task(journal.after(0, 5))
    await asyncio.sleep(0)
    items = [Happening("joined", f"room-{n}") for n in range(3)]
    for item in items:
        journal.add(item)
    assert await waiting == items
    assert await journal.after(1, 0) == items[1:]
    assert await journal.after(3, 0.01) == []
