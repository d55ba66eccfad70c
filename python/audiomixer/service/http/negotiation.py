"""WHIP into rooms and WHEP out of streams (RFC 9725, and its draft twin): offers, later candidates, departures."""

from typing import Final
from urllib.parse import quote

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route

from audiomixer.auth.tokens import TokenError
from audiomixer.auth.turnstile import SESSION_HEADER
from audiomixer.outputs.base import OutputError
from audiomixer.rooms.base import FullError, KeptOutError, NoRoomError, RoomError
from audiomixer.service.http.errors import ApiError
from audiomixer.service.http.lookups import admit, stream_of, streams_of, token_of, unauthorized
from audiomixer.webrtc import trickle
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.offers import OfferError
from audiomixer.webrtc.peer import Peer, RestartError, UnreachableError
from audiomixer.webrtc.trickle import Fragment, FragmentError

_SDP: Final = "application/sdp"
_LARGEST_BODY: Final = 64 * 1024
_LONGEST_CLIENT: Final = 200
_MOST_CONNECTING: Final = 250
"""Listeners of one network that have not connected yet: who only asks takes others' places for ten seconds each."""


async def body_of(request: Request, what: str = "fragment") -> bytes:
    """The body.

    Raises:
        ApiError: It is too long.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise ApiError(413, f"{what}: expected at most {_LARGEST_BODY} bytes")
    return bytes(body)


async def _text(request: Request, what: str, expected: str) -> str:
    """The body, of the `expected` type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != expected:
        raise ApiError(415, f"Content-Type: expected {expected}, got {kind or 'none'}")
    try:
        return (await body_of(request, what)).decode()
    except UnicodeDecodeError:
        raise ApiError(400, f"{what}: expected SDP in UTF-8") from None


async def offer_of(request: Request) -> str:
    """The SDP offer in a request.

    Raises:
        ApiError: There is none, or it is too long.
    """
    return await _text(request, "offer", _SDP)


async def _trickle(request: Request, peer: Peer | None) -> Response:
    """More candidates for a connection, or another ICE session, as RFC 9725 has it."""
    if peer is None:
        raise ApiError(404, "resource: no such connection")
    matches = request.headers.get("if-match")
    if matches is None:
        raise ApiError(428, "If-Match: expected the ETag of the answer")
    if matches not in {"*", _etag(peer)}:
        raise ApiError(412, f"If-Match: expected {_etag(peer)}, got {matches}")
    try:
        fragment = Fragment.parse(await _text(request, "fragment", trickle.TYPE))
        if matches == "*":
            answer = str(await peer.restart(fragment))
            return Response(answer, headers={"ETag": _etag(peer)}, media_type=trickle.TYPE)
        await peer.trickle(fragment)
    except RestartError as error:
        raise ApiError(409, str(error)) from error
    except FragmentError as error:
        raise ApiError(400, str(error)) from error
    return Response(status_code=204)


def _etag(peer: Peer) -> str:
    return f'"{peer.session}"'


def path_of(request: Request) -> str:
    """The path of a request as clients see it, quoted: a room's name may hold what no header can."""
    path, prefix = quote(request.url.path), request.app.state.prefix
    return path if path.startswith(prefix) else prefix + path


def _answered(request: Request, resource: str, answer: str, peer: Peer | None) -> Response:
    headers = {"Location": f"{path_of(request)}/{resource}", "Accept-Patch": trickle.TYPE}
    if peer:  # It may have gone already.
        headers["ETag"] = _etag(peer)
    return _with_servers(Response(answer, 201, headers, _SDP), streams_of(request).rooms.ice)


async def whip_accepts(request: Request) -> Response:
    """What may be posted here, and with which ICE servers, as RFC 9725 has it."""
    rooms = streams_of(request).rooms
    token = token_of(request)
    try:
        await rooms.door.check(request.path_params["name"], token)
    except TokenError as error:
        if token:
            raise unauthorized(error) from error
        return _accepting()
    return _with_servers(_accepting(), rooms.ice)


async def whep_accepts(request: Request) -> Response:
    """The same for a stream."""
    token = token_of(request) or request.query_params.get("token")
    if token or streams_of(request).turnstile is None:
        admit(request, token)
        return _with_servers(_accepting(), streams_of(request).rooms.ice)
    return _accepting()


