"""Candidates that come after the offer, by PATCH (RFC 9725, section 4.3)."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from audiomixer.webrtc.ice import LOOPBACK
from audiomixer.webrtc.peer import Peer
from audiomixer.webrtc.trickle import TYPE, Fragment, FragmentError
from tests.conftest import Service

OFFERED = {"Content-Type": "application/sdp"}


def fragment(offer: str, *candidates: str, mid: str = "0") -> str:
    credentials = [re.findall(f"a=ice-{name}:.*", offer)[0].strip() for name in ("ufrag", "pwd")]
    lines = [*credentials, "m=audio 9 UDP/TLS/RTP/SAVPF 0", f"a=mid:{mid}", *candidates, "a=end-of-candidates"]
    return "".join(f"{line}\r\n" for line in lines)


def candidate(host: str, port: int, transport: str = "udp") -> str:
    return f"a=candidate:1 1 {transport} 2130706431 {host} {port} typ host generation 0 ufrag abcd"


def heard_from(sockets: list[socket.socket]) -> set[int]:
    """The ports to which something came."""
    ports = set()
    for other in sockets:
        with contextlib.suppress(BlockingIOError):
            other.recv(1500)
            ports.add(other.getsockname()[1])
    return ports


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url) as client:
        yield client


async def posted(http: httpx.AsyncClient, path: str) -> tuple[str, str, dict[str, str]]:
    """An offer without candidates; gives it, the resource, and the headers of a fragment."""
    peer = Peer(LOOPBACK, "sendonly" if "whip" in path else "recvonly")
    offer = re.sub("a=(candidate|end-of-candidates).*\r\n", "", await peer.offer())
    await peer.close()
    response = await http.post(path, content=offer, headers=OFFERED)
    assert response.status_code == 201, response.text
    assert response.headers["Accept-Patch"] == TYPE
    return offer, response.headers["Location"], {"Content-Type": TYPE, "If-Match": response.headers["ETag"]}


@pytest.mark.parametrize("kind", ["whip", "whep"])
async def test_what_is_told_later_is_checked(service: Service, http: httpx.AsyncClient, kind: str) -> None:
    """Names are not looked up, nothing is sent by TCP, and of a hundred addresses thirty are enough."""
    stream = await service.streams.start("lounge")
    offer, resource, headers = await posted(
        http, "/whip/lounge?identity=alice" if kind == "whip" else f"/whep/{stream.sid}"
    )
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(100)]
    for other in sockets:
        other.bind(("127.0.0.1", 0))
        other.setblocking(False)
    named = candidate("a1b2c3d4-0000-4000-8000-000000000000.local", 9)
    # Some stacks write it in capitals.
    addresses = [candidate("127.0.0.1", other.getsockname()[1], "UDP") for other in sockets]
    by_tcp = candidate("127.0.0.1", 9, "tcp") + " tcptype passive"
    response = await http.patch(resource, content=fragment(offer, named, by_tcp, addresses[0]), headers=headers)
    assert (response.status_code, response.text) == (204, "")
    check = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sockets[0], 1500), 3)
    assert (check[:2], check[4:8]) == (b"\x00\x01", b"\x21\x12\xa4\x42")
    for n in range(1, 100, 50):
        response = await http.patch(resource, content=fragment(offer, *addresses[n : n + 50]), headers=headers)
        assert response.status_code == 204
    asked: set[int] = set()
    async with asyncio.timeout(15):
        while len(asked) < 29:
            await asyncio.sleep(0.1)
            asked |= heard_from(sockets[1:])
    await asyncio.sleep(1)
    assert len(asked | heard_from(sockets[1:])) == 29
    for other in sockets:
        other.close()


async def test_what_cannot_be_taken_is_told(http: httpx.AsyncClient) -> None:
    offer, resource, headers = await posted(http, "/whip/lounge?identity=alice")
    good = fragment(offer, candidate("127.0.0.1", 9))
    another = good.replace("a=ice-pwd:", "a=ice-pwd:x")
    for status, content, changed in [
        (204, good, {}),
        (404, good, {"path": resource + "x"}),
        (428, good, {"If-Match": None}),
        (412, good, {"If-Match": '"another"'}),
        (409, good, {"If-Match": "*"}),
        (409, another, {}),
        (415, good, {"Content-Type": "application/sdp"}),
        (400, "nonsense", {}),
        (400, fragment(offer, "a=candidate:1 1 udp 1 127.0.0.1 9 typ host rport x"), {}),
        (204, fragment(offer, "a=candidate:1 1 udp 1 127.0.0.1 99999 typ host"), {}),
        (204, fragment(offer, "a=candidate:1 1 udp 1 127.0.0.1 9 typ "), {}),
        (400, good + "a=x\r\n" * 4000, {}),
    ]:
        path = changed.pop("path", resource)  # type: ignore[attr-defined]
        given = {name: value for name, value in (headers | changed).items() if value is not None}
        response = await http.patch(str(path), content=content, headers=given)
        assert response.status_code == status, (status, response.text)
        if status != 204:
            assert re.match(
                "(resource|If-Match|Content-Type|fragment): expected|resource: no", response.json()["message"]
            )


def test_sections_and_credentials_are_read() -> None:
    credentials = "a=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\n"
    text = credentials + "m=audio 9 X 0\na=mid:a\na=candidate:1\nm=x\na=candidate:2\n"
    assert Fragment.parse(text) == Fragment("abcd", "0123456789012345678901", (("a", "1"), ("", "2")))
    for bad in ("", "a=ice-ufrag:abcd\n", text.replace("abcd", "abc"), text.replace("abcd", "a" * 300)):
        with pytest.raises(FragmentError, match="^fragment: expected"):
            Fragment.parse(bad)
