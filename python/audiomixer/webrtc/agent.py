"""aioice on a hub: for sockets it is given transports, which share a port with those of others."""

import asyncio
import contextlib
import ipaddress
import logging
import secrets
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import aioice.ice
import aioice.stun
from aioice.candidate import Candidate, candidate_foundation, candidate_priority

from audiomixer._core import Endpoint, Hub, Inlet, Path, Session
from audiomixer.clock.pacer import clock
from audiomixer.clock.tasks import spawn

Address = tuple[str, int]
_Event = tuple[bool, str, str, int, bytes | str]

_PASSIVE_TCP: Final = (4 << 13) + 8191
"""Local preference of a TCP candidate that takes connections (RFC 6544, section 4.2): below that of any UDP one."""
_SILENT: Final = 6.0
"""Seconds for which nothing has to have come from where the other side was, for it to have moved: it sends checks at
times…"""
_AWAKE: Final = 0.5
"""…to where something has come from within so many."""
_MOST_PAIRS: Final = 100
"""Of addresses (RFC 8445, section 6.1.2.5): who moves on and on leaves some behind."""
_State: Final = aioice.ice.CandidatePair.State

_log = logging.getLogger(__name__)


class Transport(asyncio.DatagramTransport):
    """What aioice takes for a socket: datagrams from and to one of our addresses.

    Args:
        endpoint: Whose datagrams they are.
        host: The address.
        tcp: Whether TCP carries them.
        on_close: Called once.
    """

    def __init__(self, endpoint: Endpoint, host: str, *, tcp: bool, on_close: Callable[["Transport"], None]) -> None:
        super().__init__()
        self.host = host
        self.tcp = tcp
        self._endpoint = endpoint
        self._on_close = on_close
        self._closing = False

    def silence(self, remote: Address) -> float:
        """Seconds for which nothing has come from there that only the other side can have made."""
        return self._endpoint.silence(remote)

    def settle(self, connection: Any, remote: Address) -> None:
        """Has it seen that the other side stays there, for an agent that has come about."""
        self._endpoint.settle(
            self.tcp,
            self.host,
            remote,
            f"{connection.remote_username}:{connection.local_username}",
            connection.remote_password,
            connection.ice_controlling,
            connection._tie_breaker,
        )

    def unsettle(self) -> None:
        """It has taken another way."""
        self._endpoint.unsettle()

    def path(self, remote: Address) -> Path | None:
        """The way from here to there, if there is one."""
        return self._endpoint.path(self.tcp, self.host, remote)

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Sends a datagram, if the kernel takes it."""
        with contextlib.suppress(OSError):
            self._endpoint.send(self.tcp, self.host, addr, data)

    def is_closing(self) -> bool:
        """Whether it has been closed."""
        return self._closing

    def close(self) -> None:
        """Sends and receives nothing any more."""
        if not self._closing:
            self._closing = True
            self._on_close(self)


class Agent:
    """What an ICE agent of aioice sends and receives, to be made on the event loop.

    Args:
        connection: The agent.
        hub: The port.
        session: Its media.
        on_check: Called after checks, which may have moved the connection.
    """

    def __init__(self, connection: aioice.Connection, hub: Hub, session: Session, on_check: Callable[[], None]) -> None:
        self._connection = connection
        self._port = hub.port
        self._on_check = on_check
        self._loop = asyncio.get_running_loop()
        self._endpoint = hub.open(connection.local_username, connection.local_password, session, self._receive)
        self._protocols: dict[tuple[bool, str], aioice.ice.StunProtocol] = {}
        self._moved_to: tuple[aioice.ice.StunProtocol, Address] | None = None
        """Where media comes from, until that has been looked into."""
        self._moving: asyncio.Task[None] | None = None

    def bind(self, hosts: Iterable[str], component: int, *, tcp: bool) -> list[aioice.ice.StunProtocol]:
        """Offers addresses of ours, no two of them alike: by UDP, and to take connections by TCP if wanted."""
        made = []
        for is_tcp in [False, True] if tcp else [False]:
            for host in map(_plain, hosts):
                transport = Transport(self._endpoint, host, tcp=is_tcp, on_close=self._close)
                protocol = aioice.ice.StunProtocol(self._connection)
                protocol.connection_made(transport)
                protocol.local_candidate = _candidate(host, self._port, component, tcp=is_tcp)
                self._protocols[is_tcp, host] = protocol
                made.append(protocol)
        return made

    def _close(self, transport: Transport) -> None:
        protocol = self._protocols.pop((transport.tcp, transport.host))
        if not self._protocols:
            self._endpoint.close()
        self._loop.call_soon(protocol.connection_lost, None)

    def _receive(self, events: list[_Event]) -> None:
        """Called by the hub's thread."""
        with contextlib.suppress(RuntimeError):  # The event loop has ended.
            self._loop.call_soon_threadsafe(self._hand_on, events)

    def _hand_on(self, events: list[_Event]) -> None:
        for tcp, local, host, port, what in events:
            protocol = self._protocols.get((tcp, local))
            # An address of this machine may not be among those offered.
            if protocol is None:
                continue
            if what == "moved":
                self._moved_to = (protocol, (host, port))
                if self._moving is None or self._moving.done():
                    self._moving = spawn(self._move())
            elif what == "gone":
                spawn(self._connection.close())
            elif len(what) > 1:  # aiortc would trip over what is shorter.
                try:
                    protocol.datagram_received(what, (host, port))
                except Exception as error:
                    # aioice reads attributes as though they were what they should be.
                    _log.info("a datagram from %s cannot be read: %r", host, error)
        self._prune()
        self._leave_the_silent()
        self._on_check()

    async def _move(self) -> None:
        """Sends to where media comes from now, if it is asked and the other side is there (RFC 7675)."""
        connection = cast("Any", self._connection)
        while self._moved_to:
            (protocol, remote), self._moved_to = self._moved_to, None
            pair = next((p for p in connection._check_list if (p.protocol, p.remote_addr) == (protocol, remote)), None)
            if pair is None:
                pair = aioice.ice.CandidatePair(protocol, _reflexive(remote, protocol.local_candidate.component))
                connection._check_list.append(pair)
            if pair.state is not _State.SUCCEEDED:
                request = connection.build_request(pair, nominate=False)
                key = connection.remote_password.encode()
                try:
                    # Whoever is there is not to get more than was sent in its name.
                    await protocol.request(request, remote, integrity_key=key, retransmissions=1)
                except aioice.stun.TransactionError:
                    connection.check_state(pair, _State.FAILED)
                    continue
                connection.check_state(pair, _State.SUCCEEDED)
            if connection._nominated:
                connection._nominated[pair.component] = pair
                self._on_check()

    def _prune(self) -> None:
        """Forgets old pairs of who has had very many addresses."""
        connection = cast("Any", self._connection)
        if len(connection._check_list) <= _MOST_PAIRS:
            return
        kept = {id(pair) for pair in [*connection._nominated.values(), *connection._check_list[-_MOST_PAIRS // 2 :]]}
        for pair in [pair for pair in connection._check_list if id(pair) not in kept]:
            connection._check_list.remove(pair)
            if pair.task:
                pair.task.cancel()
        remote = {id(pair.remote_candidate) for pair in connection._check_list}
        candidates = connection._remote_candidates
        candidates[:] = [one for one in candidates if id(one) in remote or one.type != "prflx"]

    def _leave_the_silent(self) -> None:
        """Sends to where checks come from, once nothing comes any more from where it did: a router has changed it."""
        connection = cast("Any", self._connection)
        for component, nominated in connection._nominated.items():
            if not (_is_direct(nominated) and _silence(nominated) > _SILENT):
                continue
            others = [p for p in connection._check_list if p.component == component and p.state is _State.SUCCEEDED]
            nearest = min(filter(_is_direct, others), key=_silence, default=nominated)
            if _silence(nearest) < _AWAKE:
                connection._nominated[component] = nearest


class Relayed(aioice.ice.StunProtocol):
    """What comes by a TURN server, which is a socket of its own.

    It hands on nothing but STUN of whoever has not passed a check (RFC 8445, section 12.1): otherwise anybody could
    disturb a DTLS handshake, by an alert say.

    Args:
        connection: The agent.
        inlet: Takes in media.
    """

    def __init__(self, connection: aioice.Connection, inlet: Inlet) -> None:
        super().__init__(connection)
        self._inlet = inlet

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        """Takes in media, and hands on all else."""
        if len(data) < 2 or not (_is_stun(data) or self._is_known(addr[:2])):
            return
        if not self._inlet.take(cast("bytes", data), clock()):
            super().datagram_received(data, addr)

    def _is_known(self, address: Any) -> bool:
        pairs = cast("Any", self.receiver)._check_list
        succeeded = aioice.ice.CandidatePair.State.SUCCEEDED
        return any(p.protocol is self and p.state is succeeded and p.remote_addr == address for p in pairs)


def _is_stun(data: bytes | str) -> bool:
    """By the first byte (RFC 7983), and the magic cookie."""
    return len(data) >= 20 and data[0] in range(4) and data[4:8] == b"\x21\x12\xa4\x42"


def _is_direct(pair: aioice.ice.CandidatePair) -> bool:
    """Whether there is only UDP in between: a router may have changed its mind."""
    return isinstance(pair.protocol.transport, Transport) and not pair.protocol.transport.tcp


def _silence(pair: aioice.ice.CandidatePair) -> float:
    """Seconds for which nothing has come from a direct pair's other side."""
    return cast("Transport", pair.protocol.transport).silence(pair.remote_addr)


def _reflexive(remote: Address, component: int) -> Candidate:
    """One that was learnt from what came (RFC 8445, section 7.3.1.3)."""
    return Candidate(
        foundation=secrets.token_hex(8),
        component=component,
        transport="udp",
        priority=candidate_priority(component, "prflx"),
        host=remote[0],
        port=remote[1],
        type="prflx",
    )


def name(connection: aioice.Connection) -> None:
    """Gives an agent a username fragment that no other on the port has: aioice's are of four letters."""
    connection._local_username = secrets.token_hex(8)


def _candidate(host: str, port: int, component: int, *, tcp: bool) -> Candidate:
    transport = "tcp" if tcp else "udp"
    return Candidate(
        foundation=candidate_foundation("host", transport, host),
        component=component,
        transport=transport,
        priority=candidate_priority(component, "host", _PASSIVE_TCP) if tcp else candidate_priority(component, "host"),
        host=host,
        port=port,
        type="host",
        tcptype="passive" if tcp else None,
    )


def _plain(host: str) -> str:
    """An address as the hub writes it."""
    return ipaddress.ip_address(host).compressed
