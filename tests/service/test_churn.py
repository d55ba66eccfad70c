"""MediaProcessors that come and go at random: nothing of them is left."""

import asyncio
import ctypes
import gc
import os
import random
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.rooms.client import Client, Microphone
from tests.service.api import Api, running

AT_ONCE = 8
_LONG = 120


COUNTED = ("tasks", "threads", "files")


def tasks() -> list[str]:
    """All of them; a question to a worker of a cluster is one, and is there most of the time only."""
    coroutines = (str(task.get_coro()) for task in asyncio.all_tasks())
    return [coroutine for coroutine in coroutines if "Member.call" not in coroutine]


def resources() -> dict[str, int]:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # What the allocator keeps for later, half of all, tells nothing.
    status = Path("/proc/self/status").read_text()
    memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return {
        "tasks": len(tasks()),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - it is a count
        "kilobytes": memory,
    }


async def come_and_go(api: Api, seconds: float, seed: int) -> int:
    """Rooms with a participant each, mixed for a while; ended by either side, or by the room."""
    rng = random.Random(seed)
    made = 0

    async def one(number: int) -> None:
        room = f"room-{rng.randrange(4)}"
        streamer = await api.streamer()
        processor = (await api.processor(room, streamer))["sid"]
        token = api.token(f"someone-{number}")
        client = Client(api.whip(room), Microphone(500), hears=rng.random() < 0.5, token=token)
        try:
            async with client:
                await asyncio.sleep(rng.uniform(0, 3))
                if rng.random() < 0.3:
                    await api.post(f"PlayerStreamers/{streamer}", 200, Status="ended")
        except httpx.HTTPStatusError:
            await client.pc.close()
            assert client.response.status_code == 409, "the room has been completed just now"
        await api.post(f"MediaProcessors/{processor}", 200, Status="ended")
        if rng.random() < 0.1:
            await api.client.post(f"{api.url}/v1/Rooms/{room}", data={"Status": "completed"})

    async def keep_going() -> None:
        nonlocal made
        while time.monotonic() < end:
            made += 1
            await one(made)

    end = time.monotonic() + seconds
    await asyncio.gather(*(keep_going() for _ in range(AT_ONCE)))
    return made


@pytest.mark.timeout(1200)
async def test_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    """After some that warm up, and as many as time allows: tasks, threads and files as before, and memory flat."""
    seconds = pytestconfig.getoption("--churn")
    monkeypatch.setattr("audiomixer.service.streams._LINGER", 0.5)
    async with running(tmp_path, requests_per_second=1e6) as api:
        await come_and_go(api, max(3, seconds / 4), seed=1)
        await asyncio.sleep(2)
        before = resources()
        made = await come_and_go(api, seconds, seed=2)
        for _ in range(25):  # Participants that were cut off are missed after some seconds.
            await asyncio.sleep(1)
            after = resources()
            if all(after[name] <= before[name] + 2 for name in COUNTED) and after["tasks"] <= before["tasks"]:
                break
        assert after["tasks"] <= before["tasks"], tasks()
        print(f"{made} MediaProcessors; {before} before, {after} after")
        assert (await api.get("MediaProcessors", Status="started"))["media_processors"] == []
        assert (await api.get("MediaProcessors", Status="failed", PageSize=1000))["meta"]
        for name in COUNTED:
            assert after[name] <= before[name] + 2, (before, after)
        if seconds >= _LONG:  # Before, the allocator has not seen the worst yet.
            assert after["kilobytes"] < 1.1 * before["kilobytes"], (before, after)
