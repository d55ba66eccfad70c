"""Many rooms, or one large one, on a single core in real time: how busy it is, and whether a tick is late.

Every room is streamed as HLS at 128 kbit/s; the speakers are sent by a process on another core. Prints the CPU share
of the core, the ticks that ended late, and the memory of a participant; and how steady the core is before and after, as
one of a virtual machine may be slowed down by its neighbours for a while: then ticks are late whatever we do.

    python -m benches.density --rooms 60 --speakers 2
    python -m benches.density --rooms 1 --speakers 200
"""

import argparse
import asyncio
import gc
import multiprocessing
import resource
import statistics
import time
from multiprocessing.connection import Connection

from audiomixer import AudioMixer
from audiomixer.clock.bus import process_pacer
from audiomixer.clock.frame import FRAME
from audiomixer.outputs.hls import HlsOutput
from audiomixer.rooms.local import LocalRooms
from benches.senders import in_process, send

_SETTLE = 10.0
_STEADY = 10.0


def steadiness(seconds: float) -> float:
    """The speed of the slowest 20 ms, as a share of the usual, of a core that has nothing else to do."""
    counts = []
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        count = 0
        while time.monotonic() < began + FRAME:
            count += 1
        counts.append(count)
    return min(counts) / statistics.median(counts)


async def serve(answers: Connection, rooms: int, speakers: int, seconds: float) -> None:
    """Mixes and streams; reports what `main` prints."""
    steady = steadiness(_STEADY)
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
    played = [mixer.time for mixer in mixers]
    await asyncio.sleep(seconds)
    share = (time.process_time() - used) / (time.monotonic() - began)
    late = process_pacer().late - late
    shortest = min(mixer.time - before for mixer, before in zip(mixers, played, strict=True))
    stats = [stats for room in local for stats in room.stats().values()]
    unheard = sum(stat.late + stat.lost for stat in stats) / max(1, sum(stat.received for stat in stats))
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - empty) / 1024 / (rooms * speakers)
    left_out = sum(mixer.left_out for mixer in mixers)
    for mixer in mixers:
        await mixer.stop()
    await local.close()
    steady = min(steady, steadiness(_STEADY))
    answers.send((steady, share, late, left_out, shortest, unheard, memory))


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
    server = in_process(serve, answered, options.rooms, options.speakers, options.seconds, core=0)
    # Whoever fails ends its pipe, and with that this program.
    offered.close()
    answered.close()
    for _ in range(total):
        answers.send(offers.recv())
        offers.send(answers.recv())
    steady, share, late, left_out, shortest, unheard, memory = answers.recv()
    offers.send("stop")
    for process in (sender, server):
        process.join()
    print(
        f"{options.rooms} rooms of {options.speakers} speakers on one core, HLS at 128 kbit/s, {options.seconds:.0f} s:"
    )
    print(f"  core {share:.0%} busy; {late} late ticks; {steady:.0%} of its usual speed in its slowest 20 ms when idle")
    print(f"  {left_out} frames left out; shortest stream {shortest:.2f} s")
    print(f"  {unheard:.2%} of the packets lost or late; {memory:.2f} MiB per participant")


if __name__ == "__main__":
    main()
