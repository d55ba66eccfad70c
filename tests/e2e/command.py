"""Runs the command `audiomixer` as its user would."""

import asyncio
import contextlib
import random
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

AUDIOMIXER = str(Path(sys.executable).with_name("audiomixer"))


_PORTS = range(10_000, 32_768)
"""Below those that Linux gives to connections by itself: a server that comes back finds its port free."""


def free_port() -> int:
    """A port that nobody listens at."""
    while True:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", random.choice(_PORTS))) as listener:
            return int(listener.getsockname()[1])


async def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that ends by itself."""
    process = await asyncio.create_subprocess_exec(AUDIOMIXER, *arguments, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Process]:
    """A command that is stopped when the block is left, if it has not ended by then."""
    process = await asyncio.create_subprocess_exec(AUDIOMIXER, *arguments, stdout=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def until_serving(port: int) -> None:
    """Waits until a service on `port` answers."""
    async with asyncio.timeout(20), httpx.AsyncClient() as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                await client.get(f"http://127.0.0.1:{port}/healthz")
                return
            await asyncio.sleep(0.05)


async def stream_url(port: int) -> tuple[str, str]:
    """URL and SID of the first stream of the service on `port`, once there is one."""
    url = f"http://127.0.0.1:{port}"
    async with asyncio.timeout(20), httpx.AsyncClient() as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                streams = (await client.get(f"{url}/overview.json")).json()["streams"]
                if streams:
                    return url, streams[0]["sid"]
            await asyncio.sleep(0.1)