def _accepting() -> Response:
    return Response(status_code=204, headers={"Accept-Post": _SDP})


def _with_servers(response: Response, ice: Ice) -> Response:
    """The same, with the ICE servers that a client may use."""
    for server in ice.offered:
        link = f'<{server.url}>; rel="ice-server"'
        if server.kind == "turn":
            username, credential = server.credentials()
            link += f'; username="{username}"; credential="{credential}"; credential-type="password"'
        response.headers.append("Link", link)
    return response


def client_of(request: HTTPConnection) -> str:
    """What a client says that it is."""
    return request.headers.get("user-agent", "")[:_LONGEST_CLIENT]


async def _whip(request: Request) -> Response:
    try:
        await streams_of(request).rooms.door.check(request.path_params["name"], token_of(request))
    except TokenError as error:
        raise unauthorized(error) from error
    offer = await offer_of(request)
    try:
        resource, answer = await streams_of(request).rooms.join(
            request.path_params["name"],
            offer,
            token_of(request),
            request.query_params.get("identity"),
            client_of(request),
        )
    except TokenError as error:
        raise unauthorized(error) from error
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    except RoomError as error:
        raise refusal(error) from error
    except UnreachableError as error:
        raise _unreachable(error) from error
    return _answered(request, resource, answer, streams_of(request).rooms.peer(resource))


def refusal(error: RoomError) -> ApiError:
    """The error for a room that cannot be joined."""
    statuses = {NoRoomError: 404, FullError: 429, KeptOutError: 403}
    return ApiError(statuses.get(type(error), 409), str(error))


def _unreachable(error: UnreachableError) -> ApiError:
    return ApiError(503, str(error), headers={"Retry-After": "2"})


async def _whip_trickle(request: Request) -> Response:
    return await _trickle(request, streams_of(request).rooms.peer(request.path_params["resource"]))


async def _whip_leave(request: Request) -> Response:
    if not await streams_of(request).rooms.leave(request.path_params["resource"]):
        raise ApiError(404, "resource: no such participant")
    return Response()


async def _whep(request: Request) -> Response:
    session = admit(request, token_of(request) or request.query_params.get("token"))
    stream = stream_of(request)
    if streams_of(request).full:
        raise ApiError(429, f"listeners: expected at most {streams_of(request).max_listeners}")
    network = getattr(request.state, "network", "")
    if network and streams_of(request).connecting(network) >= _MOST_CONNECTING:
        raise ApiError(429, f"listeners: expected at most {_MOST_CONNECTING} at a time to connect")
    try:
        resource, answer = await stream.whep.join(await offer_of(request), network)
    except OfferError as error:
        raise ApiError(400, str(error)) from error
    except OutputError as error:
        raise ApiError(404, str(error)) from error
    except UnreachableError as error:
        raise _unreachable(error) from error
    response = _answered(request, resource, answer, stream.whep.peer(resource))
    if session:
        response.headers[SESSION_HEADER] = session
    return response


async def _whep_trickle(request: Request) -> Response:
    return await _trickle(request, stream_of(request).whep.peer(request.path_params["resource"]))


async def _whep_leave(request: Request) -> Response:
    if not await stream_of(request).whep.leave(request.path_params["resource"]):
        raise ApiError(404, "resource: no such listener")
    return Response()


ROUTES: Final = (
    Route("/whip/{name}", whip_accepts, methods=["OPTIONS"]),
    Route("/whip/{name}", _whip, methods=["POST"]),
    Route("/whip/{name}/{resource}", _whip_trickle, methods=["PATCH"]),
    Route("/whip/{name}/{resource}", _whip_leave, methods=["DELETE"]),
    Route("/whep/{sid}", whep_accepts, methods=["OPTIONS"]),
    Route("/whep/{sid}", _whep, methods=["POST"]),
    Route("/whep/{sid}/{resource}", _whep_trickle, methods=["PATCH"]),
    Route("/whep/{sid}/{resource}", _whep_leave, methods=["DELETE"]),
)
"""Paths of rooms and of streams."""
