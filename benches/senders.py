"""Participants for benches, in a process of their own."""

import asyncio
import multiprocessing
import os
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import uvloop

from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.peer import Direction, Peer
from tests.opus import opus
from tests.signals import speech, stereo

_SPEAKERS = ("alice", "bob", "carol")
STREAMS: dict[str, Callable[[str], list[bytes]]] = {
    "speaking": lambda speaker: opus(speech(speaker), 32),
    "stereo": lambda speaker: opus(stereo(speech(speaker)), 64),
    "muted": lambda speaker: opus(speech(speaker) * 0, 32),
    "muted, DTX": lambda speaker: opus(speech(speaker) * 0, 32, dtx=True),
}


async def send(
    offers: Connection,
    participants: int,
    kind: str,
    address: str = "127.0.0.1",
    direction: Direction = "sendonly",
    speaking: int | None = None,
) -> None:
    """Offers so many connections, and sends until told to stop; if only some are speaking, the others are muted."""
    streams = [STREAMS[kind](speaker) for speaker in _SPEAKERS]
    muted = STREAMS["muted, DTX"](_SPEAKERS[0])
    peers = [Peer(Ice([address], media_port=None), direction) for _ in range(participants)]
    for peer in peers:
        offers.send(await peer.offer())
        await peer.accept(await asyncio.to_thread(offers.recv))
    began = time.monotonic()
    number = 0
    while not offers.poll():
        for n, peer in enumerate(peers):
            stream = streams[n % len(streams)] if speaking is None or n < speaking else muted
            payload = stream[(number + 50 * n) % len(stream)]
            before = stream[(number + 50 * n - 1) % len(stream)]
            if len(payload) > 2 or len(before) > 2:  # Of a pause, only the beginning is sent.
                peer.media.send(payload, number * FRAME_SIZE)
        number += 1
        await asyncio.sleep(began + number * 0.02 - time.monotonic())
    for peer in peers:
        await peer.close()


def in_process(
    work: Callable[..., Awaitable[None]], *arguments: object, core: int | None = None
) -> multiprocessing.Process:
    """Runs a coroutine in a process of its own, on any processor or on a certain one."""
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(core, work, arguments), daemon=True)
    process.start()
    return process


def _run(core: int | None, work: Callable[..., Awaitable[None]], arguments: tuple[object, ...]) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    uvloop.run(work(*arguments))  # type: ignore[arg-type]
