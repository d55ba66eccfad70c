"""Media over HTTP: WHIP into rooms, WHEP and HLS out of streams, their metadata, and the pages."""

import asyncio
import contextlib
import gzip
import json
import re
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from audiomixer.audio.encoding import BITRATES
from audiomixer.auth.tokens import TokenError
from audiomixer.auth.turnstile import SESSION_HEADER, OriginError
from audiomixer.outputs.base import OutputError
from audiomixer.outputs.hls import PLAYLIST_TYPE, SEGMENT_TYPE, TooFarError
from audiomixer.outputs.playlist import TARGET, master_playlist
from audiomixer.rooms.base import FullError, NoRoomError, RoomError
from audiomixer.service.http.errors import HANDLERS, ApiError
from audiomixer.service.http.sites import Headed, OwnSite
from audiomixer.service.streams import Stream, Streams
from audiomixer.webrtc.offers import OfferError
from audiomixer.webrtc.peer import UnreachableError

_WEB: Final = Path(__file__).parent.parent.parent / "web"
_SDP: Final = "application/sdp"
_LARGEST_BODY: Final = 64 * 1024
_LONGEST_NUMBER: Final = 12
_LINES: Final = re.compile(r"\r\n|\r|\n")
"""What ends a line of a server-sent event, and nothing else does."""
_KEEP_ALIVE: Final = 15.0
"""Seconds without an event, after which readers are told that there still may be some."""
_LOOK_AGAIN: Final = 1.0
"""Seconds until the next look for a room that is not there."""

CORS: Final = Middleware(
    CORSMiddleware,
    allow_origins=["*"],
    allow_methods=["GET", "POST", "DELETE", "OPTIONS"],
    allow_headers=["Authorization", "Content-Type"],
    expose_headers=["Location", "Retry-After", SESSION_HEADER],
)
"""Pages of other sites may use everything here, with a token where one is needed."""


def media_app(streams: Streams) -> Starlette:
    """An application, for any ASGI server, that serves `streams` and their rooms, and nothing else.

    Args:
        streams: What is served; close it before the server stops, so that open event streams end.
    """
    events = Route("/v1/PlayerStreamers/{sid}/TimedMetadata", _timed_metadata)
    middleware = [Middleware(Headed), *([Middleware(OwnSite)] if streams.rooms.door.is_open else []), CORS]
    app = Starlette(routes=[*media_routes(), events], middleware=middleware, exception_handlers=HANDLERS)
    app.state.streams = streams
    app.state.guard = lambda request: None
    app.state.prefix = ""
    return app


def media_routes() -> list[BaseRoute]:
    """What `media_app` serves.

    The application has `streams` in its state, a `guard` that raises if a request may not see what there is, and the
    `prefix` that a proxy takes off paths.
    """
    return [
        Route("/", _index_page),
        Route("/rooms/{name}", _room_page),
        Route("/listen/{sid}", _listen_page),
        Route("/overview.json", _overview),
        Route("/rooms/{name}/volumes", _room_volumes),
        Route("/whip/{name}", _accepts, methods=["OPTIONS"]),
        Route("/whip/{name}", _whip, methods=["POST"]),
        Route("/whip/{name}/{resource}", _whip_leave, methods=["DELETE"]),
        Route("/whep/{sid}", _accepts, methods=["OPTIONS"]),
        Route("/whep/{sid}", _whep, methods=["POST"]),
        Route("/whep/{sid}/{resource}", _whep_leave, methods=["DELETE"]),
        Route("/hls/{sid}/index.m3u8", _hls_master),
        Route("/hls/{sid}/audio.m3u8", _hls_media),
        Route("/hls/{sid}/permit", _hls_permit),
        Route("/hls/{sid}/{segment}", _hls_segment),
        Route("/healthz", _healthz),
        Mount("/web", StaticFiles(directory=_WEB)),
    ]


async def _index_page(request: Request) -> Response:
    _guard(request)
    return _page("index.html")


async def _room_page(request: Request) -> Response:
    return _page("room.html")


async def _listen_page(request: Request) -> Response:
    known = _streams(request).get(request.path_params["sid"])
    return _page("listen.html", 200 if known else 404)


def _page(name: str, status: int = 200) -> Response:
    return FileResponse(_WEB / name, status, headers={"Cache-Control": "no-cache"})


