"""Runs the application on a port, within a program of its own."""

import asyncio
import contextlib
import functools
import os
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Generator
from pathlib import Path
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp

from audiomixer.service.http.connections import Connection, Socket

_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOPPING: Final = 0.2
"""Seconds after which uvicorn has certainly seen that it is to stop."""

_KEEP_ALIVE: Final = 65
"""Seconds for which idle connections are kept: longer than clients and proxies do, who would else send into one that is
just being closed."""


_LARGEST_MESSAGE: Final = 64 * 1024
"""Bytes of a message by WebSocket."""
_PING: Final = 5.0
"""Seconds between two questions whether the other side of a WebSocket is still there, and for its answer."""
_HANDSHAKE: Final = 10.0
"""Seconds that a TLS handshake may take; a minute, if nobody says so."""


class PortError(Exception):
    """The address cannot be listened on."""


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but a TLS handshake has to get on as well."""
        await super().startup(sockets=[])
        loop, config = asyncio.get_running_loop(), self.config
        for listener in sockets or ():
            server = await loop.create_server(
                self._protocol,
                sock=listener,
                ssl=config.ssl,
                ssl_handshake_timeout=_HANDSHAKE if config.ssl else None,
                backlog=config.backlog,
            )
            self.servers.append(server)

    def _protocol(self) -> asyncio.Protocol:
        made: Any = self.config.http_protocol_class
        return cast(
            "asyncio.Protocol",
            made(config=self.config, server_state=self.server_state, app_state=self.lifespan.state),
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals are the program's business, not the server's."""
        yield


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    host: str,
    port: int,
    on_stop: Callable[[], Awaitable[None]] | None = None,
    tls: tuple[Path, Path] | None = None,
    proxies: Collection[str] = (),
) -> AsyncIterator[str]:
    """Serves `app` from entering the block until leaving it; gives the URL.

    Args:
        app: The application.
        host: The address to listen on.
        port: The port; 0 for any that is free.
        on_stop: Called when no new connections are taken any more, to end those that there are.
        tls: Files of a certificate, with those up to the authority's, and of its key, to serve HTTPS.
        proxies: Addresses that have as many connections as they want; `*` is everybody.

    Raises:
        PortError: The address is in use, or none of this machine's.
        ValueError: The certificate or its key is none.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number and number > 0 else "no such address"
        raise PortError(f"port: cannot listen on {host}:{port}: {reason}") from error
    # Connections inherit it. asyncio sets it for sockets of a protocol number only, and these have none.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        app,
        http=cast("type[Connection]", functools.partial(Connection, proxies=frozenset(proxies))),
        ws=Socket,
        ws_max_size=_LARGEST_MESSAGE,
        ws_per_message_deflate=False,
        ws_ping_interval=_PING,
        ws_ping_timeout=_PING,
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        # The service has a setting of its own for the proxies it believes.
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=1,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        listener.close()
        raise ValueError(f"tls: expected files of a certificate and its key, PEM: {error}") from None
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    try:
        yield f"http{'s' if tls else ''}://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        if on_stop:
            await asyncio.sleep(_STOPPING)
            await on_stop()
        await running


def allow_many_files() -> None:
    """Lets this process have as many sockets and files open as it may: the usual 1,024 are few."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says unlimited, and means less.
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def stop_signals() -> Generator[asyncio.Event]:
    """An event that is set by Ctrl-C, by SIGTERM, and when the terminal is closed."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOPS:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in _STOPS:
            loop.remove_signal_handler(number)
