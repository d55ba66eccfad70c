"""Where the service may connect to on a client's word: nowhere private, unless a setting allows it."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import httpx

from audiomixer.service.settings import Address

_RESOLVE_TIMEOUT: Final = 5.0
_LONGEST: Final = 2048
_DENIED: Final = [
    ipaddress.ip_network(network)
    for network in (
        # NAT64, 6to4 and IPv4-compatible addresses: what they lead to cannot be told.
        *("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::/96", "192.88.99.0/24"),
        # Site-local, and of the IETF: not public either, though older Pythons say so.
        *("fec0::/10", "192.0.0.0/24"),
        # IPv4-translated, segment routing, and for documentation: newer than the lists of older Pythons.
        *("::ffff:0:0:0/96", "5f00::/16", "3fff::/20", "64:ff9b:2::/48"),
    )
]
_LOOKUPS: Final = ThreadPoolExecutor(16, thread_name_prefix="lookup")
"""Names that hang take threads of these only."""


class ForbiddenError(ValueError):
    """An address may not be connected to."""


class Outbound:
    """Tells which addresses may be connected to.

    Args:
        allowed: Networks that may be although they are private, loopback or link-local.
    """

    def __init__(self, allowed: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] = ()) -> None:
        self._allowed = list(allowed)

    async def check(self, url: str, field: str, schemes: Collection[str]) -> str:
        """Sees that a URL that a client gave may be connected to; gives it back.

        Raises:
            ForbiddenError: It may not, or is none; the message begins with `field`.
        """
        expected = f"{field}: expected a URL of {', '.join(f'{scheme}://' for scheme in schemes)}, without spaces"
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ForbiddenError(expected) from None
        if (
            parts.scheme.lower() not in schemes
            or not host
            or len(url) > _LONGEST
            or not url.isprintable()
            or " " in url
        ):
            raise ForbiddenError(expected)
        try:
            await self.resolve(host)
        except ForbiddenError as error:
            raise ForbiddenError(f"{field}: {error}") from None
        return url

    async def resolve(self, host: str) -> str:
        """An address of `host` that may be connected to.

        Raises:
            ForbiddenError: One of its addresses may not, or there is none.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_RESOLVE_TIMEOUT):
                look_up = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
                found = await loop.run_in_executor(_LOOKUPS, look_up)
        except (OSError, UnicodeError):
            raise ForbiddenError(f"expected a host that can be found, got {host!r}") from None
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        for address in addresses:
            if not self._may(address):
                # Where exactly is nobody's business who may not go there.
                raise ForbiddenError(f"expected a host with a public address, got {host!r}")
        return str(addresses[0])

    def resolver(self) -> Callable[[str], str]:
        """`resolve` for other threads than the event loop's, which it is made in; raises OSError."""
        loop = asyncio.get_running_loop()

        def resolve(host: str) -> str:
            try:
                return asyncio.run_coroutine_threadsafe(self.resolve(host), loop).result(2 * _RESOLVE_TIMEOUT)
            except (ForbiddenError, RuntimeError, TimeoutError, CancelledError) as error:
                raise OSError(str(error) or "the host was not found in time") from error

        return resolve

    def _may(self, address: Address) -> bool:
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if any(address in network for network in self._allowed if network.version == address.version):
            return True
        if any(address in network for network in _DENIED if network.version == address.version):
            return False
        return address.is_global and not address.is_multicast


class OutboundTransport(httpx.AsyncHTTPTransport):
    """Looks up the host itself, and connects to the address that was checked and to no other."""

    def __init__(self, outbound: Outbound) -> None:
        # Connections are not kept: one that was verified for a host would be used for another at the same address.
        super().__init__(limits=httpx.Limits(max_connections=None, max_keepalive_connections=0))
        self._outbound = outbound

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends the request."""
        host = request.url.host
        try:
            address = await self._outbound.resolve(host)
        except ForbiddenError as error:
            raise httpx.ConnectError(str(error), request=request) from None
        request.extensions = {**request.extensions, "sni_hostname": host}
        request.url = request.url.copy_with(host=address)
        return await super().handle_async_request(request)
