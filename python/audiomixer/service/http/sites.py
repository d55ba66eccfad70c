"""What browsers are told, and asked, so that pages of other sites cannot do what their visitors would not."""

import contextlib
import ipaddress
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audiomixer.service.http.errors import error_response

_ALWAYS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_ROOMS: Final = ("/whip/", "/rooms/", "/pcm/", "/overview.json")
_NEAR: Final = (".localhost", ".local", ".lan", ".internal", ".home.arpa")
_POLICY: Final = (
    "default-src 'self'; connect-src 'self'; media-src 'self' blob: mediastream:; img-src 'self' data:;"
    " object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)


class Headed:
    """Adds the headers that every answer should have, and to pages what they may load and be framed by."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""

        async def send_headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
                if headers.get("content-type", "").startswith("text/html"):
                    headers.setdefault("Content-Security-Policy", _POLICY)
            await send(message)

        await self._app(scope, receive, send_headed)


class OwnSite:
    """Keeps rooms from other sites' pages, and from names that only seem to be this machine's (DNS rebinding).

    For servers that need no tokens: to be reached from a machine is all that is asked for there, and any page that is
    open on that machine can do that. Streams are for every site, by their SIDs, which cannot be guessed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        problem = None
        is_asked = scope["type"] in {"http", "websocket"}
        if is_asked and scope["path"].removeprefix(scope.get("root_path", "")).startswith(_ROOMS):
            problem = _problem(scope)
        if problem:
            await error_response(403, problem, 20003)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _problem(scope: Scope) -> str | None:
    headers = Headers(scope=scope)
    host = _hostname(f"//{headers.get('host', '')}")
    client = (scope.get("client") or ("",))[0]
    if not (_is_loopback(host) if _is_loopback(client) else _is_near(host)):
        own = "localhost" if _is_loopback(client) else "an address, or a name of this network"
        return f"Host: expected {own}, got {host!r}: without a secret, this server is not for names of the internet"
    origin = headers.get("origin")
    if origin is None:
        return None
    site = _hostname(origin)
    if site != host and not (_is_loopback(site) and _is_loopback(host)):
        return "Origin: expected no other site's: without a secret, anybody's page could listen in"
    return None


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_near(host: str) -> bool:
    """Whether it is no name that anybody can have in the DNS, and have it lead here."""
    if "." not in host or host.endswith(_NEAR):
        return True
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
