"""Workers that are lost, hang, are full, or drained; rooms and streams go on on the others."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from audiomixer.service.jobs import Load, WorkerState
from tests.cluster.machines import Machines
from tests.rooms.client import Client, Microphone
from tests.service.api import Api, running
from tests.service.receiver import receiving
from tests.service.test_media_processors import payloads
from tests.service.test_restart import connected, session_of
from tests.signals import level_at


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def until_true(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.1)


def loads(api: Api) -> list[tuple[WorkerState, Load]]:
    """The workers that have told what they have to do."""
    return [(worker, worker.load) for worker in api.service.engine.workers() if worker.load]


def jobs(api: Api) -> dict[str, int]:
    return {worker.name: load.jobs for worker, load in loads(api)}


def at_work(api: Api) -> WorkerState:
    """The worker that has a stream."""
    return next(worker for worker, load in loads(api) if load.streams)


async def busy(api: Api) -> WorkerState:
    """The same, once it has told of it."""
    await until(lambda: any(load.streams for _, load in loads(api)))
    return at_work(api)


class Audience:
    """Reads a stream's payloads, however often it has to begin again."""

    def __init__(self, api: Api, streamer: str) -> None:
        self._api, self._streamer = api, streamer
        self.told: list[dict[str, Any]] = []
        self.times: list[float] = []

    async def __aenter__(self) -> "Audience":
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        url = f"{self._api.url}/v1/PlayerStreamers/{self._streamer}/TimedMetadata"
        async with self._api.client.stream("GET", url, timeout=60) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    self.told.append(json.loads(line.removeprefix("data: ")))
                    self.times.append(time.monotonic())

    def check(self) -> float:
        """Sees that no number came twice; the longest time without one."""
        numbers = [payload["s"] for payload in self.told]
        assert numbers == sorted(set(numbers))
        return max(late - early for early, late in zip(self.times, self.times[1:], strict=False))


async def test_a_room_its_mixer_and_its_stream_are_on_one_worker(api: Api) -> None:
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")) as alice:
        async with Client(api.whip("lounge"), None, token=api.token("bob")) as bob:
            told = await payloads(api, streamer, 4)
            assert told[-1]["p"]["alice"]["v"] > 1000  # type: ignore[index]
            await until(lambda: len(bob.heard) > 50)
            assert level_at(bob.heard[-1][:, 0], 500) > 0.05
            assert sorted(await connected(api, "lounge")) == ["alice", "audio-mixer-v2", "bob"]
            assert sorted(load.rooms for _, load in loads(api)) == [0, 1]
            assert [load.rooms for worker, load in loads(api) if worker.name == at_work(api).name] == [1]
        assert alice.response.headers["location"].startswith("/whip/lounge/")
        assert (await alice_leaves(api, alice)).status_code == 200
    await until_true(lambda: has_left(api, "alice"))


async def alice_leaves(api: Api, client: Client) -> httpx.Response:
    return await api.client.delete(api.url + client.response.headers["location"])


async def has_left(api: Api, identity: str) -> bool:
    return identity not in await connected(api, "lounge")


async def test_jobs_are_spread(api: Api) -> None:
    for n in range(6):
        await api.processor(f"room-{n}", await api.streamer())
    await until(lambda: sum(jobs(api).values()) == 6)
    assert list(jobs(api).values()) == [3, 3]


async def test_players_are_served_by_webrtc_and_hls(api: Api) -> None:
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    token = await session_of(api, streamer)
    async with (
        Client(api.whip("lounge"), Microphone(500), token=api.token("alice")),
        Client(f"{api.url}/whep/{streamer}", None, token=token) as listener,
    ):
        await until(lambda: len(listener.heard) > 60 and len(listener.payloads) > 3)
        assert level_at(listener.heard[-1][:, 0], 500) > 0.05
        playlist = await api.client.get(f"{api.url}/hls/{streamer}/audio.m3u8", params={"token": token})
        assert playlist.headers["content-type"] == "application/vnd.apple.mpegurl"
        number = int(playlist.text.partition("#EXT-X-MEDIA-SEQUENCE:")[2].split()[0])
        newest = number + playlist.text.count("#EXTINF")
        began = time.monotonic()
        waited = await api.client.get(
            f"{api.url}/hls/{streamer}/audio.m3u8", params={"token": token, "_HLS_msn": newest + 1, "_HLS_part": 0}
        )
        assert waited.status_code == 200
        assert f"-{newest + 1}.0.ts" not in playlist.text
        assert f"-{newest + 1}.0.ts" in waited.text
        segment = next(line for line in playlist.text.splitlines() if line.endswith(".ts"))
        data = await api.client.get(f"{api.url}/hls/{streamer}/{segment}")
        assert data.status_code == 200
        assert data.content[0] == 0x47
        assert time.monotonic() - began < 9


