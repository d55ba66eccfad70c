"""Requests on their way to a worker, and its answers on their way back, as they come."""

from collections.abc import AsyncIterator, Mapping
from typing import Final

import httpx
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from audiomixer.service.cluster.worker import NETWORK_HEADER, SECRET_HEADER
from audiomixer.service.http.errors import ApiError

_CONNECT: Final = 2.0
_ANSWER: Final = 30.0
"""Seconds: playlists are waited for, and pages keep silent events open with comments."""
_PASSED: Final = ("accept-encoding", "content-type", "if-match")
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
        self._client = httpx.AsyncClient(
            headers={SECRET_HEADER: secret},
            timeout=httpx.Timeout(_ANSWER, connect=_CONNECT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,
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
        asked = self._client.build_request(request.method, url, params=query, headers=headers, content=body)
        try:
            answer = await self._client.send(asked, stream=True)
        except httpx.TransportError as error:
            raise _away() from error

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_raw():
                    yield piece
            finally:
                await answer.aclose()

        response = StreamingResponse(pieces(), answer.status_code)
        response.raw_headers = [
            (name.lower(), value) for name, value in answer.headers.raw if name.lower() in _RETURNED
        ]
        return response

    async def events(self, url: str) -> AsyncIterator[str]:
        """The server-sent events of a worker, until there are no more."""
        try:
            async with self._client.stream("GET", url) as answer:
                rest = ""
                async for text in answer.aiter_text():
                    *items, rest = (rest + text).split("\n\n")
                    for item in items:
                        if item.startswith("data: "):
                            yield "\n".join(line.removeprefix("data: ") for line in item.split("\n"))
        except httpx.TransportError:
            return

    async def close(self) -> None:
        """Ends all connections."""
        await self._client.aclose()


def _away() -> ApiError:
    return ApiError(503, "worker: it does not answer", headers={"Retry-After": "1", "Cache-Control": "no-store"})
