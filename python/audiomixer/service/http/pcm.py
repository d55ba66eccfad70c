"""`/pcm/ROOM`, a WebSocket: audio as it is, or Opus packets, into a room of ours, and what is heard there out.

The first message is text, and tells who has joined as what. After it, binary messages are audio, both ways, and text
from the client is JSON: `{"muted": true}`.
"""

import asyncio
import contextlib
import json
import logging
from typing import Final, cast

from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from audiomixer.auth.tokens import TokenError
from audiomixer.rooms.base import RoomError
from audiomixer.rooms.pcm import SAMPLE_RATES, Codec, PcmMember
from audiomixer.service.http.errors import ApiError, answer_to
from audiomixer.service.http.lookups import streams_of, token_of, unauthorized
from audiomixer.service.http.negotiation import client_of, refusal

_log = logging.getLogger(__name__)

_WRONG: Final = 1003
"""Close codes of RFC 6455: what came cannot be taken…"""
_GONE: Final = 1001
"""…and who is here has to leave."""


def order_of(socket: HTTPConnection) -> tuple[Codec, int]:
    """What is sent and wanted: its codec, and the rate of its samples.

    Raises:
        ApiError: There is no such.
    """
    codec = socket.query_params.get("codec", "pcm")
    if codec not in {"pcm", "opus"}:
        raise ApiError(400, f"codec: expected pcm or opus, got {codec!r}")
    rate = socket.query_params.get("sample_rate", "48000")
    if codec == "opus" and rate != "48000":
        raise ApiError(400, f"sample_rate: expected 48000, or none, with Opus, got {rate!r}")
    if rate not in map(str, SAMPLE_RATES):
        raise ApiError(400, f"sample_rate: expected one of {', '.join(map(str, SAMPLE_RATES))}, got {rate!r}")
    return cast("Codec", codec), int(rate)


def token_in(socket: HTTPConnection) -> str | None:
    """A token in the header, or in the query: pages cannot say headers of WebSockets."""
    return token_of(socket) or socket.query_params.get("token")


async def deny(socket: WebSocket, error: ApiError) -> None:
    """Answers a handshake with an error."""
    await socket.send_denial_response(answer_to(error))


async def _pcm(socket: WebSocket) -> None:
    try:
        member = await _join(socket)
    except ApiError as error:
        await deny(socket, error)
        return
    except Exception:
        _log.exception("nobody can join by a WebSocket just now")
        await deny(socket, ApiError(503, "The service cannot answer just now"))
        return
    try:
        await socket.accept()
        hello = {"resource": member.resource, "codec": member.codec, "sample_rate": member.sample_rate}
        await socket.send_text(json.dumps(hello))
        talking = asyncio.ensure_future(_talk(socket, member))
        hearing = asyncio.ensure_future(_hear(socket, member))
        await asyncio.wait([talking, hearing], return_when=asyncio.FIRST_COMPLETED)
        for task in (talking, hearing):
            task.cancel()
        ended = await asyncio.gather(talking, hearing, return_exceptions=True)
        problem = next((error for error in ended if isinstance(error, ValueError)), None)
        if socket.application_state is WebSocketState.CONNECTED:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await socket.close(_WRONG if problem else _GONE, str(problem or "it has left the room"))
    except WebSocketDisconnect:
        pass
    finally:
        await member.close()


async def _join(socket: WebSocket) -> PcmMember:
    rooms = streams_of(socket).rooms
    codec, rate = order_of(socket)
    try:
        async with rooms.door.admit(
            socket.path_params["name"], token_in(socket), socket.query_params.get("identity")
        ) as (room, identity):
            return await rooms.open(room).join_pcm(identity, codec, rate, client_of(socket))
    except TokenError as error:
        raise unauthorized(error) from error
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    except RoomError as error:
        raise refusal(error) from error


async def _talk(socket: WebSocket, member: PcmMember) -> None:
    """Takes in what the client says.

    Raises:
        ValueError: It cannot be taken.
    """
    while (message := await socket.receive())["type"] == "websocket.receive":
        if (data := message.get("bytes")) is not None:
            await member.send(data)
        else:
            _do(message.get("text") or "", member)


def _do(text: str, member: PcmMember) -> None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("muted"), bool):
        raise ValueError('text: expected {"muted": true} or {"muted": false}')
    if member.participant:
        # What comes of it is listened to again: it may be silent all the same.
        member.participant.muted = True if told["muted"] else None


async def _hear(socket: WebSocket, member: PcmMember) -> None:
    with contextlib.suppress(WebSocketDisconnect):
        async for data in member.heard():
            await socket.send_bytes(data)


ROUTES: Final = (WebSocketRoute("/pcm/{name}", _pcm),)
