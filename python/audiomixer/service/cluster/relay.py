"""A client's WebSocket and a worker's: what comes by one goes out by the other, until either ends."""

import asyncio
import contextlib
from typing import Final

from aiohttp import ClientWebSocketResponse, WSMsgType
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

_CLOSED: Final = 1001


async def relay(client: WebSocket, worker: ClientWebSocketResponse) -> None:
    """Relays; the client's is accepted here, and both are closed at the end."""
    await client.accept()
    tasks = [asyncio.ensure_future(_up(client, worker)), asyncio.ensure_future(_down(worker, client))]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if client.application_state is WebSocketState.CONNECTED:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await client.close(worker.close_code or _CLOSED)


async def _up(client: WebSocket, worker: ClientWebSocketResponse) -> None:
    with contextlib.suppress(ConnectionError):
        while (message := await client.receive())["type"] == "websocket.receive":
            if (data := message.get("bytes")) is not None:
                await worker.send_bytes(data)
            else:
                await worker.send_str(message.get("text") or "")


async def _down(worker: ClientWebSocketResponse, client: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        async for message in worker:
            if message.type is WSMsgType.BINARY:
                await client.send_bytes(message.data)
            elif message.type is WSMsgType.TEXT:
                await client.send_text(message.data)
