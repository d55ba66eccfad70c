"""One port for all: clients whose address changes in mid-call, and clients that are let through by TCP only."""

import asyncio
import contextlib
import re
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

from audiomixer._core import Mixer, Participant
from audiomixer.webrtc.ice import LOOPBACK, Ice
from audiomixer.webrtc.peer import Peer

SILENCE = b"\xf8\xff\xfe"


class Router(asyncio.DatagramProtocol):
    """Stands between a client and a port; to the port, the client is where the router is."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._client: tuple[str, int] | None = None

    async def open(self) -> int:
        """Gives the port by which the client reaches the other."""
        loop = asyncio.get_running_loop()
        self._inside, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        await self.rebind()
        return int(self._inside.get_extra_info("sockname")[1])

    async def rebind(self) -> None:
        """From now on the client is at another address."""
        router, loop = self, asyncio.get_running_loop()

        class Outside(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                router.inwards(data)

        before = getattr(self, "_outside", None)
        self._outside, _ = await loop.create_datagram_endpoint(Outside, remote_addr=("127.0.0.1", self.port))
        if before:
            before.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._client = addr
        self.outwards(data)

    def inwards(self, data: bytes) -> None:
        if self._client:
            self._inside.sendto(data, self._client)

    def outwards(self, data: bytes) -> None:
        self._outside.sendto(data)

    def close(self) -> None:
        self._inside.close()
        self._outside.close()


class TcpRouter(Router):
    """Lets nothing through but TCP: datagrams are carried as ICE does."""

    async def rebind(self) -> None:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                self.inwards(await reader.readexactly(length))

    def outwards(self, data: bytes) -> None:
        self._writer.write(struct.pack("!H", len(data)) + data)

    def close(self) -> None:
        self._inside.close()
        self._writer.close()


class Call:
    """A client behind a router and a server, who send to each other all the time."""

    def __init__(self, router: type[Router]) -> None:
        self.ice = Ice(["127.0.0.1"])
        self.server, self.client = Peer(self.ice, "sendrecv"), Peer(LOOPBACK, "sendrecv")
        self._router = router

    async def begin(self) -> None:
        self.ice.open()
        assert self.ice.port
        self.router = self._router(self.ice.port)
        inside = await self.router.open()
        self.heard = self._participant(self.server)
        self.back = self._participant(self.client)
        offer = re.sub("a=candidate.*\r\n", "", await self.client.offer())
        answer = await self.server.answer(offer)
        udp, tcp = re.findall(r"a=candidate:.* (udp|tcp) .*\r\n", answer, re.IGNORECASE)
        assert (udp, tcp) == ("udp", "tcp")
        answer = re.sub(r"a=candidate:.* tcp .*\r\n", "", answer)
        await self.client.accept(re.sub(rf"127\.0\.0\.1 {self.ice.port} typ", f"127.0.0.1 {inside} typ", answer))
        self._talking = [asyncio.create_task(self._talk(peer)) for peer in (self.server, self.client)]

    @staticmethod
    def _participant(peer: Peer) -> Participant:
        participant = Mixer().add_participant("other")
        peer.media.inlet.route(None, participant)
        return participant

    @staticmethod
    async def _talk(peer: Peer) -> None:
        pts = 0
        while True:
            peer.media.send(SILENCE, pts)
            pts += 960
            await asyncio.sleep(0.02)

    async def until_more(self, participant: Participant, packets: int = 10) -> float:
        """Seconds until so many more packets have come."""
        began, before = time.monotonic(), participant.stats().received
        async with asyncio.timeout(15):
            while participant.stats().received < before + packets:
                await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def end(self) -> None:
        for talking in self._talking:
            talking.cancel()
        await self.client.close()
        await self.server.close()
        self.router.close()
        self.ice.close()


@contextlib.asynccontextmanager
async def call(router: type[Router] = Router) -> AsyncIterator[Call]:
    made = Call(router)
    await made.begin()
    try:
        await made.until_more(made.heard)
        await made.until_more(made.back)
        yield made
    finally:
        await made.end()


async def test_who_is_at_another_address_all_at_once_is_heard_and_hears_within_a_second() -> None:
    """A router has given the client another port, and the old one is closed: three times."""
    async with call() as made:
        for _ in range(3):
            await made.router.rebind()
            assert await made.until_more(made.heard) < 1
            assert await made.until_more(made.back) < 1
        await asyncio.sleep(9)
        assert made.server.connected, "consent is asked for where it is now"
        assert await made.until_more(made.back) < 0.5


async def test_who_only_listens_and_is_at_another_address_hears_again() -> None:
    """What it sends is checks alone, every few seconds, none of which nominates anything."""
    async with call() as made:
        made._talking[1].cancel()
        await asyncio.sleep(3)
        await made.router.rebind()
        assert await made.until_more(made.back) < 14
        assert made.server.connected


async def test_where_no_udp_passes_tcp_does() -> None:
    async with call(TcpRouter) as made:
        assert await made.until_more(made.heard, 50) < 1.5
        assert await made.until_more(made.back, 50) < 1.5
        await asyncio.sleep(8)
        assert made.server.connected, "consent is asked for by TCP"
        assert await made.until_more(made.back) < 0.5


async def test_who_says_nothing_for_ten_seconds_is_not_kept() -> None:
    """Half of a thousand that connect by TCP are turned away at once, the others when they have said nothing."""
    ice = Ice(["127.0.0.1"])
    ice.open()
    assert ice.port
    try:
        made = [await asyncio.open_connection("127.0.0.1", ice.port) for _ in range(400)]
        await asyncio.sleep(0.5)
        assert sum(reader.at_eof() for reader, _ in made) == 400 - 256
        await asyncio.sleep(12)
        assert all(reader.at_eof() for reader, _ in made)
        _, writer = await asyncio.open_connection("127.0.0.1", ice.port)
        writer.close()
    finally:
        for _, writer in made:
            writer.close()
        ice.close()
