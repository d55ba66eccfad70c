"""The service as an ASGI application: the REST API, media, pages, metrics."""

import base64
import binascii
import contextlib
from collections.abc import AsyncIterator

from fastapi.security import HTTPBasicCredentials
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from audiomixer.service.errors import HANDLERS
from audiomixer.service.limits import RequestLimits
from audiomixer.service.media import CORS, media_routes
from audiomixer.service.metrics import render
from audiomixer.service.rest.api import create_api
from audiomixer.service.rest.common import check_credentials, service_of
from audiomixer.service.service import Service
from audiomixer.service.settings import Settings, load


def create_app(settings: Settings | None = None, host: str = "127.0.0.1") -> Starlette:
    """The whole service, for any ASGI server, or to be mounted into another application.

    It starts with the server's lifespan, or else with the first request. Its `lifespan_context` starts it sooner where
    it is mounted: work that was under way when the last process ended goes on from then.

    Args:
        settings: From the environment and the file if None; what they leave out is made up and kept in `settings.data`.
        host: The address that the server listens on, where media is offered unless settings say otherwise.

    Raises:
        ValueError: A setting is none; the message begins with its name.
    """
    settings = settings or load()
    settings.complete()
    service = Service(settings, host)

    @contextlib.asynccontextmanager
    async def lifespan(app: ASGIApp) -> AsyncIterator[None]:
        await _start(app.state, service)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            await service.close()

    app = Starlette(
        routes=[Mount("/v1", create_api(service)), Route("/metrics", _metrics), *media_routes()],
        middleware=[
            CORS,
            Middleware(RequestLimits, rate=settings.requests_per_second, proxies=settings.proxies),
            Middleware(_Started, service=service),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.state.service = service
    app.state.guard = _guard
    return app


async def _start(state: object, service: Service) -> None:
    await service.start()
    state.streams = service.streams  # type: ignore[attr-defined]


class _Started:
    """Starts the service before its first request, if nothing has."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _start(scope["app"].state, self._service)
        await self._app(scope, receive, send)


def _guard(request: Request) -> None:
    """What rooms and streams there are is for who has the API's credentials."""
    check_credentials(service_of(request), _basic(request.headers.get("authorization", "")))


def _basic(header: str) -> HTTPBasicCredentials | None:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    with contextlib.suppress(binascii.Error, UnicodeDecodeError):
        username, colon, password = base64.b64decode(encoded).decode().partition(":")
        if colon:
            return HTTPBasicCredentials(username=username, password=password)
    return None


async def _metrics(request: Request) -> Response:
    return Response(render(service_of(request)), media_type="text/plain; version=0.0.4")
