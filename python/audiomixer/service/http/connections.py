"""HTTP connections that have to get on with it: who opens them and says nothing takes nobody else's place."""

import asyncio
import functools
import logging
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, ClassVar, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from audiomixer.service.http.limits import network

_SAYING: Final = 10.0
"""Seconds within which a request has to have come, but for its body."""
_MOST: Final = 1000
"""Connections of one address or IPv6 network, this machine's own aside, and the proxies."""
_OWN: Final = ("127.", "::1")

_log = logging.getLogger(__name__)


class Socket(WebSocketsSansIOProtocol):
    """uvicorn's, of a connection that has become a WebSocket.

    Args:
        on_lost: Called when it has ended.
    """

    def __init__(self, on_lost: Callable[[], None], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells."""
        self._on_lost()
        super().connection_lost(exc)


class Connection(H11Protocol):
    """uvicorn's, which waits for the first request for ever, and takes as many connections as come."""

    held: ClassVar[Counter[str]] = Counter()
    """By address."""

    def __init__(self, *args: Any, proxies: Collection[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._proxies = proxies
        self._address = ""
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the connection, or ends it."""
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        self._address = network(address)
        self.held[self._address] += 1
        is_free = address.startswith(_OWN) or address in self._proxies or "*" in self._proxies
        if self.held[self._address] > _MOST and not is_free:
            if self.held[self._address] == _MOST + 1:
                _log.warning("%s has %d connections, and gets no more", self._address, _MOST)
            transport.abort()
            return
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Takes data; a request that has begun has to get there in time."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._expect_nothing()
        elif self._patience is None and not self.transport.is_closing():
            self._expect()

    def on_response_complete(self) -> None:
        """Closes what has not been read to its end: nobody waits for the rest of what was answered already."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self.transport.close()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hands the connection on, with its place."""
        self._expect_nothing()
        self.ws_protocol_class = cast("type[asyncio.Protocol]", functools.partial(Socket, self._leave))
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives the place back."""
        self._leave()
        super().connection_lost(exc)

    def _leave(self) -> None:
        self._expect_nothing()
        self.held[self._address] -= 1
        if not self.held[self._address]:
            del self.held[self._address]

    def _expect(self) -> None:
        self._patience = self.loop.call_later(_SAYING, self._give_up)

    def _expect_nothing(self) -> None:
        if self._patience:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self.conn.their_state is h11.IDLE and not (self.cycle and not self.cycle.response_complete):
            self.transport.close()
