"""What all resources of the API share: credentials, forms, lists, timestamps."""

import base64
import contextlib
import hmac
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Final, Generic, Literal, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from sqlalchemy import Select, and_, or_
from sqlalchemy.orm import Session

from audiomixer.service.http.errors import ApiError
from audiomixer.service.resources.callbacks import iso
from audiomixer.service.service import Service

_PAGE_TOKEN: Final = re.compile(r"P([AB])([A-Z]{2}[0-9a-f]{32})")
_LONGEST_TEXT: Final = 16 * 1024
_FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")

T = TypeVar("T", bound=BaseModel)


class Problem(BaseModel):
    """An error."""

    code: int
    message: str
    more_info: str
    status: int


ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "A parameter is not what was expected; the message names it."},
    401: {"model": Problem, "description": "The credentials are missing or wrong."},
    413: {"model": Problem, "description": "The request is too long."},
    429: {"model": Problem, "description": "Too many requests, or too many resources at once."},
    503: {"model": Problem, "description": "The service cannot answer just now."},
}
"""What every operation may answer besides."""
NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": Problem, "description": "There is no such resource."}
}

optional_basic = HTTPBasic(auto_error=False, description="Account SID and auth token, or API key and its secret.")
"""Reads credentials if there are any."""


def service_of(request: Request) -> Service:
    """The service behind the application."""
    service: Service = request.app.state.service
    return service


def authenticate(
    request: Request, credentials: Annotated[HTTPBasicCredentials | None, Depends(optional_basic)]
) -> None:
    """Sees that a request has the account's or the API key's credentials.

    Raises:
        ApiError: It has not.
    """
    check_credentials(service_of(request), credentials)
    _check_site(request)
    check_form(request)


def check_form(request: Request) -> None:
    """Sees that what is posted is a form.

    Raises:
        ApiError: It is not.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind not in _FORMS and request.headers.get("content-length", "0") != "0":
        raise ApiError(400, f"Content-Type: expected {_FORMS[0]}, got {kind or 'none'}")


def _check_site(request: Request) -> None:
    """Refuses forms that pages of other sites send: browsers keep credentials, and would send them along."""
    if request.method in {"GET", "HEAD"}:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    own = {f"{request.url.scheme}://{request.url.netloc}", "/".join(base_url(request).split("/")[:3])}
    if site not in {None, "same-origin", "none"} or (origin is not None and origin not in own):
        raise ApiError(403, "Origin: expected no other site's")


def read_basic(header: str) -> HTTPBasicCredentials | None:
    """Credentials in an Authorization header; None if there are none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    with contextlib.suppress(ValueError):
        username, colon, password = base64.b64decode(encoded).decode().partition(":")
        if colon:
            return HTTPBasicCredentials(username=username, password=password)
    return None


def check_credentials(service: Service, credentials: HTTPBasicCredentials | None) -> None:
    """The same, for credentials that were read already."""
    settings = service.settings
    good = {settings.account_sid: settings.auth_token, settings.api_key: settings.api_secret}
    given = (credentials.username, credentials.password) if credentials else ("", "")
    secret = good.get(given[0])
    if secret is None or not hmac.compare_digest(secret.encode(), given[1].encode()):
        raise ApiError(
            401,
            "Authentication: expected account SID and auth token, or API key and secret",
            headers={"WWW-Authenticate": 'Basic realm="audiomixer"'},
        )


TheService = Annotated[Service, Depends(service_of)]


def _printable(text: str) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > _LONGEST_TEXT:
        raise ValueError(f"expected at most {_LONGEST_TEXT} bytes")
    if any(ord(character) < 32 and character not in "\t\r\n" for character in text):
        raise ValueError("expected text without control characters")
    if any(0xD800 <= ord(character) < 0xE000 for character in text):
        raise ValueError("expected Unicode text")
    return text


Text = Annotated[str, AfterValidator(_printable)]
Method = Annotated[Literal["POST", "GET"], BeforeValidator(lambda given: _cased(given, str.upper))]


def _cased(given: Any, case: Callable[[str], str]) -> Any:
    return case(given) if isinstance(given, str) else given


LowerCase = BeforeValidator(lambda given: _cased(given, str.lower))
"""Takes a word in any letter case."""


def duration(longest: int) -> Any:
    """A number of seconds in a form."""
    return Field(ge=1, le=longest)


