"""Many streams over one connection, which come and go, as a server offers them: here, a stock aiortc."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from audiomixer import Participant
from audiomixer.clock.bus import Bus, process_pacer
from audiomixer.clock.pacer import clock
from audiomixer.webrtc.ice import LOOPBACK
from audiomixer.webrtc.subscriber import Subscriber
from tests.rooms.client import Microphone


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    running = Bus(clock())
    process_pacer().add(running)
    yield running
    await asyncio.to_thread(process_pacer().remove, running)


class Server:
    """Offers tones, each in a section of its own."""

    def __init__(self, bus: Bus) -> None:
        self.closed = asyncio.Event()
        self.subscriber = Subscriber(LOOPBACK, self.closed.set)
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))

    async def offer(self, participants: dict[str, Participant], *, more: int = 0) -> None:
        for _ in range(more):
            self._pc.addTransceiver(Microphone(440), direction="sendonly")
        await self._pc.setLocalDescription(await self._pc.createOffer())
        answer = await self.subscriber.answer(self._pc.localDescription.sdp, lambda: participants)
        await self._pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def close(self) -> None:
        await self.subscriber.close()
        await self._pc.close()


async def until(holds: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def loud(bus: Bus) -> set[str]:
    return {identity for identity, volume in bus.mixer.volumes().items() if volume > 1000}


async def test_streams_come_and_are_routed_otherwise(bus: Bus) -> None:
    """Alice from 0 s; then bob, over the same connection; then the sections are the other's."""
    server = Server(bus)
    alice, bob = (bus.mixer.add_participant(name) for name in ("alice", "bob"))
    await server.offer({"0": alice}, more=1)
    await until(lambda: loud(bus) == {"alice"})
    await server.offer({"0": alice, "1": bob}, more=1)
    await until(lambda: loud(bus) == {"alice", "bob"})

    server.subscriber.route({"1": alice})
    await asyncio.sleep(0.5)
    before = bob.stats().received
    await asyncio.sleep(0.3)
    assert bob.stats().received == before, "nobody's packets are bob's now"
    await until(lambda: loud(bus) == {"alice"})
    await server.close()
    assert server.closed.is_set()


async def test_what_is_offered_while_it_comes_about_is_heard(bus: Bus) -> None:
    """The second offer comes at once."""
    server = Server(bus)
    alice, bob = (bus.mixer.add_participant(name) for name in ("alice", "bob"))
    await server.offer({"0": alice}, more=1)
    await server.offer({"0": alice, "1": bob}, more=1)
    await until(lambda: loud(bus) == {"alice", "bob"})
    await server.close()
