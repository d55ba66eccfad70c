"""What a room elsewhere costs the mixer: in LiveKit and in Janus, beside the embedded room, and LiveKit's own SDK.

The same speakers are in every room; one contender after the other mixes them, and measures each one's volume. Prints
the CPU time of the mixing process, all of its threads, in ms per participant and second of audio. Janus runs in a
network namespace, which needs root; LiveKit's server is built by Go.

    python -m benches.rooms --participants 20 --seconds 20
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from livekit import rtc

from audiomixer import AudioMixer
from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.rooms.janus_client import JanusClient
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.peer import Peer
from benches.receiving import Ours, measure
from benches.senders import STREAMS, in_process
from tests.namespace import OUTSIDE
from tests.rooms.janus_server import PLUGIN, janus
from tests.rooms.livekit_server import livekit, token
from tests.signals import speech

_ROOM = "1234"
_SETTLE = 6.0
"""Seconds until the measurement begins."""
_SPEAKERS = ("alice", "bob", "carol")


async def speak_in_livekit(stop: Connection, participants: int, url: str) -> None:
    """With the SDK, which encodes for itself."""
    rooms, tasks = [], []
    for n in range(participants):
        room = rtc.Room()
        await room.connect(url, token(str(n), _ROOM), rtc.RoomOptions(auto_subscribe=False))
        source = rtc.AudioSource(48_000, 1)
        track = rtc.LocalAudioTrack.create_audio_track("voice", source)
        options = rtc.TrackPublishOptions(dtx=False)
        await room.local_participant.publish_track(track, options)
        samples = (speech(_SPEAKERS[n % 3]) * 32767).astype(np.int16)
        tasks.append(asyncio.create_task(_feed(source, np.roll(samples, 48_000 * n))))
        rooms.append(room)
    stop.send("speaking")
    await asyncio.to_thread(stop.recv)
    for task in tasks:
        task.cancel()
    for room in rooms:
        await room.disconnect()


async def _feed(source: rtc.AudioSource, samples: np.ndarray) -> None:
    part = 4800
    while True:
        for begin in range(0, len(samples) - part, part):
            data = samples[begin : begin + part].tobytes()
            await source.capture_frame(rtc.AudioFrame(data, 48_000, 1, part))


async def speak_in_janus(stop: Connection, participants: int, url: str) -> None:
    streams = [STREAMS["speaking"](speaker) for speaker in _SPEAKERS]
    peers, clients = [], []
    for n in range(participants):
        client = JanusClient(f"{url}/", {}, print)
        await client.open()
        handle = await client.attach(PLUGIN, lambda event: None)
        await client.ask(handle, request="join", ptype="publisher", room=int(_ROOM), display=str(n))
        peer = Peer(Ice([OUTSIDE]), "sendonly")
        offer = {"type": "offer", "sdp": await peer.offer()}
        event = await client.ask(handle, offer, request="publish")
        await peer.accept((event.jsep or {})["sdp"])
        peers.append(peer)
        clients.append(client)
    stop.send("speaking")
    began, number = time.monotonic(), 0
    while not stop.poll():
        for n, peer in enumerate(peers):
            stream = streams[n % len(streams)]
            peer.media.send(stream[(number + 50 * n) % len(stream)], number * FRAME_SIZE)
        number += 1
        await asyncio.sleep(began + number * 0.02 - time.monotonic())
    for peer in peers:
        await peer.close()
    for client in clients:
        await client.close()


@contextlib.asynccontextmanager
async def ours(room: str, addresses: list[str]) -> AsyncIterator[Callable[[], int]]:
    """Gives what counts who is heard."""
    heard: set[str] = set()
    async with AudioMixer(room, ice=Ice(addresses)) as mixer:

        async def read() -> None:
            async for payload in mixer.timed_metadata():
                heard.update(identity for identity, volume in payload.p.items() if volume.v > 0)

        reading = asyncio.create_task(read())
        yield lambda: len(heard)
        reading.cancel()


@contextlib.asynccontextmanager
async def sdk(url: str, _: list[str]) -> AsyncIterator[Callable[[], int]]:
    """LiveKit's SDK, its mixer, and NumPy for the volumes."""
    room, mixer = rtc.Room(), rtc.AudioMixer(48_000, 2)
    heard: set[str] = set()

    async def metered(track: rtc.Track, identity: str) -> AsyncIterator[rtc.AudioFrame]:
        async for event in rtc.AudioStream(track, sample_rate=48_000, num_channels=2, frame_size_ms=20):
            samples = np.frombuffer(event.frame.data, np.int16).astype(np.float32)
            if np.sqrt(np.dot(samples, samples) / len(samples)) > 0:
                heard.add(identity)
            yield event.frame

    def subscribed(track: rtc.Track, publication: object, participant: rtc.RemoteParticipant) -> None:
        mixer.add_stream(metered(track, participant.identity))

    async def read() -> None:
        async for _ in mixer:
            pass

    room.on("track_subscribed", subscribed)
    reading = asyncio.create_task(read())
    await room.connect(url, token("mixer", _ROOM))
    yield lambda: len(heard)
    reading.cancel()
    await mixer.aclose()
    await room.disconnect()


