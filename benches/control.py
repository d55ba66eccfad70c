"""A service with so many MediaProcessors that workers would need a room full of machines: what control takes of a core.

The workers are stubs, which answer as real ones do, twice a second, in the same process; what Ray's calls take besides
is measured by `benches.cluster`. Prints how long it takes to start the jobs, how many calls go to workers in a second,
and the share of a core, with the checkpoints that go to the database.

    python -m benches.control --jobs 1000 --workers 50
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from audiomixer.service.cluster.nodes import Slot
from audiomixer.service.cluster.reports import VERSION, Greeting, Report
from audiomixer.service.jobs import Job, Load, Playing, Progress
from tests.service.api import running

calls = 0
_SETTLE = 10.0


class StubHandle:
    """A worker that mixes nothing."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self._jobs: dict[str, tuple[Job, float]] = {}

    async def call(self, method: str, *arguments: Any, patience: float, **named: Any) -> Any:
        global calls
        calls += 1
        return await getattr(self, method)(*arguments)

    async def version(self) -> int:
        return VERSION

    async def hello(self) -> Greeting:
        return Greeting("one", "http://127.0.0.1:9", ["127.0.0.1"], 1, 1, draining=False, number=0)

    async def start(self, job: Job) -> Progress:
        self._jobs[job.sid] = job, time.monotonic()
        return self._progress()[job.sid]

    def _progress(self) -> dict[str, Progress]:
        told = {}
        for sid, (job, began) in self._jobs.items():
            seconds = time.monotonic() - began + 0.02
            told[sid] = Progress(seconds, round(2 * seconds), frozenset(job.outputs), segments=round(seconds))
        return told

    async def report(self, after: int, patience: float) -> Report:
        await asyncio.sleep(patience)
        streams = [Playing(output, "room", 128, 1, 100) for job, _ in self._jobs.values() for output in job.outputs]
        load = Load(
            rooms=len(self._jobs), jobs=len(self._jobs), streams=len(streams), ticks=round(50 * time.monotonic())
        )
        rooms = [(job.room or "").removeprefix("local:") for job, _ in self._jobs.values()]
        return Report("one", 0, [], self._progress(), rooms, streams, load, 0.5)

    async def reserve(self, limits: Any) -> None:
        pass

    async def stop(self, sid: str) -> None:
        del self._jobs[sid]

    async def leave_room(self, sid: str) -> None:
        pass


class StubNodes:
    """Machines that are none."""

    workers = 0

    def __init__(self, settings: Any, host: str) -> None:
        pass

    async def connect(self) -> None:
        pass

    async def slots(self) -> list[Slot]:
        return [Slot(f"{n:012d}-0", f"{n:012d}", "127.0.0.1", "127.0.0.1", 0) for n in range(self.workers)]

    async def retire_others(self, names: object) -> None:
        pass

    async def worker(self, slot: Slot) -> StubHandle:
        return StubHandle(slot)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    StubNodes.workers = options.workers
    from audiomixer.service.cluster import nodes

    nodes.Nodes = StubNodes  # type: ignore[assignment, misc]
    limits = {"max_media_processors": options.jobs, "max_player_streamers": options.jobs, "max_rooms": options.jobs}
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), engine="ray", ray_address="none", **limits) as api:
            began = time.monotonic()
            for n in range(options.jobs):
                await api.processor(f"room-{n}", await api.streamer(), MaxDuration=3600)
            took = time.monotonic() - began
            print(f"{options.jobs} MediaProcessors on {options.workers} workers: started in {took:.1f} s, one by one")
            await asyncio.sleep(_SETTLE)
            used, began, before = time.process_time(), time.monotonic(), calls
            await asyncio.sleep(options.seconds)
            took = time.monotonic() - began
            print(f"  {(calls - before) / took:.0f} calls to workers a second")
            print(f"  control takes {(time.process_time() - used) / took:.1%} of a core, stubs included")


if __name__ == "__main__":
    asyncio.run(main())
