"""What endpoints read out of a request: which stream is asked for, by whom, and whether that may be."""

from starlette.requests import HTTPConnection, Request

from audiomixer.auth.tokens import TokenError
from audiomixer.auth.turnstile import OriginError
from audiomixer.service.http.errors import ApiError
from audiomixer.service.streams import Stream, Streams


def streams_of(request: HTTPConnection) -> Streams:
    """What the application serves."""
    streams: Streams = request.app.state.streams
    return streams


def stream_of(request: Request) -> Stream:
    """The stream that a path names by its SID.

    Raises:
        ApiError: There is none, or not yet.
    """
    sid = request.path_params["sid"]
    stream = streams_of(request).get(sid)
    if stream is None:
        if sid in streams_of(request).expected:
            raise ApiError(404, "stream: nothing to play yet", headers={"Retry-After": "2"})
        raise ApiError(404, f"stream: there is no {sid}")
    return stream


def token_of(request: HTTPConnection) -> str | None:
    """A Bearer token in the Authorization header, as RFC 9725 has it."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def unauthorized(error: TokenError) -> ApiError:
    """The answer to who has no token, or none that is good."""
    return ApiError(401, str(error), headers={"WWW-Authenticate": "Bearer"})


def admit(request: Request, token: str | None) -> str | None:
    """Sees that who asks may play; gives a token to go on with, where tokens are needed."""
    turnstile = streams_of(request).turnstile
    if turnstile is None:
        return None
    try:
        return turnstile.admit(token, request.path_params["sid"], request.headers.get("origin"))
    except TokenError as error:
        raise unauthorized(error) from error
    except OriginError as error:
        raise ApiError(403, str(error)) from error
