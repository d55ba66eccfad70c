"""What Janus speaks over a WebSocket, whatever the plugin: https://janus.conf.meetecho.com/docs/rest.html."""

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from audiomixer.rooms.remote import LostError

_LARGEST_MESSAGE: Final = 16 * 2**20
_KEEPALIVE: Final = 20.0
"""Seconds; a session of which Janus hears nothing for a minute is over."""
_ANSWER_TIMEOUT: Final = 10.0
_CLOSE_TIMEOUT: Final = 1.0

_log = logging.getLogger(__name__)


class JanusError(Exception):
    """A request was refused."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(f"{problem} ({code})")
        self.code = code


@dataclass(frozen=True, slots=True)
class Event:
    """What a plugin says, asked or not."""

    data: dict[str, Any] = field(default_factory=dict)
    jsep: dict[str, Any] | None = None
    """An SDP offer or answer that comes with it."""
    hangup: str | None = None
    """The reason, if it says that media has ended."""


OnEvent = Callable[[Event], None]


class JanusClient:
    """A session with a server.

    Args:
        url: Of its WebSocket.
        credentials: What is in every request: `apisecret`, `token`.
        on_lost: Called with the reason when the session has ended, but by `close`.
    """

    def __init__(self, url: str, credentials: dict[str, str], on_lost: Callable[[str], None]) -> None:
        self._url = url
        self._credentials = credentials
        self._on_lost = on_lost
        self._socket: ClientConnection | None = None
        self._session: int | None = None
        self._asked: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._handles: dict[int, OnEvent] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connects, and begins a session.

        Raises:
            LostError: The server is out of reach.
            JanusError: It refuses.
        """
        try:
            self._socket = await connect(
                self._url, subprotocols=[Subprotocol("janus-protocol")], max_size=_LARGEST_MESSAGE
            )
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            raise LostError(f"Janus is out of reach: {error or type(error).__name__}") from error
        self._tasks.append(asyncio.create_task(self._listen(self._socket)))
        self._session = int((await self._request(janus="create"))["data"]["id"])
        self._tasks.append(asyncio.create_task(self._keep_alive()))

    async def attach(self, plugin: str, on_event: OnEvent) -> int:
        """Makes a handle of a plugin, of whose events `on_event` is told."""
        handle = int((await self._request(janus="attach", plugin=plugin))["data"]["id"])
        self._handles[handle] = on_event
        return handle

    async def ask(self, handle: int, jsep: dict[str, Any] | None = None, **body: Any) -> Event:
        """Asks a plugin, and gives its answer.

        Raises:
            JanusError: It refuses.
            LostError: The server is gone.
        """
        more = {"jsep": jsep} if jsep else {}
        event = _event(await self._request(janus="message", handle_id=handle, body=body, **more))
        if "error_code" in event.data:
            raise JanusError(int(event.data["error_code"]), str(event.data.get("error")))
        return event

    async def _request(self, **message: Any) -> dict[str, Any]:
        transaction = secrets.token_hex(8)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[transaction] = answer
        session = {"session_id": self._session} if self._session else {}
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                await self._send({"transaction": transaction} | session | self._credentials | message)
                answered: dict[str, Any] = await answer
        except TimeoutError:
            raise LostError("Janus does not answer") from None
        finally:
            self._asked.pop(transaction, None)
        if answered["janus"] == "error":
            raise JanusError(int(answered["error"]["code"]), str(answered["error"]["reason"]))
        return answered

    async def _send(self, message: dict[str, Any]) -> None:
        if self._socket is None:
            raise LostError("Janus is not connected")
        try:
            await self._socket.send(json.dumps(message))
        except websockets.ConnectionClosed as error:
            raise LostError(f"Janus has hung up: {error}") from error

    async def _listen(self, socket: ClientConnection) -> None:
        reason = "Janus has hung up"
        try:
            async for text in socket:
                self._take(json.loads(text))
        except websockets.ConnectionClosed as error:
            reason = f"Janus has hung up: {error}"
        except Exception as error:
            _log.exception("a message from Janus was not understood")
            reason = repr(error)
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(LostError(reason))
        self._on_lost(reason)

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["janus"]
        answer = self._asked.get(message.get("transaction", ""))
        if kind == "timeout":
            self._lose("Janus has ended the session")
        elif kind == "ack":
            pass  # The answer takes a while.
        elif answer and not answer.done():
            answer.set_result(message)
        elif kind == "error":
            self._lose(str(message.get("error", {}).get("reason", "Janus has ended the session")))
        elif tell := self._handles.get(message.get("sender", 0)):
            tell(_event(message))

    async def _keep_alive(self) -> None:
        """Janus ends sessions that are quiet; whether it is still there, the WebSocket's own pings tell."""
        with contextlib.suppress(LostError):  # Who listens notices.
            while True:
                await asyncio.sleep(_KEEPALIVE)
                keepalive = {"janus": "keepalive", "transaction": "keepalive", "session_id": self._session}
                await self._send(keepalive | self._credentials)

    async def close(self) -> None:
        """Ends the session, and with it every handle."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        socket, self._socket = self._socket, None
        if socket:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    destroy = {"janus": "destroy", "transaction": "end", "session_id": self._session}
                    await socket.send(json.dumps(destroy | self._credentials))
                    await socket.close()


def _event(message: dict[str, Any]) -> Event:
    hangup = message.get("reason", message["janus"]) if message["janus"] in {"hangup", "detached"} else None
    return Event(message.get("plugindata", {}).get("data", {}), message.get("jsep"), hangup)
