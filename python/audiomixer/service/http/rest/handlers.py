"""Errors of the API beyond those that all of the service has."""

import logging
import re
from typing import Final

from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.requests import Request
from starlette.responses import Response

from audiomixer.service.http.errors import HANDLERS, error_response
from audiomixer.service.jobs import AwayError
from audiomixer.service.resources.store import StoreClosedError

_log = logging.getLogger(__name__)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for no other
    problems = [
        f"{'.'.join(str(part) for part in e['loc'][1:]) or 'body'}: {_expected(e['msg'])}" for e in error.errors()
    ]
    return error_response(400, "; ".join(problems), 20001)


def _expected(message: str) -> str:
    """What was wrong, in the words of all our errors."""
    if message == "Field required":
        return "expected a value, got none"
    # "Input should be a valid integer, unable to parse string as an integer"
    what = message.removeprefix("Value error, ").partition(", unable")[0]
    return re.sub("^(Input|String) should (be|have|match) ", "expected ", what)


async def _no_database(request: Request, error: Exception) -> Response:
    _log.error("the database does not answer: %s", error)
    return error_response(503, "The database does not answer", 20503, {"Retry-After": "5"})


async def _stopping(request: Request, error: Exception) -> Response:
    return error_response(503, "The service is stopping", 20503, {"Retry-After": "5"})


async def _away(request: Request, error: Exception) -> Response:
    return error_response(503, str(error), 20503, {"Retry-After": "2"})


API_HANDLERS: Final = HANDLERS | {
    RequestValidationError: _invalid,
    OperationalError: _no_database,
    InterfaceError: _no_database,
    StoreClosedError: _stopping,
    AwayError: _away,
}
"""To be given to an application with a database."""
