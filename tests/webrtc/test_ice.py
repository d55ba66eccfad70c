"""Where connections are offered, and how they come about behind firewalls: with coturn, Debian's, as TURN server."""

import asyncio
import contextlib
import re
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import ifaddr
import pytest

from audiomixer._core import Mixer
from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.webrtc.ice import LOOPBACK, Ice, IceServer
from audiomixer.webrtc.peer import Peer, UnreachableError
from tests.e2e.command import free_port
from tests.webrtc.coturn import ADDRESS, coturn


def candidates(sdp: str) -> list[tuple[str, str, int]]:
    """Kind, address and port."""
    found = re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ (\w+)", sdp)
    return [(kind, address, int(port)) for address, port, kind in found]


@contextlib.asynccontextmanager
async def connected(receiver: Ice, sender: Ice) -> AsyncIterator[tuple[str, float]]:
    """A connection over which a packet has come; gives the answer and the seconds it took to make."""
    here = Peer(receiver, "recvonly")
    participant = Mixer().add_participant("there")
    here.media.inlet.route(None, participant)
    there = Peer(sender, "sendonly")
    try:
        offer = await there.offer()
        began = time.monotonic()
        answer = await here.answer(offer)
        took = time.monotonic() - began
        await there.accept(answer)
        async with asyncio.timeout(10):
            pts = 0
            while not participant.stats().received:
                pts += FRAME_SIZE
                there.media.send(b"\xf8\xff\xfe", pts)
                await asyncio.sleep(0.02)
        yield answer, took
    finally:
        await here.close()
        await there.close()


async def test_only_the_addresses_that_were_chosen() -> None:
    async with connected(Ice([ADDRESS]), LOOPBACK) as (answer, _):
        assert {address for _, address, _ in candidates(answer)} == {ADDRESS}


async def test_all_connections_take_one_port_and_offer_it_by_udp_and_tcp() -> None:
    ice = Ice(["127.0.0.1"], media_port=0)
    async with connected(ice, LOOPBACK) as (first, _), connected(ice, LOOPBACK) as (second, _):
        assert {port for _, _, port in candidates(first + second)} == {ice.port}
        assert f" 127.0.0.1 {ice.port} typ host tcptype passive" in first
        with pytest.raises(ValueError, match=f"^media_port: cannot listen on {ice.port}, UDP and TCP: Address already"):
            Ice(["127.0.0.1"], media_port=ice.port).open()


async def test_a_port_that_is_taken_is_an_error_not_another_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        ice = Ice(["127.0.0.1"], media_port=taken.getsockname()[1])
        sender = Peer(LOOPBACK, "sendonly")
        with pytest.raises(UnreachableError, match="no address or port is left"):
            await Peer(ice, "recvonly").answer(await sender.offer())
        await sender.close()


async def test_the_announced_address_is_offered_beside_the_own() -> None:
    """As of a machine behind a router: each port also at the public address. Loopback is not behind a router."""
    sender = Peer(LOOPBACK, "sendonly")
    private = next((ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if _is_private(ip)), None)
    if private is None:
        pytest.skip("this machine has no address but loopback")
    receiver = Peer(Ice(["127.0.0.1", private], announced="203.0.113.7"), "recvonly")
    offered = candidates(await receiver.answer(await sender.offer()))
    port = next(port for _, address, port in offered if address == private)
    assert ("srflx", "203.0.113.7", port) in offered
    assert len(offered) == 3
    await receiver.close()
    await sender.close()


def _is_private(ip: ifaddr.IP) -> bool:
    return ip.is_IPv4 and not str(ip.ip).startswith("127.")


async def test_turn(tmp_path: Path) -> None:
    """A participant whose own addresses cannot be reached is heard through the relay."""
    async with coturn(tmp_path) as port:
        server = IceServer.parse(f"turn:{ADDRESS}:{port}", "audio", "mixer")
        relayed = Ice([], servers=[server])
        async with connected(relayed, LOOPBACK) as (answer, took):
            assert {kind for kind, _, _ in candidates(answer)} == {"relay"}
            assert took < 0.5


async def test_stun(tmp_path: Path) -> None:
    async with coturn(tmp_path) as port:
        ice = Ice(["127.0.0.1"], servers=[IceServer.parse(f"stun:{ADDRESS}:{port}")])
        async with connected(ice, LOOPBACK) as (answer, _):
            assert ("srflx", "127.0.0.1") in {(kind, address) for kind, address, _ in candidates(answer)}


async def test_servers_that_are_down_cost_nothing(tmp_path: Path) -> None:
    """Nobody is at these ports, which has been seen before; later one is there, and is used."""
    ports = [free_port(), free_port()]
    servers = [
        IceServer.parse(f"stun:{ADDRESS}:{ports[0]}"),
        IceServer.parse(f"turn:{ADDRESS}:{ports[1]}", "audio", "mixer"),
    ]
    ice = Ice(["127.0.0.1"], servers=servers)
    watching = asyncio.create_task(ice.watch())
    await asyncio.sleep(0.2 + 2)
    async with connected(ice, LOOPBACK) as (answer, took):
        assert took < 0.3
        assert {kind for kind, _, _ in candidates(answer)} == {"host"}
    watching.cancel()


async def test_a_server_that_hangs_costs_half_a_second_once() -> None:
    """It takes packets and says nothing, and nobody has watched it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind((ADDRESS, 0))
        ice = Ice(["127.0.0.1"], servers=[IceServer.parse(f"turn:{ADDRESS}:{mute.getsockname()[1]}", "a", "b")])
        async with connected(ice, LOOPBACK) as (_, took):
            assert took < 1
        async with connected(ice, LOOPBACK) as (_, took):
            assert took < 0.3


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("stun:example.org", IceServer("stun", "example.org", 3478)),
        ("turn:example.org:80?transport=tcp", IceServer("turn", "example.org", 80, "tcp")),
        ("turns:[2001:db8::1]", IceServer("turn", "2001:db8::1", 5349, "tcp", True)),
    ],
)
def test_urls_of_servers(url: str, server: IceServer) -> None:
    assert IceServer.parse(url) == server


@pytest.mark.parametrize(
    "url", ["", "stun:", "stuns:x", "turn:x:0", "turn:x:99999", "turn:x?transport=sctp", "http://x"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="^expected stun:HOST"):
        IceServer.parse(url)


def test_choices_that_are_none() -> None:
    for wrong in ({"addresses": ["here"]}, {"addresses": [], "announced": "there"}):
        with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
            Ice(**wrong)  # type: ignore[arg-type]
    server = IceServer("turn", "x", 1)
    with pytest.raises(ValueError, match="at most one STUN server, and one TURN server by"):
        Ice([], servers=[server, server])


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", ADDRESS])
async def test_a_port_of_all_addresses_answers_from_the_one_that_was_asked(address: str) -> None:
    """It has one socket for each family: `ss` shows two."""
    ice = Ice(["127.0.0.1", ADDRESS, "::1"])
    here = Ice([address], media_port=None)
    async with connected(ice, here) as (answer, _):
        assert {(host, port) for _, host, port in candidates(answer)} == {
            (host, ice.port) for host in ("127.0.0.1", ADDRESS, "::1")
        }
        shown = subprocess.run(["ss", "-Hulnp", f"sport = :{ice.port}"], capture_output=True, text=True, check=True)
        assert len(shown.stdout.splitlines()) == 2
