"""Limits on requests: their size, and how many of them an address may send."""

import asyncio
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Collection
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audiomixer.service.http.errors import ApiError, error_response

LARGEST_BODY: Final = 128 * 1024
_TOO_LONG: Final = f"body: expected at most {LARGEST_BODY} bytes"
_SENDING: Final = 10.0
"""Seconds until the next piece of a body has to have come."""
_BURST: Final = 10
"""Seconds' worth of requests that may come at once."""
_MOST_ADDRESSES: Final = 10_000
"""Addresses that are remembered; then the one is forgotten that has been quiet for longest."""
_FREE: Final = ("/hls/", "/web/", "/healthz")
"""What players and probes ask for all the time costs nothing and is not counted."""


class RequestLimits:
    """Refuses requests that are too long (413), or too many (429, with Retry-After), and tells whose the others are.

    That is the `network` of the request's state: an address, or a network of IPv6.

    Args:
        app: What is protected.
        rate: Requests per second from one address, over time.
        proxies: Addresses whose X-Forwarded-For is believed.
    """

    def __init__(self, app: ASGIApp, rate: float, proxies: Collection[str] = ()) -> None:
        self._app = app
        self._rate = rate
        self._proxies = set(proxies)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By address: requests in the bucket, and when."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        address = self._address(scope)
        scope.setdefault("state", {})["network"] = address
        wait = self._wait(scope, address)
        if wait > 0:
            headers = {"Retry-After": str(math.ceil(wait))}
            await error_response(429, "Too many requests", 20429, headers)(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        size = dict(scope["headers"]).get(b"content-length", b"0")
        if size.isdigit() and int(size) > LARGEST_BODY:
            await _too_long(scope, receive, send)
            return
        await self._app(scope, _Bounded(receive).receive, send)

    def _wait(self, scope: Scope, address: str) -> float:
        """Seconds until the next request is welcome; 0 if this one is."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path.startswith(_FREE):
            return 0.0
        now = time.monotonic()
        level, then = self._buckets.pop(address, (0.0, now))
        level = max(0.0, level - (now - then) * self._rate)
        refused = level + 1 > max(1.0, self._rate * _BURST)
        self._buckets[address] = (level if refused else level + 1, now)
        if len(self._buckets) > _MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        return 1 / self._rate if refused else 0.0

    def _address(self, scope: Scope) -> str:
        client = scope.get("client")
        address = client[0] if client else ""
        if address in self._proxies:
            forwarded = dict(scope["headers"]).get(b"x-forwarded-for", b"").decode("latin-1")
            address = forwarded.rpartition(",")[2].strip() or address
        return network(address)


class _Bounded:
    """A body that nobody can read on once it is too long."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._size = 0
        self._ended = False

    async def receive(self) -> Message:
        if self._ended:
            return await self._receive()
        try:
            async with asyncio.timeout(_SENDING):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, f"body: expected it to come within {_SENDING:.0f} s at a time") from None
        self._ended = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > LARGEST_BODY:
            raise ApiError(413, _TOO_LONG)
        return message


def network(address: str) -> str:
    """What one client has: an IPv4 address, or a network of 2^64 of IPv6."""
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


async def _too_long(scope: Scope, receive: Receive, send: Send) -> None:
    await error_response(413, _TOO_LONG, 20413, {"Connection": "close"})(scope, receive, send)
