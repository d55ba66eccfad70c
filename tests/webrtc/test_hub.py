"""One port for all: clients whose address changes in mid-call, and clients that are let through by TCP only."""

import asyncio
import contextlib
import gc
import re
import struct
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aioice.stun

from audiomixer._core import Mixer, Participant
from audiomixer.webrtc.ice import LOOPBACK, Ice
from audiomixer.webrtc.peer import Peer

SILENCE = b"\xf8\xff\xfe"


class Router(asyncio.DatagramProtocol):
    """Stands between a client and a port; to the port, the client is where the router is."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: list[bytes] = []
        """What the client has sent."""
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

    async def wander(self, seconds: float) -> None:
        """Is somewhere else for each packet."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            await self.rebind()
            await asyncio.sleep(0.01)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._client = addr
        self.seen.append(data)
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

    def agent(self) -> Any:
        """The server's."""
        return self.server._transports().pop().transport._connection  # type: ignore[attr-defined]

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
    """Of hundreds that connect by TCP from one address, 64 are kept, until they have said nothing for ten seconds."""
    ice = Ice(["127.0.0.1"])
    ice.open()
    assert ice.port
    try:
        made = [await asyncio.open_connection("127.0.0.1", ice.port) for _ in range(400)]
        await asyncio.sleep(0.5)
        assert sum(reader.at_eof() for reader, _ in made) == 400 - 64
        await asyncio.sleep(12)
        assert all(reader.at_eof() for reader, _ in made)
        _, writer = await asyncio.open_connection("127.0.0.1", ice.port)
        writer.close()
    finally:
        for _, writer in made:
            writer.close()
        ice.close()


FLOOD = """
import socket, sys, time
port, *datagrams = sys.argv[1:]
stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
stranger.connect(("127.0.0.1", int(port)))
ends = time.monotonic() + 3
while time.monotonic() < ends:
    for datagram in map(bytes.fromhex, datagrams):
        for _ in range(50):
            try:
                stranger.send(datagram)
            except OSError:
                pass
"""


async def test_floods_of_strangers_take_nobodys_call() -> None:
    """For three seconds as much as a process can send: junk, hellos and alerts of DTLS, forged checks, replays."""
    async with call() as made:
        made.router.seen.clear()
        await asyncio.sleep(0.2)
        (media, *_) = (data for data in made.router.seen if data[0] == 0x80)
        ufrag = made.agent().local_username
        forged = aioice.stun.Message(message_method=aioice.stun.Method.BINDING, message_class=aioice.stun.Class.REQUEST)
        forged.attributes["USERNAME"] = f"{ufrag}:x"
        forged.attributes["PRIORITY"] = 1
        forged.attributes["ICE-CONTROLLING"] = 1
        forged.add_message_integrity(b"another")
        hello = "16fefd0000000000000000002a0100001e0000000000000000fefd" + 28 * "00"
        alert = "15fefd000000000000000000020228"
        floods = ["ff" * 100, hello, alert, bytes(forged).hex(), media.hex()]
        port = str(made.ice.port)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", FLOOD, port, *floods)
        before, began = made.heard.stats(), time.monotonic()
        await process.wait()
        after, took = made.heard.stats(), time.monotonic() - began
        assert made.ice.strangers > 10_000, "there was a flood"
        assert after.received - before.received > 45 * took
        assert after.lost == before.lost
        assert made.server.connected
        assert await made.until_more(made.back) < 1
        assert made.server.media.inlet.authentic < 60 * (took + 3), "no replay was taken in"


async def test_who_moves_on_and_on_costs_little_and_is_heard_all_along() -> None:
    """For two seconds each packet comes from another port; then the client stays, and hears again."""
    async with call() as made:
        moving = asyncio.create_task(made.router.wander(2))
        before = made.heard.stats().received
        await moving
        assert made.heard.stats().received - before > 80
        assert len(made.agent()._check_list) <= 110
        assert len(asyncio.all_tasks()) < 40
        assert await made.until_more(made.back) < 1.5


async def test_hundreds_come_and_go_and_leave_nothing() -> None:
    """A hundred calls after one another, of which every other one is given up before it comes about."""
    ice = Ice(["127.0.0.1"])
    ice.open()

    async def pass_by(n: int) -> None:
        client, server = Peer(LOOPBACK, "sendonly"), Peer(ice, "recvonly")
        answer = await server.answer(await client.offer())
        if n % 2:
            await client.accept(answer)
            async with asyncio.timeout(5):
                while not (client.connected and server.connected):
                    await asyncio.sleep(0.01)
        await asyncio.gather(client.close(), server.close())

    def kept() -> tuple[int, int, int]:
        gc.collect()
        kinds = [type(one).__name__ for one in gc.get_objects()]
        return kinds.count("Agent"), kinds.count("Transport"), len(asyncio.all_tasks())

    await pass_by(1)
    await asyncio.sleep(6)
    before, files = kept(), len(list(Path("/proc/self/fd").iterdir()))
    for n in range(100):
        await pass_by(n)
    await asyncio.sleep(6)
    assert kept() <= before
    assert len(list(Path("/proc/self/fd").iterdir())) <= files
    ice.close()