async def mix(
    told: Connection,
    contender: Callable[..., contextlib.AbstractAsyncContextManager[Callable[[], int]]],
    room: str,
    addresses: list[str],
    seconds: float,
) -> None:
    """Sends how many were heard, and the CPU time of a second."""
    async with contender(room, addresses) as heard:
        await asyncio.sleep(_SETTLE)
        used, began = time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        told.send((heard(), (time.process_time() - used) / (time.monotonic() - began)))


def contend(
    contender: Callable[..., object], room: str, addresses: list[str], participants: int, seconds: float
) -> float:
    """CPU time per participant and second, in ms."""
    told, tell = multiprocessing.Pipe()
    process = in_process(mix, tell, contender, room, addresses, seconds)
    if not told.poll(60 + seconds):
        raise TimeoutError("nothing was measured")
    heard, share = told.recv()
    process.join()
    if heard < participants * 0.9:
        raise RuntimeError(f"only {heard} of {participants} were heard")
    return float(share) * 1000 / participants


@contextlib.contextmanager
def speakers(speak: Callable[..., Awaitable[None]], participants: int, url: str) -> Iterator[None]:
    stop, stopped = multiprocessing.Pipe()
    process = in_process(speak, stopped, participants, url)
    if not stop.poll(60):
        raise TimeoutError("the speakers did not join")
    stop.recv()
    try:
        yield
    finally:
        stop.send("stop")
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participants", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    number, seconds = options.participants, options.seconds
    print(f"receive and mix {number} participants: CPU ms per participant and second")
    embedded = measure(Ours, "speaking", number, seconds) / number
    costs = {"audiomixer, embedded room": embedded}
    with tempfile.TemporaryDirectory() as folder:
        with livekit(Path(folder)) as server, speakers(speak_in_livekit, number, server.url):
            costs["audiomixer in LiveKit"] = contend(ours, server.room(_ROOM), ["127.0.0.1"], number, seconds)
            costs["LiveKit's SDK and rtc.AudioMixer"] = contend(sdk, server.url, [], number, seconds)
        if os.geteuid() == 0:
            subprocess.run([Path(__file__).with_name("system-packages"), "janus", "iproute2"], check=True)
            with janus(Path(folder)) as there:
                asyncio.run(there.create(_ROOM))
                with speakers(speak_in_janus, number, there.url):
                    costs["audiomixer in Janus"] = contend(ours, there.room(_ROOM), [OUTSIDE], number, seconds)
    for name, cost in costs.items():
        print(f"  {name:34} {cost:7.2f}  {cost / embedded:5.2f} ×")


if __name__ == "__main__":
    main()
