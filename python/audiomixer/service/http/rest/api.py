"""The API as a whole, and its description (OpenAPI 3.1)."""

import re
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from audiomixer.service.http.errors import HANDLERS
from audiomixer.service.http.rest import (
    media_processors,
    participants,
    player_streamers,
    recordings,
    rooms,
    sources,
    workers,
)
from audiomixer.service.http.rest.gate import Gate
from audiomixer.service.http.rest.handlers import API_HANDLERS
from audiomixer.service.service import Service


class Api(FastAPI):
    """FastAPI, whose description is made true where it is not."""

    def openapi(self) -> dict[str, Any]:
        """The description: bad input is answered with 400, and a form need not be sent where nothing is required."""
        if self.openapi_schema:
            return self.openapi_schema
        description = super().openapi()
        schemas = description["components"]["schemas"]
        for operations in description["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                for content in operation.get("requestBody", {}).get("content", {}).values():
                    form = schemas[content["schema"]["$ref"].rpartition("/")[2]]
                    operation["requestBody"]["required"] = bool(form.get("required"))
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        return description

    def methods(self, path: str) -> str:
        """The methods that a path has."""
        for template, operations in self.openapi()["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
                return ", ".join(method.upper() for method in operations)
        return ""


def create_api(service: Service) -> FastAPI:
    """The application to be mounted at `/v1`."""
    api = Api(
        title="audiomixer",
        version="1",
        description="Rooms, mixers and streams, as the API of the retired Twilio Live had them.",
        exception_handlers=API_HANDLERS | {405: _method_not_allowed},
        docs_url=None,
        redoc_url=None,
    )
    for router in (
        media_processors.router,
        player_streamers.router,
        player_streamers.open_router,
        rooms.router,
        participants.router,
        sources.router,
        recordings.router,
        recordings.host_router,
        workers.router,
    ):
        api.include_router(router)
    api.add_middleware(Gate, service=service)
    api.state.service = service
    return api


async def _method_not_allowed(request: Request, error: HTTPException) -> Response:
    """With all methods of the path, of which the router names only those of the first route."""
    api: Api = request.app
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    error.headers = {"Allow": api.methods(path)}
    return await HANDLERS[HTTPException](request, error)
