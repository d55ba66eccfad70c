"""The whole receive path, from UDP packet to mixed frame: ours beside stock aiortc with NumPy and Janus's AudioBridge.

A process sends each participant's stream (speech, Opus at 32 kbit/s, mono, in-band FEC, by default); the contenders
receive the same packets one after the other. Prints the CPU time of the receiving process, all of its threads, in ms
per participant and second of audio; of ours also without what an empty room takes. Janus runs in a network namespace,
which needs root.

    python -m benches.receiving --participants 40 --seconds 20
"""

import argparse
import asyncio
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.rooms.local import LocalRoom
from benches.audiobridge import audiobridge
from benches.senders import STREAMS, in_process, send
from tests.namespace import OUTSIDE

_SETTLE = 4.0
"""Seconds until the measurement begins."""


class Ours:
    """A `LocalRoom`, mixing for nobody."""

    def __init__(self) -> None:
        self._room = LocalRoom("bench")
        self._joined = 0

    async def answer(self, offer: str) -> str:
        self._joined += 1
        return (await self._room.join(offer, str(self._joined)))[1]

    def check(self) -> None:
        stats = self._room.stats().values()
        lost = sum(stat.late + stat.discarded for stat in stats)
        received = sum(stat.received for stat in stats)
        print(f"  ({received} packets received, {lost} late or discarded)")

    async def close(self) -> None:
        await self._room.close()


class Stock:
    """aiortc as it comes: its tracks are read, and mixed with NumPy every 20 ms."""

    def __init__(self) -> None:
        self._connections: list[RTCPeerConnection] = []
        self._waiting: list[deque[np.ndarray]] = []
        self._tasks = [asyncio.create_task(self._mix())]

    async def answer(self, offer: str) -> str:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connection.on("track", self._on_track)
        self._connections.append(connection)
        await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        return str(connection.localDescription.sdp)

    def _on_track(self, track: MediaStreamTrack) -> None:
        waiting: deque[np.ndarray] = deque(maxlen=50)
        self._waiting.append(waiting)
        self._tasks.append(asyncio.create_task(self._read(track, waiting)))

    async def _read(self, track: MediaStreamTrack, waiting: deque[np.ndarray]) -> None:
        try:
            while True:
                frame = await track.recv()
                waiting.append(frame.to_ndarray().reshape(-1))
        except MediaStreamError:
            pass

    async def _mix(self) -> None:
        began = time.monotonic()
        bus = np.zeros(2 * FRAME_SIZE, np.float32)
        tick = 0
        while True:
            tick += 1
            await asyncio.sleep(began + tick * 0.02 - time.monotonic())
            bus.fill(0)
            for waiting in self._waiting:
                if waiting:
                    samples = waiting.popleft().astype(np.float32)
                    np.add(bus, samples, out=bus)
                    np.dot(samples, samples)
            np.clip(bus, -32768, 32767, out=bus)

    def check(self) -> None:
        print(f"  ({len(self._waiting)} tracks)")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for connection in self._connections:
            await connection.close()


async def receive(
    contender: Callable[[], Ours | Stock], answers: Connection, participants: int, seconds: float
) -> None:
    """Answers as many offers, and sends the CPU time of `seconds`."""
    receiver = contender()
    for _ in range(participants):
        answers.send(await receiver.answer(await asyncio.to_thread(answers.recv)))
    await asyncio.sleep(_SETTLE)
    used, began = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    answers.send((time.process_time() - used) / (time.monotonic() - began))
    receiver.check()
    await receiver.close()


def measure(contender: type[Ours | Stock], kind: str, participants: int, seconds: float) -> float:
    """CPU time per second, in ms."""
    offers, offered = multiprocessing.Pipe()
    answers, answered = multiprocessing.Pipe()
    sender = in_process(send, offered, participants, kind)
    receiver = in_process(receive, contender, answered, participants, seconds)
    # Whoever fails ends its pipe, and with that this program.
    offered.close()
    answered.close()
    for _ in range(participants):
        answers.send(offers.recv())
        offers.send(answers.recv())
    share: float = answers.recv()
    offers.send("stop")
    for process in (sender, receiver):
        process.join()
    return share * 1000


def measure_audiobridge(participants: int, seconds: float) -> float:
    """The same for Janus, which also encodes what each of them would hear."""
    with audiobridge() as bridge:
        offers, offered = multiprocessing.Pipe()
        sender = in_process(send, offered, participants, "speaking", OUTSIDE)
        for n in range(participants):
            offers.send(bridge.join(offers.recv(), str(n)))
        time.sleep(_SETTLE)
        used, began = bridge.cpu_time(), time.monotonic()
        time.sleep(seconds)
        share = (bridge.cpu_time() - used) / (time.monotonic() - began)
        offers.send("stop")
        sender.join()
    return share * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participants", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--ours", action="store_true", help="ours only")
    options = parser.parse_args()
    number, seconds = options.participants, options.seconds
    print(f"receive, decode and mix {number} participants: CPU ms per participant and second")
    costs = {kind: measure(Ours, kind, number, seconds) / number for kind in STREAMS}
    room = measure(Ours, "speaking", 0, seconds)
    for kind, cost in costs.items():
        print(f"  {f'audiomixer, {kind}':24} {cost:7.2f}  {cost - room / number:6.2f} without the room itself")
    if not options.ours:
        peers = {"aiortc + NumPy, speaking": measure(Stock, "speaking", number, seconds) / number}
        if os.geteuid() == 0:
            peers["Janus AudioBridge"] = measure_audiobridge(number, seconds) / number
        for name, cost in peers.items():
            print(f"  {name:24} {cost:7.2f}  {cost / costs['speaking']:5.1f} ×")


if __name__ == "__main__":
    main()