def _streams(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


def _stream(request: Request) -> Stream:
    sid = request.path_params["sid"]
    stream = _streams(request).get(sid)
    if stream is None:
        if sid in _streams(request).expected:
            raise ApiError(404, "stream: nothing to play yet", headers={"Retry-After": "2"})
        raise ApiError(404, f"stream: there is no {sid}")
    return stream


def _guard(request: Request) -> None:
    guard: Callable[[Request], None] = request.app.state.guard
    guard(request)


async def _overview(request: Request) -> Response:
    _guard(request)
    streams = _streams(request)
    rooms = [{"name": room.name, "identities": room.identities} for room in streams.rooms]
    playing = [
        {
            "sid": stream.sid,
            "room": stream.mixer.room.name,
            "bitrate": stream.mixer.audio_bitrate,
            "seconds": round(stream.mixer.time),
            "listeners": stream.whep.listeners,
        }
        for stream in streams
    ]
    needs_tokens = streams.turnstile is not None
    return JSONResponse({"needsTokens": needs_tokens, "rooms": rooms, "streams": playing})


async def _offer(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _SDP:
        raise ApiError(415, f"Content-Type: expected {_SDP}, got {kind or 'none'}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise ApiError(413, f"offer: expected at most {_LARGEST_BODY} bytes")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ApiError(400, "offer: expected SDP in UTF-8") from None


def _answered(request: Request, resource: str, answer: str) -> Response:
    # Quoted: a room's name may hold what no header can.
    path, prefix = quote(request.url.path), request.app.state.prefix
    path = path if path.startswith(prefix) else prefix + path
    return Response(answer, 201, {"Location": f"{path}/{resource}"}, _SDP)


def _token(request: Request) -> str | None:
    """A Bearer token in the Authorization header, as RFC 9725 has it."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def _accepts(request: Request) -> Response:
    """What may be posted here, as RFC 9725 has it."""
    return Response(status_code=204, headers={"Accept-Post": _SDP})


async def _whip(request: Request) -> Response:
    try:
        await _streams(request).rooms.door.check(request.path_params["name"], _token(request))
    except TokenError as error:
        raise _unauthorized(error) from error
    offer = await _offer(request)
    try:
        resource, answer = await _streams(request).rooms.join(
            request.path_params["name"], offer, _token(request), request.query_params.get("identity")
        )
    except TokenError as error:
        raise _unauthorized(error) from error
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    except RoomError as error:
        status = 404 if isinstance(error, NoRoomError) else 429 if isinstance(error, FullError) else 409
        raise ApiError(status, str(error)) from error
    except UnreachableError as error:
        raise _unreachable(error) from error
    return _answered(request, resource, answer)


def _unauthorized(error: TokenError) -> ApiError:
    return ApiError(401, str(error), headers={"WWW-Authenticate": "Bearer"})


def _unreachable(error: UnreachableError) -> ApiError:
    return ApiError(503, str(error), headers={"Retry-After": "2"})


async def _whip_leave(request: Request) -> Response:
    if not await _streams(request).rooms.leave(request.path_params["resource"]):
        raise ApiError(404, "resource: no such participant")
    return Response()


def _admit(request: Request, token: str | None) -> str | None:
    """Sees that who asks may play; gives a token to go on with, where tokens are needed."""
    turnstile = _streams(request).turnstile
    if turnstile is None:
        return None
    try:
        return turnstile.admit(token, request.path_params["sid"], request.headers.get("origin"))
    except TokenError as error:
        raise _unauthorized(error) from error
    except OriginError as error:
        raise ApiError(403, str(error)) from error


async def _whep(request: Request) -> Response:
    session = _admit(request, _token(request) or request.query_params.get("token"))
    stream = _stream(request)
    if _streams(request).full:
        raise ApiError(429, f"listeners: expected at most {_streams(request).max_listeners}")
    try:
        resource, answer = await stream.whep.join(await _offer(request))
    except OfferError as error:
        raise ApiError(400, str(error)) from error
    except OutputError as error:
        raise ApiError(404, str(error)) from error
    except UnreachableError as error:
        raise _unreachable(error) from error
    response = _answered(request, resource, answer)
    if session:
        response.headers[SESSION_HEADER] = session
    return response


async def _whep_leave(request: Request) -> Response:
    if not await _stream(request).whep.leave(request.path_params["resource"]):
        raise ApiError(404, "resource: no such listener")
    return Response()


async def _hls_master(request: Request) -> Response:
    session = _admit(request, request.query_params.get("token"))
    query = f"?token={session}" if session else ""
    if request.path_params["sid"] in _streams(request).expected:
        # Players may come before the stream does; at which bitrate it will is not known yet.
        return _playlist(request, master_playlist(BITRATES[-1], query), "no-cache")
    return _playlist(request, _stream(request).hls.master_playlist(query), "no-cache")


async def _hls_media(request: Request) -> Response:
    """The playlist; with `_HLS_msn` and `_HLS_part` not before it has that segment, or that part of it."""
    _admit(request, request.query_params.get("token"))
    hls = _stream(request).hls
    number, part = _number(request, "_HLS_msn"), _number(request, "_HLS_part")
    if number is None and part is not None:
        raise ApiError(400, "_HLS_part: expected _HLS_msn as well")
    if number is not None:
        try:
            if not await hls.until(number, part):
                raise ApiError(
                    503, "stream: it has stopped flowing", headers={"Retry-After": "1", "Cache-Control": "no-store"}
                )
        except TooFarError as error:
            raise ApiError(400, str(error)) from error
    await hls.until_playable()
    playlist = hls.media_playlist(skip=request.query_params.get("_HLS_skip") in {"YES", "v2"})
    if playlist is None:
        raise ApiError(404, "stream: nothing to play yet", headers={"Retry-After": "2"})
    # What was waited for is the same for everybody who asks for it; the newest is not, a moment later.
    return _playlist(request, playlist, "no-cache" if number is None else f"public, max-age={6 * TARGET}")


async def _hls_permit(request: Request) -> Response:
    """Whether a playlist may be had: for proxies that keep them."""
    _admit(request, request.query_params.get("token"))
    return Response(status_code=204)


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > _LONGEST_NUMBER:
        raise ApiError(400, f"{name}: expected a number")
    return int(text)


def _playlist(request: Request, text: str, caching: str) -> Response:
    body, headers = text.encode(), {"Cache-Control": caching, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["Content-Encoding"] = _zipped(text), "gzip"
    return Response(body, headers=headers, media_type=PLAYLIST_TYPE)


@lru_cache(maxsize=256)
def _zipped(text: str) -> bytes:
    """Many ask for the same playlist."""
    return gzip.compress(text.encode(), 5, mtime=0)


async def _hls_segment(request: Request) -> Response:
    segment = await _stream(request).hls.media(request.path_params["segment"])
    if segment is None:
        raise ApiError(404, "segment: not there, or not any more")
    return Response(segment, headers={"Cache-Control": "public, max-age=3600, immutable"}, media_type=SEGMENT_TYPE)


def events(streams: Streams, items: AsyncIterator[str]) -> Response:
    """Server-sent events.

    Raises:
        ApiError: As many read some as there may be listeners.
    """
    if streams.readers >= streams.max_listeners:
        raise ApiError(429, f"listeners: expected at most {streams.max_listeners}")

    async def lines() -> AsyncIterator[str]:
        streams.readers += 1
        try:
            async for line in each():
                yield line
        finally:
            streams.readers -= 1

    async def each() -> AsyncIterator[str]:
        coming = asyncio.ensure_future(anext(items, None))
        try:
            while True:
                await asyncio.wait([coming], timeout=_KEEP_ALIVE)
                if not coming.done():
                    yield ":\n\n"  # A comment, so that no proxy takes it for dead.
                    continue
                item = coming.result()
                if item is None:
                    return
                yield "".join(f"data: {line}\n" for line in _LINES.split(item)) + "\n"
                coming = asyncio.ensure_future(anext(items, None))
        finally:
            coming.cancel()

    return StreamingResponse(lines(), headers={"Cache-Control": "no-cache"}, media_type="text/event-stream")


async def _timed_metadata(request: Request) -> Response:
    _admit(request, request.query_params.get("token"))
    return events(_streams(request), _stream(request).events.read())


async def _room_volumes(request: Request) -> Response:
    """The volumes of a room, whenever there is one of this name."""
    streams, name = _streams(request), request.path_params["name"]
    try:
        room_name = await streams.rooms.door.check(name, _token(request))
    except TokenError as error:
        raise _unauthorized(error) from error

    async def volumes() -> AsyncIterator[str]:
        while not streams.closed.is_set():
            room = streams.rooms.get(room_name)
            if room:
                async for item in room.volumes.subscribe():
                    yield json.dumps(item)
            yield "{}"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(streams.closed.wait(), _LOOK_AGAIN)

    return events(streams, volumes())


async def _healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})