async def test_a_worker_that_dies_is_replaced_and_its_stream_goes_on(api: Api) -> None:
    """Killed in mid-stream: told within 3 s, and numbers that never come twice."""
    async with receiving() as receiver:
        streamer = await api.streamer(StatusCallback=receiver.url)
        processor = await api.processor("lounge", streamer, StatusCallback=receiver.url)
        token = await session_of(api, streamer)
        worker = await busy(api)
        async with (
            Audience(api, streamer) as audience,
            Client(api.whip("lounge"), Microphone(500), token=api.token("alice")),
        ):
            await until(lambda: len(audience.told) > 3)
            began = time.monotonic()
            os.kill(worker.process, signal.SIGKILL)
            await until_true(lambda: has_left(api, "alice"), 3)
            heard = len(audience.told)
            await until(lambda: len(audience.told) > heard + 3)
            assert time.monotonic() - began < 10
            assert audience.check() < 6
            async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
                await until(lambda: audience.told[-1]["p"].get("alice", {}).get("v", 0) > 1000)
        playlist = await api.client.get(f"{api.url}/hls/{streamer}/audio.m3u8", params={"token": token})
        assert "#EXT-X-DISCONTINUITY\n" in playlist.text
        assert (await api.get(f"MediaProcessors/{processor['sid']}"))["status"] == "started"
        assert sum(jobs(api).values()) == 1
        await api.post(f"MediaProcessors/{processor['sid']}", 200, Status="ended")
        await receiver.until(5)
        # They are in order for each resource, and those of one do not wait for those of another.
        events = receiver.events()
        streamers = [event for event in events if event.startswith("player-streamer")]
        assert streamers == ["player-streamer-created", "player-streamer-started", "player-streamer-ended"]
        assert [event for event in events if event not in streamers] == [
            "media-processor-started",
            "media-processor-ended",
        ]


async def lose_a_machine(api: Api, machines: Machines, streamers: list[str]) -> None:
    await until(lambda: sum(jobs(api).values()) == 12)
    lost, theirs = next((name, number) for name, number in jobs(api).items() if number)
    async with contextlib.AsyncExitStack() as stack:
        audiences = [await stack.enter_async_context(Audience(api, streamer)) for streamer in streamers]
        await until(lambda: min(len(one.told) for one in audiences) > 2)
        machines.kill(lost)
        killed = time.monotonic()
        try:
            await until(lambda: [number for name, number in jobs(api).items() if name != lost] == [12])
            counts = [len(one.told) for one in audiences]
            await until(lambda: all(len(one.told) > n + 2 for one, n in zip(audiences, counts, strict=True)))
            assert time.monotonic() - killed < 10
            gaps = sorted(one.check() for one in audiences)
            assert gaps[-1] < 10
            assert gaps[11 - theirs] < 1.2, "what is on the other machine is not interrupted"
        finally:
            machines.add()
    await until(lambda: len([w for w in api.service.engine.workers() if w.status == "active"]) == 2, 20)


async def test_what_a_worker_that_dies_has_recorded_is_there(api: Api) -> None:
    """Its place is taken by another process, which stores what it has left; the recording goes on in another file."""
    processor = await api.processor("lounge", await api.streamer())
    recording = await api.post(f"MediaProcessors/{processor['sid']}/Recordings")
    await asyncio.sleep(3)
    os.kill((await busy(api)).process, signal.SIGKILL)

    async def is_recorded() -> bool:
        found = await api.get(f"Recordings/{recording['sid']}")
        return len(found["files"]) == 1 and found["duration"] > found["files"][0]["duration"] + 2

    await until_true(is_recorded, 90)
    await api.post(f"Recordings/{recording['sid']}", 200, Status="stopped")

    async def is_completed() -> bool:
        return bool((await api.get(f"Recordings/{recording['sid']}"))["status"] == "completed")

    await until_true(is_completed, 30)
    files = (await api.get(f"Recordings/{recording['sid']}"))["files"]
    assert len({file["key"] for file in files}) == 2
    assert files[0]["duration"] == pytest.approx(3, abs=1.2)


