"""Receives status callbacks: slow, down or up as it is told, and remembers what came."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from audiomixer.service.http.server import serving


@dataclass
class Told:
    """A callback as it came."""

    method: str
    url: str
    parameters: Mapping[str, str]
    signature: str

    @property
    def event(self) -> str:
        return self.parameters["StatusCallbackEvent"]


@dataclass
class Receiver:
    url: str = ""
    told: list[Told] = field(default_factory=list)
    tries: int = 0
    status: int = 200
    delay: float = 0.0

    def events(self) -> list[str]:
        return [told.event for told in self.told]

    async def until(self, number: int, seconds: float = 10) -> None:
        """Waits until so many have come."""
        async with asyncio.timeout(seconds):
            while len(self.told) < number:
                await asyncio.sleep(0.02)

    async def handle(self, request: Request) -> Response:
        self.tries += 1
        form = await request.form()
        await asyncio.sleep(self.delay)
        if self.status == 200:
            parameters = {**request.query_params, **{name: str(value) for name, value in form.items()}}
            query = request.scope["query_string"].decode()
            url = f"{self.url}{request.scope['raw_path'].decode()}" + (f"?{query}" if query else "")
            self.told.append(Told(request.method, url, parameters, request.headers["X-Twilio-Signature"]))
        return Response(status_code=self.status)


@contextlib.asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = Starlette(routes=[Route("/{path:path}", receiver.handle, methods=["GET", "POST"])])
    async with serving(app, "127.0.0.1", port) as url:
        receiver.url = url
        yield receiver
