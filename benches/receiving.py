"""The whole receive path, from UDP packet to mixed frame: ours beside stock aiortc with NumPy.

A process sends each participant's stream (speech, Opus at 32 kbit/s, mono, in-band FEC, by default); the contenders
receive the same packets one after the other. Prints the CPU time of the receiving process, all of its threads, in ms
per participant and second of audio.

    python -m benches.receiving --participants 40 --seconds 20
"""

import argparse
import asyncio
import multiprocessing
import time
from collections import deque
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import av
import numpy as np
import uvloop
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from audiomixer.encoding import FRAME_SIZE, TIME_BASE
from audiomixer.rooms.local import LocalRoom
from audiomixer.webrtc.peer import Peer
from tests.opus import opus
from tests.signals import speech, stereo

_SPEAKERS = ("alice", "bob", "carol")
_SETTLE = 4.0
"""Seconds until the measurement begins."""
STREAMS: dict[str, Callable[[str], list[bytes]]] = {
    "speaking": lambda speaker: opus(speech(speaker), 32),
    "stereo": lambda speaker: opus(stereo(speech(speaker)), 64),
    "muted": lambda speaker: opus(speech(speaker) * 0, 32),
    "muted, DTX": lambda speaker: opus(speech(speaker) * 0, 32, dtx=True),
}


async def send(offers: Connection, participants: int, kind: str) -> None:
    """Offers so many connections, and sends until told to stop."""
    streams = [STREAMS[kind](speaker) for speaker in _SPEAKERS]
    peers = [Peer(["127.0.0.1"], "sendonly") for _ in range(participants)]
    for peer in peers:
        offers.send(await peer.offer())
        await peer.accept(await asyncio.to_thread(offers.recv))
    began = time.monotonic()
    number = 0
    while not offers.poll():
        for n, peer in enumerate(peers):
            stream = streams[n % len(streams)]
            payload = stream[(number + 50 * n) % len(stream)]
            before = stream[(number + 50 * n - 1) % len(stream)]
            if len(payload) > 2 or len(before) > 2:  # Of a pause, only the beginning is sent.
                packet = av.Packet(payload)
                packet.pts, packet.time_base = number * FRAME_SIZE, TIME_BASE
                peer.track.send(packet)
        number += 1
        await asyncio.sleep(began + number * 0.02 - time.monotonic())
    for peer in peers:
        await peer.close()


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


def in_process(work: Callable[..., Awaitable[None]], *arguments: object) -> multiprocessing.Process:
    """Runs a coroutine in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(work, arguments))
    process.start()
    return process


def _run(work: Callable[..., Awaitable[None]], arguments: tuple[object, ...]) -> None:
    uvloop.run(work(*arguments))  # type: ignore[arg-type]


def measure(contender: type[Ours | Stock], kind: str, participants: int, seconds: float) -> float:
    """CPU time per participant and second, in ms."""
    offers, offered = multiprocessing.Pipe()
    answers, answered = multiprocessing.Pipe()
    sender = in_process(send, offered, participants, kind)
    receiver = in_process(receive, contender, answered, participants, seconds)
    for _ in range(participants):
        answers.send(offers.recv())
        offers.send(answers.recv())
    share: float = answers.recv()
    offers.send("stop")
    for process in (sender, receiver):
        process.join()
    return share * 1000 / participants


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participants", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--ours", action="store_true", help="ours only")
    options = parser.parse_args()
    print(f"receive, decode and mix {options.participants} participants: CPU ms per participant and second")
    costs = {kind: measure(Ours, kind, options.participants, options.seconds) for kind in STREAMS}
    for kind, cost in costs.items():
        print(f"  audiomixer, {kind:12} {cost:7.2f}")
    if not options.ours:
        stock = measure(Stock, "speaking", options.participants, options.seconds)
        print(f"  aiortc + NumPy, speaking {stock:7.2f}  {stock / costs['speaking']:5.1f} ×")


if __name__ == "__main__":
    main()
