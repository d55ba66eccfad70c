"""The whole service inside an application of one's own, under `/live`.

Run it, and open http://127.0.0.1:8000/; stop it with Ctrl-C.
"""

import contextlib
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import audiomixer.service
from audiomixer.service import Settings


async def home(request: Request) -> Response:
    return PlainTextResponse("An application of one's own, with audiomixer at /live/")


live = audiomixer.service.create_app(Settings())


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Optional: without it the service starts with its first request, and is not stopped in order."""
    async with live.router.lifespan_context(live):
        yield


app = Starlette(routes=[Route("/", home)], lifespan=lifespan)
app.mount("/live", live)

if __name__ == "__main__":
    uvicorn.run(app, port=8000)
