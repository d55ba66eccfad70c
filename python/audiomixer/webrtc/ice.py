"""How connections come about: addresses, the port, a public address, STUN and TURN servers.

aioice gathers on every interface, at any port, and waits five seconds for servers; here each of these is a choice.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import logging
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import aioice.ice
import aioice.stun
from aioice.candidate import Candidate, candidate_foundation, candidate_priority

from audiomixer._core import Hub, Inlet, Session
from audiomixer.clock.pacer import clock
from audiomixer.webrtc.agent import Agent, Relayed, name

_PATIENCE: Final = 0.5
"""Seconds that a connection waits for STUN and TURN servers."""
_PATIENCE_ELSEWHERE: Final = 1.5
"""The same for a connection to a server elsewhere, which lasts: TURN over TLS takes several round trips."""
_PROBE_INTERVAL: Final = 10.0
_PROBE_TIMEOUT: Final = 2.0
_LASTS: Final = 86_400
"""Seconds for which credentials that are made with a secret are good."""
_ENOUGH: Final = 4 << 20
"""Bytes of a buffer: what comes of 200 streams in half a second, or a packet for each of 3,000 listeners."""
_AVOIDED: Final = 60.0
"""Seconds for which a server is left out that refuses, or is too slow, though it answers probes."""
_URL: Final = re.compile(
    r"(?P<scheme>stuns?|turns?):(?P<host>\[[0-9a-fA-F:]+\]|[^:/?\[\]]+)(:(?P<port>\d{1,5}))?(\?transport=(?P<transport>udp|tcp))?"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IceServer:
    """A STUN or TURN server."""

    kind: Literal["stun", "turn"]
    host: str
    port: int
    transport: Literal["udp", "tcp"] = "udp"
    tls: bool = False
    username: str | None = None
    password: str | None = None
    secret: str | None = None
    """What it shares with us, to make passwords that are good for a while."""

    @property
    def url(self) -> str:
        """As browsers want it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        transport = f"?transport={self.transport}" if self.kind == "turn" else ""
        return f"{self.kind}{'s' if self.tls else ''}:{host}:{self.port}{transport}"

    def credentials(self) -> tuple[str, str]:
        """A username and a password that are good for a day, made with the secret: coturn's `use-auth-secret`.

        That is draft-uberti-behave-turn-rest-00.
        """
        username = f"{int(time.time()) + _LASTS}:audiomixer"
        password = hmac.digest((self.secret or "").encode(), username.encode(), hashlib.sha1)
        return username, base64.b64encode(password).decode()

    @property
    def way(self) -> tuple[str, str, bool]:
        """What kind it is, and how it is reached."""
        return self.kind, self.transport, self.tls

    @classmethod
    def parse(
        cls, url: str, username: str | None = None, password: str | None = None, secret: str | None = None
    ) -> "IceServer":
        """The server that a URL names: `stun:HOST[:PORT]`, `turn:HOST[:PORT][?transport=udp|tcp]`, `turns:…`.

        Raises:
            ValueError: It names none.
        """
        found = _URL.fullmatch(url)
        if not found or found["scheme"] == "stuns" or int(found["port"] or 1) not in range(1, 65536):
            raise ValueError(f"expected stun:HOST[:PORT] or turn(s):HOST[:PORT][?transport=udp|tcp], got {url!r}")
        tls = found["scheme"] == "turns"
        return cls(
            "stun" if found["scheme"] == "stun" else "turn",
            found["host"].strip("[]"),
            int(found["port"] or (5349 if tls else 3478)),
            "tcp" if tls or found["transport"] == "tcp" else "udp",
            tls,
            username,
            password,
            secret,
        )


