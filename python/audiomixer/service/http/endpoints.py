"""Media over HTTP: HLS, metadata, and the pages; with `negotiation`, all that a server without the REST API has."""

import asyncio
import contextlib
import gzip
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from audiomixer.audio.encoding import BITRATES
from audiomixer.auth.tokens import TokenError
from audiomixer.auth.turnstile import SESSION_HEADER
from audiomixer.outputs.hls import PLAYLIST_TYPE, SEGMENT_TYPE, TooFarError
from audiomixer.outputs.playlist import TARGET, master_playlist
from audiomixer.service.http import negotiation, pcm
from audiomixer.service.http.errors import HANDLERS, ApiError
from audiomixer.service.http.lookups import admit, stream_of, streams_of, token_of, unauthorized
from audiomixer.service.http.sites import Headed, OwnSite
from audiomixer.service.jobs import Playing
from audiomixer.service.streams import Streams

WEB: Final = Path(__file__).parent.parent.parent / "web"
HIGHEST: Final = BITRATES[-1]
"""What is told of a stream whose bitrate is not known yet."""
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
    allow_methods=["GET", "POST", "PATCH", "DELETE", "OPTIONS"],
    allow_headers=["Authorization", "Content-Type", "If-Match"],
    expose_headers=["ETag", "Link", "Location", "Retry-After", SESSION_HEADER],
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
        Route("/", index_page),
        Route("/rooms/{name}", room_page),
        Route("/listen/{sid}", _listen_page),
        Route("/overview.json", _overview),
        Route("/rooms/{name}/volumes", _room_volumes),
        *negotiation.ROUTES,
        *pcm.ROUTES,
        Route("/hls/{sid}/index.m3u8", _hls_master),
        Route("/hls/{sid}/audio.m3u8", _hls_media),
        Route("/hls/{sid}/permit", hls_permit),
        Route("/hls/{sid}/{segment}", _hls_segment),
        Route("/healthz", healthz),
        Mount("/web", StaticFiles(directory=WEB)),
    ]


async def index_page(request: Request) -> Response:
    """What there is, for who may see it."""
    guard(request)
    return page("index.html")


async def room_page(request: Request) -> Response:
    """A room to talk in."""
    return page("room.html")


async def _listen_page(request: Request) -> Response:
    known = streams_of(request).get(request.path_params["sid"])
    return page("listen.html", 200 if known else 404)


def page(name: str, status: int = 200) -> Response:
    """One of the pages."""
    return FileResponse(WEB / name, status, headers={"Cache-Control": "no-cache"})


def guard(request: Request) -> None:
    """Sees that a request may be told what there is."""
    check: Callable[[Request], None] = request.app.state.guard
    check(request)


async def _overview(request: Request) -> Response:
    guard(request)
    streams = streams_of(request)
    rooms = [{"name": room.name, "identities": room.identities} for room in streams.rooms]
    return JSONResponse(overview_of(streams.turnstile is not None, rooms, streams.playing()))


def overview_of(needs_tokens: bool, rooms: list[dict[str, Any]], playing: list[Playing]) -> dict[str, Any]:
    """What the front page shows."""
    return {"needsTokens": needs_tokens, "rooms": rooms, "streams": [asdict(stream) for stream in playing]}


async def _hls_master(request: Request) -> Response:
    session = admit(request, request.query_params.get("token"))
    query = f"?token={session}" if session else ""
    if request.path_params["sid"] in streams_of(request).expected:
        # Players may come before the stream does; at which bitrate it will is not known yet.
        return playlist_response(request, master_playlist(HIGHEST, query), "no-cache")
    return playlist_response(request, stream_of(request).hls.master_playlist(query), "no-cache")


async def _hls_media(request: Request) -> Response:
    """The playlist; with `_HLS_msn` and `_HLS_part` not before it has that segment, or that part of it."""
    admit(request, request.query_params.get("token"))
    hls = stream_of(request).hls
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
    return playlist_response(request, playlist, "no-cache" if number is None else f"public, max-age={6 * TARGET}")


async def hls_permit(request: Request) -> Response:
    """Whether a playlist may be had: for proxies that keep them."""
    admit(request, request.query_params.get("token"))
    return Response(status_code=204)


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > _LONGEST_NUMBER:
        raise ApiError(400, f"{name}: expected a number")
    return int(text)


def playlist_response(request: Request, text: str, caching: str) -> Response:
    """A playlist, as short as the client can take it."""
    body, headers = text.encode(), {"Cache-Control": caching, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["Content-Encoding"] = _zipped(text), "gzip"
    return Response(body, headers=headers, media_type=PLAYLIST_TYPE)


@lru_cache(maxsize=256)
def _zipped(text: str) -> bytes:
    """Many ask for the same playlist."""
    return gzip.compress(text.encode(), 5, mtime=0)


async def _hls_segment(request: Request) -> Response:
    segment = await stream_of(request).hls.media(request.path_params["segment"])
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
        coming, closed = asyncio.ensure_future(anext(items, None)), asyncio.ensure_future(streams.closed.wait())
        try:
            while True:
                await asyncio.wait([coming, closed], timeout=_KEEP_ALIVE, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done() and closed.done():
                    return
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
            closed.cancel()

    return StreamingResponse(lines(), headers={"Cache-Control": "no-cache"}, media_type="text/event-stream")


async def _timed_metadata(request: Request) -> Response:
    admit(request, request.query_params.get("token"))
    return events(streams_of(request), stream_of(request).events.read())


async def _room_volumes(request: Request) -> Response:
    """The volumes of a room, whenever there is one of this name."""
    streams, name = streams_of(request), request.path_params["name"]
    try:
        room_name = await streams.rooms.door.check(name, token_of(request))
    except TokenError as error:
        raise unauthorized(error) from error

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


async def healthz(request: Request) -> Response:
    """The process is alive."""
    return JSONResponse({"status": "ok"})
