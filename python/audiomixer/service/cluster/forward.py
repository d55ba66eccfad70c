"""Requests on their way to a worker, and its answers on their way back, as they come."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import cached_property
from typing import Final

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    DummyCookieJar,
    TCPConnector,
    WSServerHandshakeError,
)
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse
from yarl import URL

from audiomixer.service.cluster.worker import NETWORK_HEADER, SECRET_HEADER
from audiomixer.service.http.errors import ApiError

_CONNECT: Final = 2.0
_ANSWER: Final = 30.0
"""Seconds: playlists are waited for, and pages keep silent events open with comments."""
_LARGEST_MESSAGE: Final = 64 << 10
_SHORT: Final = 256 << 10
"""Bytes up to which an answer is taken as a whole: playlists and segments are."""
_PASSED: Final = ("accept-encoding", "content-type", "if-match", "user-agent")
"""Headers of requests that workers read."""
_RETURNED: Final = (
    b"accept-patch",
    b"accept-post",
    b"cache-control",
    b"content-encoding",
    b"content-length",
    b"content-type",
    b"etag",
    b"link",
    b"location",
    b"retry-after",
    b"vary",
)
"""Headers of answers that clients get; all else is said by this process."""


class Forwarder:
    """Connections to workers.

    Args:
        secret: What they know forwarded requests by.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret

    @cached_property
    def _client(self) -> ClientSession:
        return ClientSession(
            headers={SECRET_HEADER: self._secret},
            timeout=ClientTimeout(sock_connect=_CONNECT, sock_read=_ANSWER),
            connector=TCPConnector(limit=0),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
            auto_decompress=False,
            cookie_jar=DummyCookieJar(),
        )

    async def answer(
        self, request: Request, url: str, query: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """A worker's answer to a request.

        Args:
            request: What was asked.
            url: Where that is asked of the worker.
            query: With which parameters.
            body: What is sent along.

        Raises:
            ApiError: The worker does not answer.
        """
        headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        headers[NETWORK_HEADER] = getattr(request.state, "network", "")
        asked = URL(url, encoded=True).with_query(query or {})
        try:
            answer = await self._client.request(request.method, asked, headers=headers, data=body or None)
            short = answer.content_length is not None and answer.content_length <= _SHORT
            whole = await answer.read() if short else b""
        except (ClientError, TimeoutError) as error:
            raise away() from error
        headers_back = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() in _RETURNED]
        response = Response(whole, answer.status) if short else StreamingResponse(_pieces(answer), answer.status)
        response.raw_headers = headers_back
        return response

    async def socket(self, request: HTTPConnection, url: str, query: Mapping[str, str]) -> ClientWebSocketResponse:
        """A WebSocket to a worker, for one of a client's.

        Raises:
            ApiError: The worker does not answer, or refuses, with what it says.
        """
        headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        asked = URL(url, encoded=True).with_query(query)
        try:
            return await self._client.ws_connect(asked, headers=headers, max_msg_size=_LARGEST_MESSAGE)
        except WSServerHandshakeError as error:
            raise ApiError(error.status, "worker: it refuses", headers={"Retry-After": "2"}) from error
        except (ClientError, TimeoutError) as error:
            raise away() from error

    async def events(self, url: str) -> AsyncGenerator[str]:
        """The server-sent events of a worker, until there are no more."""
        with contextlib.suppress(ClientError, TimeoutError):
            async with self._client.get(URL(url, encoded=True)) as answer:
                rest = b""
                async for piece in answer.content.iter_any():
                    *items, rest = (rest + piece).split(b"\n\n")
                    for item in items:
                        if item.startswith(b"data: "):
                            yield "\n".join(line.removeprefix("data: ") for line in item.decode().split("\n"))

    async def close(self) -> None:
        """Ends all connections."""
        await self._client.close()


async def _pieces(answer: ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for piece in answer.content.iter_any():
            yield piece


def away() -> ApiError:
    """The error for what is there again in a moment."""
    return ApiError(503, "worker: it does not answer", headers={"Retry-After": "1", "Cache-Control": "no-store"})
