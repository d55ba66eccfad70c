"""coturn, Debian's, as TURN server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.e2e.command import free_port

ADDRESS = "127.0.0.2"
"""An address of this machine that nothing else uses."""


@contextlib.asynccontextmanager
async def coturn(folder: Path, secret: str | None = None) -> AsyncIterator[int]:
    """A TURN server on loopback, with a user or a shared secret; gives its port."""
    port = free_port()
    arguments = (
        f"-n --listening-ip={ADDRESS} --listening-port={port} --relay-ip={ADDRESS} --allow-loopback-peers"
        " --no-tls --no-dtls --no-cli"
        f" {f'--use-auth-secret --static-auth-secret={secret}' if secret else '--lt-cred-mech --user=audio:mixer'}"
        f" --realm=test --log-file=stdout --pidfile={folder / 'pid'}"
        f" --userdb={folder / 'db'}"
    ).split()
    server = await asyncio.create_subprocess_exec("turnserver", *arguments, stdout=asyncio.subprocess.DEVNULL)
    try:
        await _until_it_listens(port)
        yield port
    finally:
        server.terminate()
        await server.wait()


async def _until_it_listens(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(ADDRESS, port)
                writer.close()
                return
            await asyncio.sleep(0.05)