@pytest.mark.timeout(1200)
async def test_a_machine_that_is_lost_is_done_without(
    api: Api, machines: Machines, pytestconfig: pytest.Config
) -> None:
    """Twelve MediaProcessors: half of them go on elsewhere, none twice; the others are not interrupted."""
    streamers = [await api.streamer() for _ in range(12)]
    for n, streamer in enumerate(streamers):
        await api.processor(f"room-{n}", streamer)
    for _ in range(pytestconfig.getoption("--kills")):
        await lose_a_machine(api, machines, streamers)
    for processor in (await api.get("MediaProcessors"))["media_processors"]:
        assert processor["status"] == "started"


async def test_a_worker_of_another_version_is_replaced(machines: Machines, folder: Path) -> None:
    """What it was at goes on, on one that is understood."""
    settings = {"engine": "ray", "ray_address": machines.address}
    async with running(folder, **settings) as api:
        streamer = await api.streamer()
        processor = (await api.processor("lounge", streamer))["sid"]
        before = (await payloads(api, streamer, 2))[-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audiomixer.service.cluster.membership.VERSION", 0)
        with pytest.raises(ValueError, match="another version of audiomixer"):
            async with running(folder, **settings):
                pass
    async with running(folder, **settings) as api:
        after = (await payloads(api, streamer, 2))[-1]
        assert int(str(after["s"])) > int(str(before["s"]))
        assert (await api.get(f"MediaProcessors/{processor}"))["status"] == "started"


async def test_a_worker_that_hangs_is_ended(api: Api) -> None:
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    worker = await busy(api)
    async with Audience(api, streamer) as audience:
        await until(lambda: len(audience.told) > 2)
        os.kill(worker.process, signal.SIGSTOP)
        heard = len(audience.told)
        await until(lambda: len(audience.told) > heard + 2, 20)
        assert audience.check() < 12


async def test_a_drained_worker_ends_empty(machines: Machines, folder: Path) -> None:
    """Rooms of ours go when nobody but mixers is in them, or when it takes too long."""
    async with running(folder, engine="ray", ray_address=machines.address, drain_seconds=3) as api:
        await drained(api)


async def drained(api: Api) -> None:
    streamer, other = await api.streamer(), await api.streamer()
    await api.processor("lounge", streamer)
    worker = await busy(api)
    async with (
        Audience(api, streamer) as audience,
        Client(api.whip("lounge"), Microphone(500), token=api.token("alice")),
    ):
        await until(lambda: len(audience.told) > 2)
        drained = await api.post(f"Workers/{worker.name}", 200, Status="DRAINING")
        assert drained["status"] == "draining"
        await api.processor("other", other)
        await asyncio.sleep(1)
        listed = {told["name"]: told for told in (await api.get("Workers"))["workers"]}
        assert listed[worker.name]["load"]["rooms"] == 1, "Alice is still there"
        await until(lambda: jobs(api)[worker.name] == 0)
        heard = len(audience.told)
        await until(lambda: len(audience.told) > heard + 2)
        assert audience.check() < 3
    assert (await api.post(f"Workers/{worker.name}", 200, Status="active"))["status"] == "active"
    await api.post("Workers/nobody", 404, Status="draining")
    await api.post(f"Workers/{worker.name}", 400, Status="gone")


async def test_a_full_cluster_takes_nothing_more(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiomixer.service.cluster.member._FULL", -1.0)
    refused = await api.processor("lounge", await api.streamer(), status=429)
    assert refused["code"] == 20429
    async with httpx.AsyncClient() as client:
        headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {api.token('alice')}"}
        assert (await client.post(api.whip("lounge"), content="v=0", headers=headers)).status_code == 429


@pytest.fixture
async def folder(machines: Machines, tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path / "data"
    async with running(tmp_path / "data", engine="ray", ray_address=machines.address) as api:
        pass
    await api.service.cluster.retire()


async def test_another_control_takes_over(machines: Machines, folder: Path) -> None:
    """Streams, rooms and their account go on; who left meanwhile has left."""
    settings = {"engine": "ray", "ray_address": machines.address}
    async with receiving() as receiver:
        async with running(folder, **settings) as api:
            streamer = await api.streamer()
            processor = (await api.processor("lounge", streamer, StatusCallback=receiver.url))["sid"]
            await api.post("Rooms/lounge", 400, Status="nothing")
            alice = await Client(api.whip("lounge"), Microphone(500), token=api.token("alice")).__aenter__()
            bob = await Client(api.whip("lounge"), Microphone(700), token=api.token("bob")).__aenter__()
            token = await session_of(api, streamer)
            listener = await Client(f"{api.url}/whep/{streamer}", None, token=token).__aenter__()
            await until(lambda: len(listener.payloads) > 2)
            people = {p["identity"]: p["sid"] for p in (await api.get("Rooms/lounge/Participants"))["participants"]}
        await bob.__aexit__()
        heard = len(listener.payloads)
        await until(lambda: len(listener.payloads) > heard + 2)
        async with running(folder, **settings) as api:
            await until(lambda: sum(jobs(api).values()) == 1)
            assert sorted(await connected(api, "lounge")) == ["alice", "audio-mixer-v2"]
            again = {p["identity"]: p["sid"] for p in (await api.get("Rooms/lounge/Participants"))["participants"]}
            assert again == people, "nobody has joined anew"
            async with Client(api.whip("lounge"), Microphone(900), token=api.token("carol")):
                await until(lambda: listener.payloads[-1]["p"].get("carol", {}).get("v", 0) > 1000)
            await alice.__aexit__()
            await until_true(lambda: has_left(api, "alice"))
            numbers = [payload["s"] for payload in listener.payloads]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            await api.post(f"MediaProcessors/{processor}", 200, Status="ended")
            await receiver.until(2)
            assert receiver.events() == ["media-processor-started", "media-processor-ended"]
            await listener.__aexit__()


async def test_who_has_joined_counts_at_once(api: Api) -> None:
    """Before its worker has told: its place is taken, and it may send candidates and leave."""
    await api.post("Rooms", UniqueName="small", MaxParticipants=2)
    headers = {"Content-Type": "application/sdp"}
    clients = [Client(api.whip("small"), Microphone(500), token=api.token(name)) for name in ("alice", "bob")]
    async with clients[0] as alice, clients[1]:
        async with httpx.AsyncClient() as http:
            offer = alice.pc.localDescription.sdp
            token = {"Authorization": f"Bearer {api.token('carol')}"}
            assert (await http.post(api.whip("small"), content=offer, headers=headers | token)).status_code == 429
        resource = api.url + alice.response.headers["location"]
        fragment = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": alice.response.headers["etag"]}
        assert (await api.client.patch(resource, content="nonsense", headers=fragment)).status_code == 400
        assert (await api.client.delete(resource)).status_code == 200


async def test_the_only_worker_left_keeps_what_it_has_though_it_is_drained(api: Api) -> None:
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    async with Audience(api, streamer) as audience:
        await until(lambda: len(audience.told) > 1)
        for worker in api.service.engine.workers():
            await api.post(f"Workers/{worker.name}", 200, Status="draining")
        told = len(audience.told)
        await until(lambda: len(audience.told) > told + 6)
        assert audience.check() < 5, "moved once at most, while there was another"
        await api.processor("other", await api.streamer(), status=429)


async def test_what_ends_in_mid_recovery_has_ended(api: Api) -> None:
    """Nobody mixes it any more."""
    processors = [(await api.processor(f"room-{n}", await api.streamer()))["sid"] for n in range(6)]
    await until(lambda: sum(jobs(api).values()) == 6)
    os.kill((await busy(api)).process, signal.SIGKILL)
    await until(lambda: any(worker.status == "lost" for worker in api.service.engine.workers()))
    await asyncio.gather(*(api.post(f"MediaProcessors/{sid}", 200, Status="ended") for sid in processors))
    await until(lambda: len(jobs(api)) == 2 and sum(jobs(api).values()) == 0)
    await asyncio.sleep(2)
    assert sum(jobs(api).values()) == 0
    for sid in processors:
        assert (await api.get(f"MediaProcessors/{sid}"))["status"] == "ended"


async def test_usage_and_a_rooms_callbacks_are_right_after_a_loss(api: Api) -> None:
    async with receiving() as receiver:
        await api.post("Rooms", UniqueName="lounge", StatusCallback=receiver.url)
        processor = (await api.processor("lounge", await api.streamer()))["sid"]
        worker = await busy(api)
        async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
            await until(lambda: len(receiver.told) == 3)
            await asyncio.sleep(6)  # A checkpoint.
            os.kill(worker.process, signal.SIGKILL)
            await receiver.until(6)
        assert sorted(receiver.events()[:3]) == ["participant-connected", "participant-connected", "room-created"]
        assert sorted(receiver.events()[3:]) == ["participant-connected", *["participant-disconnected"] * 2]
        assert await connected(api, "lounge") == ["audio-mixer-v2"]
        await asyncio.sleep(6)
        await api.post(f"MediaProcessors/{processor}", 200, Status="ended")
        used = (await api.get(f"MediaProcessors/{processor}/Usage"))["streamed_minutes"] * 60
        assert 7 < used < 16, "what came after the last checkpoint before the loss is lost"
