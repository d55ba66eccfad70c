"""A room of ours in which everybody hears everybody else: what it costs when few of them speak, and when all do.

The participants are connections of a process on another core, which send speech, or the silence of somebody muted.
Prints the CPU time of the room's process in ms per second, and per participant. Who is silent shares what it hears with
all others who are; when all speak, each has an encoder of its own, as each would have if nothing were shared.

    python -m benches.conversation --participants 50 --speaking 3
"""

import argparse
import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection

from audiomixer.clock.bus import process_pacer
from audiomixer.rooms.local import LocalRoom
from benches.senders import in_process, send

_SETTLE = 6.0
"""Seconds until the measurement begins: who is silent is taken for a listener after two."""


async def host(answers: Connection, participants: int, seconds: float) -> None:
    """Has as many participants join, and sends the CPU time of a second, and how many ticks were late."""
    room = LocalRoom("bench")
    for n in range(participants):
        answers.send((await room.join(await asyncio.to_thread(answers.recv), str(n)))[1])
    await asyncio.sleep(_SETTLE)
    used, began, late = time.process_time(), time.monotonic(), process_pacer().late
    await asyncio.sleep(seconds)
    share = (time.process_time() - used) / (time.monotonic() - began)
    answers.send((share * 1000, process_pacer().late - late))
    await room.close()


def converse(participants: int, speaking: int, seconds: float) -> tuple[float, int]:
    """CPU time of the room in ms per second, and ticks that were late."""
    offers, offered = multiprocessing.Pipe()
    answers, answered = multiprocessing.Pipe()
    arguments = (participants, "speaking", "127.0.0.1", "sendrecv", speaking)
    sender = in_process(send, offered, *arguments, core=1)
    server = in_process(host, answered, participants, seconds, core=0)
    offered.close()
    answered.close()
    for _ in range(participants):
        answers.send(offers.recv())
        offers.send(answers.recv())
    cost: tuple[float, int] = answers.recv()
    offers.send("stop")
    for process in (sender, server):
        process.join()
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participants", type=int, default=50)
    parser.add_argument("--speaking", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    print(f"a room of {options.participants} who hear each other, on one core: CPU ms per second, and per participant")
    costs = [converse(options.participants, n, options.seconds) for n in (options.speaking, options.participants)]
    for speaking, (cost, late) in zip((options.speaking, options.participants), costs, strict=True):
        beside = cost / costs[1][0]
        each = cost / options.participants
        print(f"  {speaking:3} speaking  {cost:6.0f}  {each:5.2f}  {beside:5.2f} ×  ({late} late ticks)")


if __name__ == "__main__":
    main()
