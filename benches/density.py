"""Many rooms, or one large one, on a single core in real time: how busy it is, and whether a tick is late.

Every room is streamed as HLS at 128 kbit/s; the speakers are sent by a process on another core. Prints the CPU share
of the core, the ticks that ended late, what the host took of the core meanwhile, and the memory of a participant.

    python -m benches.density --rooms 60 --speakers 2
    python -m benches.density --rooms 1 --speakers 200
"""

import argparse
import asyncio
import gc
import multiprocessing
import os
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path

from audiomixer import AudioMixer
from audiomixer.bus import process_pacer
from audiomixer.outputs.hls import HlsOutput
from audiomixer.rooms.local import LocalRooms
from benches.senders import in_process, send

_SETTLE = 10.0
_CORE = 0


def stolen() -> float:
    """Seconds that a virtual machine's host has taken from the core so far: mixing is late then, whatever we do."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{_CORE}":
            return int(ticks[7]) / os.sysconf("SC_CLK_TCK")
    return 0.0


async def serve(answers: Connection, rooms: int, speakers: int, seconds: float) -> None:
    """Mixes and streams; reports what `main` prints."""
    local = LocalRooms()
    mixers = [AudioMixer(f"local:{n}", outputs=[HlsOutput(128)], rooms=local) for n in range(rooms)]
    for mixer in mixers:
        await mixer.start()
    empty = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for n in range(rooms * speakers):
        room = local.open(str(n % rooms))
        answers.send((await room.join(await asyncio.to_thread(answers.recv), str(n)))[1])
    gc.collect()
    gc.freeze()
    await asyncio.sleep(_SETTLE)
    used, began, late = time.process_time(), time.monotonic(), process_pacer().late
    taken = stolen()
    played = [mixer.time for mixer in mixers]
    await asyncio.sleep(seconds)
    share = (time.process_time() - used) / (time.monotonic() - began)
    late = process_pacer().late - late
    taken = stolen() - taken
    shortest = min(mixer.time - before for mixer, before in zip(mixers, played, strict=True))
    stats = [stats for room in local for stats in room.stats().values()]
    unheard = sum(stat.late + stat.lost for stat in stats) / max(1, sum(stat.received for stat in stats))
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - empty) / 1024 / (rooms * speakers)
    left_out = sum(mixer.left_out for mixer in mixers)
    answers.send((share, late, taken, left_out, shortest, unheard, memory))
    for mixer in mixers:
        await mixer.stop()
    await local.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", type=int, default=60)
    parser.add_argument("--speakers", type=int, default=2, help="in each room")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    total = options.rooms * options.speakers
    offers, offered = multiprocessing.Pipe()
    answers, answered = multiprocessing.Pipe()
    sender = in_process(send, offered, total, "speaking", core=1)
    server = in_process(serve, answered, options.rooms, options.speakers, options.seconds, core=_CORE)
    # Whoever fails ends its pipe, and with that this program.
    offered.close()
    answered.close()
    for _ in range(total):
        answers.send(offers.recv())
        offers.send(answers.recv())
    share, late, taken, left_out, shortest, unheard, memory = answers.recv()
    offers.send("stop")
    for process in (sender, server):
        process.join()
    print(
        f"{options.rooms} rooms of {options.speakers} speakers on one core, HLS at 128 kbit/s, {options.seconds:.0f} s:"
    )
    print(f"  core {share:.0%} busy, {taken:.2f} s of it taken by the host; {late} late ticks")
    print(f"  {left_out} frames left out; shortest stream {shortest:.2f} s")
    print(f"  {unheard:.2%} of the packets lost or late; {memory:.2f} MiB per participant")


if __name__ == "__main__":
    main()
