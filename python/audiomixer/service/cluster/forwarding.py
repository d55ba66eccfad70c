"""Media over HTTP where workers have it: who asks is checked here, and the request handed to the worker concerned."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Final
from urllib.parse import quote

from aiohttp import ClientWebSocketResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from audiomixer.auth.tokens import TokenError
from audiomixer.auth.turnstile import SESSION_HEADER
from audiomixer.outputs.playlist import master_playlist
from audiomixer.rooms.base import RoomError
from audiomixer.service.cluster.cluster import Cluster
from audiomixer.service.cluster.forward import away
from audiomixer.service.cluster.member import Member
from audiomixer.service.cluster.relay import relay
from audiomixer.service.http import endpoints, negotiation, pcm
from audiomixer.service.http.errors import ApiError
from audiomixer.service.http.lookups import admit, streams_of, token_of, unauthorized
from audiomixer.service.jobs import AwayError, NoWorkerError

_LOOK_AGAIN: Final = 0.5
"""Seconds until the next look for a room that is not there: those who were in it notice that as soon as others do."""


def forwarding_routes(cluster: Cluster) -> list[BaseRoute]:
    """What `media_routes` gives, of a cluster."""
    forwarding = Forwarding(cluster)
    return [
        Route("/", endpoints.index_page),
        Route("/rooms/{name}", endpoints.room_page),
        Route("/listen/{sid}", forwarding.listen_page),
        Route("/overview.json", forwarding.overview),
        Route("/rooms/{name}/volumes", forwarding.volumes),
        Route("/whip/{name}", negotiation.whip_accepts, methods=["OPTIONS"]),
        Route("/whip/{name}", forwarding.whip, methods=["POST"]),
        Route("/whip/{name}/{resource}", forwarding.of_participant, methods=["PATCH", "DELETE"]),
        WebSocketRoute("/pcm/{name}", forwarding.pcm),
        Route("/whep/{sid}", negotiation.whep_accepts, methods=["OPTIONS"]),
        Route("/whep/{sid}", forwarding.whep, methods=["POST"]),
        Route("/whep/{sid}/{resource}", forwarding.of_listener, methods=["PATCH", "DELETE"]),
        Route("/hls/{sid}/index.m3u8", forwarding.hls_master),
        Route("/hls/{sid}/audio.m3u8", forwarding.hls_media),
        Route("/hls/{sid}/permit", endpoints.hls_permit),
        Route("/hls/{sid}/{segment}", forwarding.hls_segment),
        Route("/healthz", endpoints.healthz),
        Mount("/web", StaticFiles(directory=endpoints.WEB)),
    ]


class Forwarding:
    """Endpoints by the paths of one service.

    Args:
        cluster: Whose workers they are about.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def _forward(
        self, request: Request, member: Member | None, path: str, query: dict[str, str] | None = None, body: bytes = b""
    ) -> Response:
        if member is None or member.greeting is None:
            raise ApiError(404, "resource: there is none", headers={"Retry-After": "2"})
        return await self._cluster.forwarder.answer(request, member.greeting.url + path, query, body)

    def _serves(self, request: Request) -> Member:
        """The worker that serves the stream of the path."""
        sid = request.path_params["sid"]
        member = self._cluster.where_stream(sid)
        if member:
            return member
        if self._cluster.knows(sid):
            raise away()  # Players take it for over if they are told that there is none.
        if sid in streams_of(request).expected:
            raise ApiError(404, "stream: nothing to play yet", headers={"Retry-After": "2"})
        raise ApiError(404, f"stream: there is no {sid}")

    async def listen_page(self, request: Request) -> Response:
        """The player."""
        return endpoints.page("listen.html", 200 if self._cluster.knows(request.path_params["sid"]) else 404)

    async def overview(self, request: Request) -> Response:
        """What there is."""
        endpoints.guard(request)
        hosted = self._cluster.rooms
        rooms = [{"name": name, "identities": hosted.identities(name)} for name in hosted.names()]
        return JSONResponse(endpoints.overview_of(True, rooms, self._cluster.streams()))

    async def volumes(self, request: Request) -> Response:
        """The volumes of a room, whichever worker it is on."""
        streams, cluster = streams_of(request), self._cluster
        try:
            name = await streams.rooms.door.check(request.path_params["name"], token_of(request))
        except TokenError as error:
            raise unauthorized(error) from error

        async def volumes() -> AsyncIterator[str]:
            while not streams.closed.is_set():
                member = cluster.rooms.where(name)
                if member and member.greeting:
                    url = f"{member.greeting.url}/rooms/{quote(name)}/volumes"
                    async with contextlib.aclosing(cluster.forwarder.events(url)) as events:
                        async for item in events:
                            yield item
                            if cluster.rooms.where(name) is not member:
                                break
                yield "{}"
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(streams.closed.wait(), _LOOK_AGAIN)

        return endpoints.events(streams, volumes())

    async def whip(self, request: Request) -> Response:
        """Somebody joins a room."""
        door, token, name = streams_of(request).rooms.door, token_of(request), request.path_params["name"]
        with _refusals():
            await door.check(name, token)
            offer = await negotiation.offer_of(request)
            async with door.admit(name, token, request.query_params.get("identity")) as (room, identity):
                member = self._cluster.place(room)
                await self._cluster.rooms.set_up(room, member)
                path = f"/whip/{quote(room)}"
                answer = await self._forward(request, member, path, {"identity": identity}, offer.encode())
                if answer.status_code == 201:
                    self._cluster.rooms.joined(member, room, _resource(answer), identity)
        return _located(request, answer)

    async def pcm(self, socket: WebSocket) -> None:
        """Somebody joins a room without WebRTC."""
        try:
            theirs = await self._join(socket)
        except ApiError as error:
            await pcm.deny(socket, error)
            return
        async with theirs:
            await relay(socket, theirs)

    async def _join(self, socket: WebSocket) -> ClientWebSocketResponse:
        """A WebSocket to the worker that has the room."""
        codec, rate = pcm.order_of(socket)
        door, name = streams_of(socket).rooms.door, socket.path_params["name"]
        with _refusals():
            async with door.admit(name, pcm.token_in(socket), socket.query_params.get("identity")) as (room, identity):
                member = self._cluster.place(room)
                await self._cluster.rooms.set_up(room, member)
                if member.greeting is None:
                    raise away()
                query = {"identity": identity, "codec": codec, "sample_rate": str(rate)}
                return await self._cluster.forwarder.socket(socket, f"{member.greeting.url}/pcm/{quote(room)}", query)

    async def of_participant(self, request: Request) -> Response:
        """Later candidates of a participant, or its departure."""
        resource = request.path_params["resource"]
        room, member = self._cluster.rooms.of(resource)
        body = (await negotiation.body_of(request)) if request.method == "PATCH" else b""
        return await self._forward(request, member, f"/whip/{quote(room)}/{quote(resource)}", body=body)

    async def whep(self, request: Request) -> Response:
        """Somebody listens."""
        session = admit(request, token_of(request) or request.query_params.get("token"))
        member = self._serves(request)
        most = streams_of(request).max_listeners
        if sum(worker.load.listeners for worker in self._cluster.workers() if worker.load) >= most:
            raise ApiError(429, f"listeners: expected at most {most}")
        offer = await negotiation.offer_of(request)
        answer = await self._forward(request, member, f"/whep/{request.path_params['sid']}", body=offer.encode())
        if session and answer.status_code == 201:
            answer.headers[SESSION_HEADER] = session
        return _located(request, answer)

    async def of_listener(self, request: Request) -> Response:
        """Later candidates of a listener, or its departure."""
        sid, resource = request.path_params["sid"], request.path_params["resource"]
        body = (await negotiation.body_of(request)) if request.method == "PATCH" else b""
        return await self._forward(request, self._serves(request), f"/whep/{sid}/{quote(resource)}", body=body)

    async def hls_master(self, request: Request) -> Response:
        """The master playlist, with a token of its own for what it leads to."""
        session = admit(request, request.query_params.get("token"))
        sid = request.path_params["sid"]
        if not self._cluster.knows(sid) and sid not in streams_of(request).expected:
            self._serves(request)
        bitrate = self._cluster.bitrate(sid) or endpoints.HIGHEST
        query = f"?token={session}" if session else ""
        return endpoints.playlist_response(request, master_playlist(bitrate, query), "no-cache")

    async def hls_media(self, request: Request) -> Response:
        """The playlist, when it has what is asked for."""
        admit(request, request.query_params.get("token"))
        query = {name: value for name, value in request.query_params.items() if name != "token"}
        return await self._forward(
            request, self._serves(request), f"/hls/{request.path_params['sid']}/audio.m3u8", query
        )

    async def hls_segment(self, request: Request) -> Response:
        """A segment, or a part of one."""
        sid, segment = request.path_params["sid"], request.path_params["segment"]
        return await self._forward(request, self._serves(request), f"/hls/{sid}/{quote(segment)}")


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Why somebody cannot join, as answers."""
    try:
        yield
    except TokenError as error:
        raise unauthorized(error) from error
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    except NoWorkerError as error:
        raise ApiError(429, str(error)) from error
    except AwayError as error:
        raise away() from error
    except RoomError as error:
        raise negotiation.refusal(error) from error


def _located(request: Request, answer: Response) -> Response:
    """The same, at this process's own path."""
    if "location" in answer.headers:
        answer.headers["location"] = f"{negotiation.path_of(request)}/{_resource(answer)}"
    return answer


def _resource(answer: Response) -> str:
    return str(answer.headers["location"].rpartition("/")[2])
