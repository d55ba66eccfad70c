"""Rooms over the workers of a cluster: what two cost beside one, and what control costs that only watches.

Every room has two speakers, sent by a process of its own, and is streamed at 128 kbit/s. Prints the CPU time that a
room takes of its worker; with two workers as many rooms again are to cost each no more. Then the share of a core that
control takes while so many rooms run and nobody asks it anything, and what it takes to hand a request on (by wrk).

    python -m benches.cluster --rooms 20 --idle 120
"""

import argparse
import asyncio
import multiprocessing
import os
import re
import tempfile
import time
from pathlib import Path

import httpx

from audiomixer.service.jobs import Load
from benches.senders import in_process, send
from tests.cluster.machines import Machines
from tests.service.api import Api, running

_SETTLE = 8.0
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu(process: int) -> float:
    """Seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def loads(api: Api) -> list[Load]:
    """What the workers have to do."""
    return [worker.load for worker in api.service.engine.workers() if worker.load]


async def begin(api: Api, rooms: int) -> None:
    """Has so many rooms streamed."""
    for n in range(rooms):
        await api.processor(f"room-{n}", await api.streamer(), MaxDuration=900)


async def costs(workers: int, rooms: int, seconds: float) -> tuple[float, float, int]:
    """CPU time of a room in ms per second, how many rooms the fullest worker has, and ticks that were late."""
    machines = Machines(workers)
    offers, offered = multiprocessing.Pipe()
    sender = in_process(send, offered, 2 * rooms, "speaking")
    offered.close()
    try:
        with tempfile.TemporaryDirectory() as folder:
            async with running(Path(folder), engine="ray", ray_address=machines.address) as api:
                await begin(api, rooms)
                for n in range(2 * rooms):
                    offer = await asyncio.to_thread(offers.recv)
                    headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {api.token(f'{n}')}"}
                    async with httpx.AsyncClient() as client:
                        answer = await client.post(api.whip(f"room-{n % rooms}"), content=offer, headers=headers)
                    offers.send(answer.raise_for_status().text)
                await asyncio.sleep(_SETTLE)
                assert api.service.cluster
                processes = [worker.process for worker in api.service.engine.workers()]
                before, began = [cpu(process) for process in processes], time.monotonic()
                late = sum(load.late for load in loads(api))
                await asyncio.sleep(seconds)
                took = time.monotonic() - began
                used = sum(cpu(process) - then for process, then in zip(processes, before, strict=True))
                late = sum(load.late for load in loads(api)) - late
                fullest = max(load.jobs for load in loads(api))
            await api.service.cluster.retire()
    finally:
        offers.send("stop")
        sender.join()
        machines.close()
    return 1000 * used / took / rooms, fullest, late


async def idle(rooms: int, seconds: float) -> tuple[float, float]:
    """The share of a core that control takes, and what a request costs it that it hands on."""
    machines = Machines(2)
    try:
        with tempfile.TemporaryDirectory() as folder:
            limits = {"max_media_processors": rooms, "max_player_streamers": rooms}
            async with running(Path(folder), engine="ray", ray_address=machines.address, **limits) as api:
                await begin(api, rooms)
                await asyncio.sleep(_SETTLE)
                used, began = time.process_time(), time.monotonic()
                await asyncio.sleep(seconds)
                share = (time.process_time() - used) / (time.monotonic() - began)
                handing_on = await forwarding(api)
            assert api.service.cluster
            await api.service.cluster.retire()
    finally:
        machines.close()
    return share, handing_on


async def forwarding(api: Api, seconds: int = 5) -> float:
    """CPU time in ms that control takes to hand on a request for a playlist."""
    streamer = api.service.engine.streams()[0].sid
    master = await api.client.get(await api.playback_url(streamer))
    url = f"{api.url}/hls/{streamer}/{master.text.splitlines()[-1]}"
    used = time.process_time()
    command = ["wrk", "-t1", "-c8", f"-d{seconds}", url]
    wrk = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told = (await wrk.communicate())[0].decode()
    return 1000 * (time.process_time() - used) / int(re.findall(r"(\d+) requests in", told)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", type=int, default=20, help="on each worker")
    parser.add_argument("--idle", type=int, default=120, help="rooms that control watches")
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    one, _, late = asyncio.run(costs(1, options.rooms, options.seconds))
    print(f"one worker, {options.rooms} rooms: {one:.2f} ms/s of CPU a room, {late} late ticks")
    two, fullest, late = asyncio.run(costs(2, 2 * options.rooms, options.seconds))
    times = 2 * options.rooms / fullest * one / two
    print(f"two workers, {2 * options.rooms} rooms: {two:.2f} ms/s of CPU a room, {late} late ticks: {times:.2f} × one")
    share, handing_on = asyncio.run(idle(options.idle, options.seconds))
    print(f"control, {options.idle} rooms: {share:.1%} of a core; a request that is handed on: {handing_on:.2f} ms")


if __name__ == "__main__":
    main()
