"""The whole service in this process, and a client of its API."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from audiomixer.auth.tokens import mint
from audiomixer.service import Settings, create_app
from audiomixer.service.http.server import serving
from audiomixer.service.service import Service

LOOPBACK = "127.0.0.0/8"
GIVEN: dict[str, Any] = {}
"""Settings of all services, unless a test has others."""


class Api:
    """Calls the API with the account's credentials, and expects success unless it is told otherwise."""

    def __init__(self, url: str, service: Service, client: httpx.AsyncClient) -> None:
        self.url = url
        self.service = service
        self.settings = service.settings
        self.client = client

    async def post(self, path: str, status: int = 201, **form: Any) -> Any:
        response = await self.client.post(f"{self.url}/v1/{path}", data={n: str(v) for n, v in form.items()})
        assert response.status_code == status, response.text
        return response.json()

    async def get(self, path: str, status: int = 200, **query: Any) -> Any:
        response = await self.client.get(f"{self.url}/v1/{path}", params=query)
        assert response.status_code == status, response.text
        return response.json()

    async def streamer(self, **form: Any) -> str:
        return str((await self.post("PlayerStreamers", **form))["sid"])

    async def processor(self, room: str, *outputs: str, status: int = 201, **form: Any) -> Any:
        context = {"room": {"name": room}, "outputs": list(outputs)} | form.pop("context", {})
        given = {"Extension": "audio-mixer-v2", "ExtensionContext": json.dumps(context)} | form
        return await self.post("MediaProcessors", status, **given)

    async def playback_url(self, streamer: str, **form: Any) -> str:
        return str((await self.post(f"PlayerStreamers/{streamer}/PlaybackGrant", **form))["grant"]["playbackUrl"])

    def token(self, identity: str, room: str | None = None, **more: Any) -> str:
        settings = self.settings
        return mint(
            settings.api_secret, identity, room, issuer=settings.api_key, account_sid=settings.account_sid, **more
        )

    def whip(self, room: str) -> str:
        return f"{self.url}/whip/{room}"

    async def metrics(self) -> dict[str, float]:
        """Each sample of `/metrics` by its name and labels; those of several workers are one."""
        totals: dict[str, float] = {}
        for line in (await self.client.get(f"{self.url}/metrics")).text.splitlines():
            if line.startswith("#"):
                continue
            name, _, value = line.rpartition(" ")
            name = re.sub(r',?worker="[^"]*"', "", name).replace("{,", "{").replace("{}", "")
            totals[name] = totals.get(name, 0) + float(value)
        return totals

    async def settle(self) -> None:
        """Waits until what was recorded in the background is on disk."""
        await asyncio.sleep(0.02)
        await self.service.rooms.recorded()


@contextlib.asynccontextmanager
async def running(data: Path, **settings: Any) -> AsyncIterator[Api]:
    """A service with its data in a folder; it stops in order when the block is left."""
    # Workers on other machines, which is what those on Ray seem to be, have to be told.
    usual = {"data": data, "recordings": str(data / "kept")}
    given = usual | {"allowed_networks": LOOPBACK, "requests_per_second": 1000} | GIVEN | settings
    app = create_app(Settings(**given))
    service: Service = app.state.service
    await service.start()
    app.state.streams = service.streams
    async with serving(app, "127.0.0.1", 0, on_stop=service.close) as url:
        auth = (service.settings.account_sid, service.settings.auth_token)
        async with httpx.AsyncClient(auth=auth, timeout=20, limits=httpx.Limits(max_keepalive_connections=1)) as client:
            yield Api(url, service, client)
