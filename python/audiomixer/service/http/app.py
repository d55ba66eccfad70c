"""The service as an ASGI application: the REST API, media, pages, metrics."""

import contextlib
import logging
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from audiomixer.service.http.endpoints import CORS, media_routes, page
from audiomixer.service.http.errors import error_response
from audiomixer.service.http.limits import RequestLimits
from audiomixer.service.http.rest.api import create_api
from audiomixer.service.http.rest.common import check_credentials, read_basic, service_of
from audiomixer.service.http.rest.handlers import API_HANDLERS
from audiomixer.service.http.sites import Headed
from audiomixer.service.metrics import render
from audiomixer.service.resources.store import StoreClosedError
from audiomixer.service.service import Service
from audiomixer.service.settings import Settings, load

_log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None, host: str = "0.0.0.0") -> Starlette:  # noqa: S104
    """The whole service, for any ASGI server, or to be mounted into another application.

    It starts with the server's lifespan, or else with the first request. Its `lifespan_context` starts it sooner where
    it is mounted: work that was under way when the last process ended goes on from then.

    Args:
        settings: From the environment and the file if None; what they leave out is made up and kept in `settings.data`.
        host: The address that the server listens on, where media is offered unless settings say otherwise; all of this
            machine's by default.

    Raises:
        ValueError: A setting is none; the message begins with its name.
    """
    settings = settings or load()
    if settings.complete():
        _log.warning("credentials were made, and are kept in %s", settings.data / "credentials.json")
    service = Service(settings, host)

    @contextlib.asynccontextmanager
    async def lifespan(app: ASGIApp) -> AsyncIterator[None]:
        await _start(app.state, service)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            await service.close()

    app = Starlette(
        routes=[
            Mount("/v1", create_api(service)),
            Route("/metrics", _metrics),
            Route("/console/{name}", _console),
            *_media_routes(service),
        ],
        middleware=[
            Middleware(Headed),
            CORS,
            Middleware(RequestLimits, rate=settings.requests_per_second, proxies=settings.proxies),
            Middleware(_Started, service=service),
        ],
        exception_handlers=API_HANDLERS,
        lifespan=lifespan,
    )
    app.state.service = service
    app.state.guard = _guard
    app.state.prefix = urlsplit(settings.public_url or "").path.rstrip("/")
    return app


def _media_routes(service: Service) -> list[BaseRoute]:
    """Of this process, or of its workers."""
    if service.cluster is None:
        return media_routes()
    from audiomixer.service.cluster.forwarding import forwarding_routes

    return forwarding_routes(service.cluster)


async def _start(state: object, service: Service) -> None:
    await service.start()
    state.streams = service.streams  # type: ignore[attr-defined]


class _Started:
    """Starts the service before its first request, if nothing has."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A probe that had to wait until everything has been resumed would have the process killed.
        is_asked = scope["type"] in {"http", "websocket"}
        if is_asked and scope["path"].removeprefix(scope.get("root_path", "")) != "/healthz":
            try:
                await _start(scope["app"].state, self._service)
            except StoreClosedError:
                await error_response(503, "The service is stopping", 20503)(scope, receive, send)
                return
            except OperationalError:
                _log.exception("the service cannot start")
                again = {"Retry-After": "5"}
                await error_response(503, "The service's database is away", 20503, again)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _guard(request: Request) -> None:
    """What rooms and streams there are is for who has the API's credentials."""
    check_credentials(service_of(request), read_basic(request.headers.get("authorization", "")))


async def _console(request: Request) -> Response:
    """A host's console; what it shows and does asks for a host's token."""
    return page("console.html")


async def _metrics(request: Request) -> Response:
    _guard(request)
    return Response(render(service_of(request)), media_type="text/plain; version=0.0.4")