class Form(BaseModel):
    """Parameters of a request; unknown ones are ignored, as old applications send some."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, given: Any) -> Any:
        """Refuses what seems to be misspelt: ignored, it would be missed."""
        known = {field.alias or name for name, field in cls.model_fields.items()}
        for name in given if isinstance(given, dict) else ():
            if name not in known and (near := get_close_matches(name, known, 1, 0.9)):
                raise ApiError(400, f"{name}: expected {near[0]}")
        return given


async def callback_url(service: Service, url: str | None) -> str | None:
    """A `StatusCallback` that may be called; empty is none.

    Raises:
        ApiError: It may not.
    """
    if not url:
        return None
    try:
        return await service.outbound.check(url, "StatusCallback", ("http", "https"))
    except ValueError as error:
        raise ApiError(400, str(error)) from None


def is_sid(prefix: str, text: str) -> bool:
    """Whether it can be a SID."""
    return re.fullmatch(prefix + "[0-9a-f]{32}", text) is not None


def not_found(request: Request) -> ApiError:
    """The error for what is not there."""
    return ApiError(404, f"The requested resource {request.url.path} was not found")


def stamp(seconds: float) -> str:
    """A timestamp of the API."""
    return iso(seconds)


def base_url(request: Request) -> str:
    """The URL of the service, as clients see it: the setting, or what this request went to."""
    public = service_of(request).settings.public_url
    if public:
        return public
    root = str(request.scope.get("root_path", "")).removesuffix("/v1")
    return f"{request.url.scheme}://{request.url.netloc}{root}"


class Meta(BaseModel):
    """Where the pages of a list are."""

    first_page_url: str
    next_page_url: str | None
    page: int
    page_size: int
    previous_page_url: str | None
    url: str
    key: str


class PageQuery(BaseModel):
    """Which page of a list is wanted."""

    model_config = ConfigDict(populate_by_name=True)

    order: Annotated[Literal["asc", "desc"], LowerCase] = Field("desc", alias="Order")
    size: int = Field(50, alias="PageSize", ge=1, le=1000)
    page: int = Field(0, alias="Page", ge=0, le=1_000_000)
    token: str = Field("", alias="PageToken", pattern=r"^(P[AB][A-Z]{2}[0-9a-f]{32})?$")


class Page(Generic[T]):
    """A page of rows of a table: those after, or before, the row that the token names."""

    def __init__(self, query: PageQuery, table: Any, when: Any) -> None:
        self._query = query
        self._table = table
        self._when = when

    def read(self, session: Session, rows: Select[Any]) -> tuple[list[Any], bool, bool]:
        """The rows, and whether there are more before and after."""
        query, key = self._query, (self._when, self._table.sid)
        found = _PAGE_TOKEN.fullmatch(query.token)
        backwards = bool(found and found[1] == "B")
        ascending = (query.order == "asc") != backwards
        ordered = rows.order_by(*(column.asc() if ascending else column.desc() for column in key))
        if found:
            anchor = session.get(self._table, found[2])
            if anchor is None:
                raise ApiError(400, "PageToken: expected one that a list gave")
            ordered = ordered.where(_beyond(key, (getattr(anchor, self._when.key), anchor.sid), ascending))
        else:
            ordered = ordered.offset(query.page * query.size)
        page = list(session.scalars(ordered.limit(query.size + 1)))
        more, page = len(page) > query.size, page[: query.size]
        if backwards:
            return page[::-1], more, True
        return page, query.page > 0, more

    def meta(self, url: str, key: str, rows: Sequence[Any], before: bool, after: bool, **filters: str | None) -> Meta:
        """Where the neighbours of the page are."""
        query = self._query

        def page_url(page: int, token: str = "") -> str:
            given = {**filters, "Order": query.order, "PageSize": query.size, "Page": max(0, page), "PageToken": token}
            return f"{url}?{urlencode({name: value for name, value in given.items() if value not in (None, '')})}"

        return Meta(
            first_page_url=page_url(0),
            next_page_url=page_url(query.page + 1, f"PA{rows[-1].sid}") if after and rows else None,
            page=query.page,
            page_size=query.size,
            previous_page_url=page_url(query.page - 1, f"PB{rows[0].sid}") if before and rows else None,
            url=page_url(query.page, query.token),
            key=key,
        )


def _beyond(columns: Sequence[Any], values: Sequence[Any], ascending: bool) -> Any:
    """Rows after, in this order, the one with these values."""
    when, row_sid = columns
    at, anchor = values
    if ascending:
        return or_(when > at, and_(when == at, row_sid > anchor))
    return or_(when < at, and_(when == at, row_sid < anchor))


Paging = Annotated[PageQuery, Query()]
Authenticated = Depends(authenticate)
