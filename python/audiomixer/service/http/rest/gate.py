"""What is seen to before a request's body is read: that whoever sends it may, and that it can be read at all."""

import re
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audiomixer.auth.tokens import TokenError
from audiomixer.service.http.errors import ApiError, answer_to
from audiomixer.service.http.lookups import unauthorized
from audiomixer.service.http.rest.common import check_credentials, read_basic
from audiomixer.service.service import Service

_CHARSET: Final = re.compile(r";\s*charset[^=;]*=\s*\"?([^\";\s]*)", re.IGNORECASE)
_BOUNDARY: Final = re.compile(r";\s*boundary\s*=\s*\"?([^\";]+)", re.IGNORECASE)


class Gate:
    """Answers requests with bodies that nobody should parse.

    The framework parses a form before it looks at who sent it, by any codec of Python's that the form names; and takes
    one that was cut off for an empty one.

    Args:
        app: What is protected: the API, whose requests with bodies all need credentials, or a host's token.
        service: Whose credentials.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check(headers.get("authorization", ""))
            kind = headers.get("content-type", "")
            for charset in _CHARSET.findall(kind):
                if charset.lower() not in {"utf-8", "utf8"}:
                    raise ApiError(400, f"Content-Type: expected charset=utf-8, got {charset[:40]}")
            if kind.lower().startswith("multipart/"):
                receive = _replay(await _whole(receive, kind), receive)
        except ApiError as error:
            await answer_to(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, header: str) -> None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            check_credentials(self._service, read_basic(header))
            return
        try:
            self._service.host_of(token.strip())
        except TokenError as error:
            raise unauthorized(error) from error


async def _whole(receive: Receive, kind: str) -> bytes:
    """A multipart body, which is bounded already, to its end.

    Raises:
        ApiError: It has none.
    """
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message.get("body", b"")
        more = message.get("more_body", False)
    boundaries = _BOUNDARY.findall(kind)
    end = rb"(?:^|\n)--" + re.escape(boundaries[0].strip().encode()) + rb"--[ \t]*(?:\r?\n|$)" if boundaries else b""
    if len(boundaries) != 1 or not re.search(end, body):
        raise ApiError(400, "body: expected multipart/form-data that ends with its boundary")
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
