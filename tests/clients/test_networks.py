"""Networks as they are found: one open port, IPv6 alone, a router that translates, an address that changes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from audiomixer.rooms.local import LocalRooms
from audiomixer.service import Streams, media_app
from audiomixer.service.http.server import serving
from audiomixer.webrtc.ice import Ice
from tests.clients.stacks import STACKS, tone
from tests.clients.test_stacks import heard_in
from tests.conftest import Service
from tests.namespace import ENTER, OUTSIDE, OUTSIDE_6, SPARE, namespace, rules

PUBLIC = "203.0.113.7"
"""What the world knows the service by, behind its router."""
SENT, FORWARDED = "type nat hook output priority -100", "type nat hook postrouting priority 100"
"""Where a router translates where something goes to, and where it comes from."""


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    with namespace():
        yield


@asynccontextmanager
async def service_at(address: str, ice: Ice) -> AsyncIterator[Service]:
    streams = Streams(LocalRooms(ice))
    async with serving(media_app(streams), address, 0) as url:
        yield Service(url, streams)
        await streams.close()


async def is_heard(service: Service, url: str, folder: Path) -> None:
    """A client in the network publishes, and is heard in the mix."""
    hearing = asyncio.create_task(heard_in(service, 6))
    more = ["--opus", str(tone(folder)), "--anywhere"]
    told = await STACKS["pion"]().run("publish", f"{url}/whip/lounge?identity=pion", *more, seconds=3, within=ENTER)
    assert told["connected"], told
    assert await hearing > 0.1


async def listens(service: Service, url: str) -> None:
    """A client in the network hears a stream, and is told who talks."""
    stream = await service.streams.start("lounge")
    told = await STACKS["pion"]().run("listen", f"{url}/whep/{stream.sid}", "--anywhere", seconds=2, within=ENTER)
    assert (told["connected"], told["received"] > 80, told["messages"] >= 2) == (True, True, True), told


async def test_one_port_is_enough(tmp_path: Path) -> None:
    ice = Ice([OUTSIDE])
    ice.open()
    async with service_at(OUTSIDE, ice) as service:
        http = service.url.rpartition(":")[2]
        with rules(f"udp dport {ice.port} accept", f"tcp dport {http} accept", "ct state established accept", "drop"):
            await is_heard(service, service.url, tmp_path)
            await listens(service, service.url)


async def test_ipv6_is_enough(tmp_path: Path) -> None:
    async with service_at(OUTSIDE_6, Ice([OUTSIDE_6])) as service:
        with rules("meta nfproto ipv4 drop"):
            await is_heard(service, service.url, tmp_path)
            await listens(service, service.url)


async def test_behind_a_router_that_translates_its_address(tmp_path: Path) -> None:
    """1:1 NAT: the service has an address that nobody else can reach, and announces its router's."""
    async with service_at(OUTSIDE, Ice([OUTSIDE], announced=PUBLIC)) as service:
        url = service.url.replace(OUTSIDE, PUBLIC)
        with rules(f"ip daddr {PUBLIC} dnat ip to {OUTSIDE}", hook=SENT):
            await is_heard(service, url, tmp_path)
            await listens(service, url)


async def test_an_address_that_changes_in_mid_call_is_followed(tmp_path: Path) -> None:
    """The router of who talks gets another one: heard again within a second, and nobody has left."""
    async with service_at(OUTSIDE, Ice([OUTSIDE])) as service:
        room = service.streams.rooms.open("lounge")
        events = room.events.subscribe()
        more = ["--opus", str(tone(tmp_path)), "--anywhere"]
        url = f"{service.url}/whip/lounge?identity=pion"
        running = asyncio.create_task(STACKS["pion"]().run("publish", url, *more, seconds=5, within=ENTER))
        async with asyncio.timeout(10):
            while not room.identities:
                await asyncio.sleep(0.02)
        peer = next(iter(room._members.values())).peer
        await asyncio.sleep(1)
        with rules(f"udp dport {service.streams.rooms.ice.port} snat ip to {SPARE}", hook=FORWARDED):
            before = peer.media.inlet.authentic
            await asyncio.sleep(2)
            assert peer.media.inlet.authentic - before > 50, "a second's packets of two"
        told = await running
        assert (told["connected"], told["error"]) == (True, "")
        seen = [(await anext(events)).what for _ in range(4)]
        assert seen == ["participant-joined", "published", "unpublished", "participant-left"], "nobody left in between"