class Ice:
    """Where connections are offered.

    Args:
        addresses: The addresses of this machine to be reached on.
        announced: A public address that a router translates to them, port by port (1:1 NAT).
        media_port: The port, UDP and TCP, of all connections; 0 for any that is free. If None, each has a UDP port of
            its own, as is right for those that are made to servers: these may have but one port themselves.
        servers: STUN and TURN servers, of each kind at most one, or one for each way to reach it. Only those that
            answer are asked.
        patience: Seconds for which they are waited for.
        offered: What the other side may use: STUN servers, and TURN servers with a secret.

    Raises:
        ValueError: An address, the ports or the servers are none.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        announced: str | None = None,
        media_port: int | None = 0,
        servers: Sequence[IceServer] = (),
        patience: float = _PATIENCE,
        offered: Sequence[IceServer] = (),
    ) -> None:
        if announced:
            ipaddress.ip_address(announced)
        if len(servers) != len({server.way for server in servers}):
            raise ValueError("servers: expected at most one STUN server, and one TURN server by UDP, TCP and TLS each")
        self.addresses = [str(address) for address in dict.fromkeys(map(ipaddress.ip_address, addresses))]
        self.announced = announced
        self.media_port = media_port
        self._hub: Hub | None = None
        self.servers = list(servers)
        self.patience = patience
        self.offered = list(offered)
        self._down: set[IceServer] = set()
        self._failed: dict[IceServer, float] = {}
        """When a server that answers has refused a connection, or was too slow for it."""

    def with_servers(self, servers: Sequence[IceServer]) -> "Ice":
        """The same for one connection to a server elsewhere, with the first of these servers of each kind and way.

        Its own servers come first.
        """
        chosen = {server.way: server for server in reversed([*self.servers, *servers])}
        return Ice(
            self.addresses,
            announced=self.announced,
            media_port=None,
            servers=list(chosen.values()),
            patience=_PATIENCE_ELSEWHERE,
        )

    def open(self) -> None:
        """Binds to the port, if it is one for all connections; otherwise the first connection does.

        Raises:
            ValueError: It is taken.
        """
        if self.media_port is None or not self.addresses or self._hub:
            return
        for address in self.addresses:
            _check_address(address)
        try:
            self._hub = Hub(self.addresses, self.media_port, tcp=True)
        except OSError as error:
            reason = str(error).partition(" (os error")[0]
            raise ValueError(f"media_port: cannot listen on {self.media_port}, UDP and TCP: {reason}") from error
        _log.info("media comes by port %d, UDP and TCP", self._hub.port)
        _check_buffers(*self._hub.buffers)

    def close(self) -> None:
        """Gives the port back, once all connections have ended."""
        self._hub = None

    @property
    def port(self) -> int | None:
        """That of all connections, once it is bound, if it is one."""
        return self._hub.port if self._hub else None

    @property
    def strangers(self) -> int:
        """Datagrams that have come to it and were nobody's."""
        return self._hub.strangers if self._hub else 0

    def _port_for_one(self) -> Hub | None:
        """The port for a connection, if there is one."""
        if not self.addresses:
            return None
        try:
            self.open()
            return self._hub or Hub(self.addresses)
        except (OSError, ValueError) as error:
            _log.warning("no port is free for a connection: %s", error)
            return None

    def restrict(self, connection: aioice.Connection, session: Session, on_check: Callable[[], None]) -> None:
        """Has an agent gather here, instead of everywhere; to be called before anything is offered.

        Args:
            connection: The agent.
            session: Its media.
            on_check: Called after checks, which may have moved the connection.
        """

        async def gather(component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:
            return await self._gather(connection, component, session, on_check)

        if self.media_port is not None:
            name(connection)
        connection.get_component_candidates = gather  # type: ignore[method-assign]

    async def watch(self) -> None:
        """Keeps asking the servers whether they are there, until cancelled. Without it, all are taken to be."""
        while True:
            await asyncio.gather(*(self._probe(server) for server in self.servers))
            await asyncio.sleep(_PROBE_INTERVAL)

    async def _probe(self, server: IceServer) -> None:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                await (_ask(server) if server.transport == "udp" else _knock(server))
        except Exception as error:
            self._mark_down(server, error)
        else:
            if clock() - self._failed.get(server, -_AVOIDED) < _AVOIDED:
                return
            if server in self._down:
                _log.info("%s server %s is back", server.kind, server.host)
            self._down.discard(server)

    def _mark_down(self, server: IceServer, error: BaseException | None) -> None:
        if server not in self._down:
            _log.warning("%s server %s is of no use, and left out: %r", server.kind, server.host, error)
        self._down.add(server)

    def _fail(self, server: IceServer, error: BaseException) -> None:
        self._failed[server] = clock()
        self._mark_down(server, error)

    async def _gather(
        self, connection: Any, component: int, session: Session, on_check: Callable[[], None]
    ) -> list[Candidate]:
        protocols: list[aioice.ice.StunProtocol] = []
        if hub := self._port_for_one():
            agent = Agent(connection, hub, session, on_check)
            protocols = agent.bind(self.addresses, component, tcp=self.media_port is not None)
        # Whoever closes it closes these, unless that has happened already.
        connection._protocols += protocols
        if connection._closing:
            for protocol in protocols:
                protocol.transport.close()
        candidates = [protocol.local_candidate for protocol in protocols]
        if self.announced:
            candidates += [_translated(host, self.announced) for host in candidates if _can_be(host, self.announced)]
        asked = {
            asyncio.create_task(self._candidate(server, connection, component, protocols, session.inlet)): server
            for server in self.servers
            if server not in self._down and (protocols or server.kind == "turn")
        }
        if not asked:
            return candidates
        done, pending = await asyncio.wait(asked, timeout=self.patience)
        for task in pending:
            task.cancel()
            self._fail(asked[task], TimeoutError())
        for task in done:
            if error := task.exception():
                self._fail(asked[task], error)
                continue
            candidate, relay = task.result()
            candidates.append(candidate)
            if relay:
                connection._protocols.append(relay)
        return candidates

    async def _candidate(
        self,
        server: IceServer,
        connection: Any,
        component: int,
        protocols: list[aioice.ice.StunProtocol],
        inlet: Inlet,
    ) -> tuple[Candidate, aioice.ice.StunProtocol | None]:
        """What a server says of the first address that can reach it, or relays."""
        if server.kind == "stun":
            local = next((p for p in protocols if _is_global_v4(p.local_candidate.host)), protocols[0])
            return await aioice.ice.server_reflexive_candidate(local, (server.host, server.port))
        return await aioice.ice.relayed_candidate(
            component=component,
            hide_related_address=False,
            protocol_factory=lambda: Relayed(connection, inlet),
            turn_server=(server.host, server.port),
            turn_username=server.username,
            turn_password=server.password,
            turn_ssl=server.tls,
            turn_transport=server.transport,
        )


def _check_address(address: str) -> None:
    """Sees that it is one of this machine.

    Raises:
        ValueError: It is none.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        try:
            one.bind((address, 0))
        except OSError as error:
            raise ValueError(
                f"ice_addresses: expected addresses of this machine, got {address}; a public one, which a router"
                " translates, is AUDIOMIXER_ICE_ANNOUNCED"
            ) from error


@cache
def _check_buffers(receive: int, send: int) -> None:
    """Tells once how much the kernel keeps while nobody reads, and while nothing can be sent."""
    _log.info("the kernel keeps up to %d bytes of what comes, %d of what is sent", receive, send)
    if receive < _ENOUGH or send < _ENOUGH:
        _log.warning(
            "the kernel keeps only %d bytes of what comes and %d of what is sent: for large rooms and many listeners,"
            " set net.core.rmem_max and net.core.wmem_max to %d",
            receive,
            send,
            _ENOUGH,
        )


LOOPBACK: Final = Ice(["127.0.0.1"], media_port=None)
"""For connections to servers on this machine."""


def addresses_of(host: str) -> list[str]:
    """The addresses on which media of a server that listens on `host` can be reached, loopback included for any.

    For loopback as well these are all: Firefox connects to no loopback address, though its pages come from there.
    """
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if not address.is_unspecified and not address.is_loopback:
            return [host]
    return ["127.0.0.1", *aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True)]


def _can_be(host: Candidate, announced: str) -> bool:
    """Whether a router can translate `announced` to this address."""
    address = ipaddress.ip_address(host.host)
    return not address.is_loopback and address.version == ipaddress.ip_address(announced).version


def _translated(host: Candidate, announced: str) -> Candidate:
    return Candidate(
        foundation=candidate_foundation("srflx", host.transport, host.host),
        component=host.component,
        transport=host.transport,
        priority=candidate_priority(host.component, "srflx") - (host.transport == "tcp"),
        tcptype=host.tcptype,
        host=announced,
        port=host.port,
        type="srflx",
        related_address=host.host,
        related_port=host.port,
    )


def _is_global_v4(host: str) -> bool:
    address = ipaddress.ip_address(host)
    return address.version == 4 and not address.is_loopback


class _Answer(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.came = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self.came.done():
            self.came.set_result(None)

    def error_received(self, exc: Exception) -> None:
        if not self.came.done():
            self.came.set_exception(exc)


async def _ask(server: IceServer) -> None:
    """Waits for the answer to a binding request (RFC 8489), which TURN servers give as well."""
    request = aioice.stun.Message(message_method=aioice.stun.Method.BINDING, message_class=aioice.stun.Class.REQUEST)
    loop = asyncio.get_running_loop()
    transport, answer = await loop.create_datagram_endpoint(_Answer, remote_addr=(server.host, server.port))
    try:
        while not answer.came.done():
            transport.sendto(bytes(request))
            await asyncio.wait([answer.came], timeout=_PROBE_TIMEOUT / 4)
        answer.came.result()
    finally:
        transport.close()


async def _knock(server: IceServer) -> None:
    """Sees that a server takes connections."""
    _, writer = await asyncio.open_connection(server.host, server.port)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
