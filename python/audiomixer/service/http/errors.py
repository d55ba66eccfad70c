"""Errors as clients get them: JSON with a code, a message that names what was expected, and a status."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

_CODES: Final = {400: 20001, 401: 20003, 403: 20003, 404: 20404, 405: 20004, 429: 20429}
"""By status; any other is 20000 more than the status."""
_MORE: Final = "https://www.twilio.com/docs/errors/"
"""Where the codes that are the retired service's are explained."""
_KNOWN: Final = {*_CODES.values(), 53000, 53113}


class ApiError(HTTPException):
    """An error for the client.

    Args:
        status: HTTP status.
        message: What was wrong; for bad input `FIELD: expected …`.
        code: The code, if it is not the status's usual one.
        headers: Further headers of the response.
    """

    def __init__(
        self, status: int, message: str, code: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, message, headers)
        self.code = code or _code(status)


def _code(status: int) -> int:
    return _CODES.get(status, 20000 + status)


def error_response(status: int, message: str, code: int, headers: Mapping[str, str] | None = None) -> Response:
    """The error as a response."""
    more = f"{_MORE}{code}" if code in _KNOWN else ""
    body = {"code": code, "message": message, "more_info": more, "status": status}
    return JSONResponse(body, status, headers=headers)


def answer_to(error: ApiError) -> Response:
    """The same, of an exception."""
    return error_response(error.status_code, str(error.detail), error.code, error.headers)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for no other
    message = error.detail
    if message == "Not Found":
        message = f"The requested resource {request.url.path} was not found"
    elif message == "Method Not Allowed":
        message = f"{request.method}: expected another method for {request.url.path}"
    code = error.code if isinstance(error, ApiError) else _code(error.status_code)
    return error_response(error.status_code, message, code, error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    return error_response(500, "Internal server error", 20500)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # For nobody to read.


HANDLERS: Final[dict[Any, Callable[[Request, Any], Coroutine[Any, Any, Response]]]] = {
    HTTPException: _http,
    ClientDisconnect: _gone,
    Exception: _unexpected,
}
"""To be given to an application."""
