"""A worker: a process that mixes, streams and has rooms, as another tells it to."""

import asyncio
import contextlib
import gc
import hmac
import logging
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from audiomixer.clock.bus import process_pacer
from audiomixer.clock.pacer import clock
from audiomixer.clock.tasks import spawn
from audiomixer.rooms.base import RoomEvent
from audiomixer.rooms.local import LocalRooms
from audiomixer.service import logs
from audiomixer.service.cluster.reports import VERSION, Greeting, Happening, Journal, Report
from audiomixer.service.http.endpoints import media_app
from audiomixer.service.http.errors import error_response
from audiomixer.service.http.server import allow_many_files, serving
from audiomixer.service.jobs import Job, Progress
from audiomixer.service.local_engine import LocalEngine
from audiomixer.service.outbound import Outbound
from audiomixer.service.resources.checkpoints import RESERVE
from audiomixer.service.settings import Settings
from audiomixer.service.streams import Streams

SECRET_HEADER: Final = "x-audiomixer-cluster"  # noqa: S105 - its name
"""What a request has to carry that was forwarded."""
NETWORK_HEADER: Final = "x-audiomixer-network"
"""Whose it was, of `limits`."""
_OF_THE_NODE: Final = ("ice_addresses", "ice_announced")
"""Settings that a node's own environment may say otherwise."""
_LOOK: Final = 1.0
"""Seconds between two looks at how busy it is."""
_ABANDONED: Final = RESERVE / 2.0
"""Seconds without a word after which it ends its jobs: as long as the sequence numbers last that are reserved. Whoever
goes on with them uses others."""

_log = logging.getLogger(__name__)


class Worker:
    """Everything that one process has. All but making it happens on its event loop.

    Args:
        fields: The settings of the service.
        host: The address that the service listens on, where media is offered unless settings say otherwise.
        address: The node's, where requests are forwarded to.
        index: Which it is of the node's; it has the media port that many above the first.
        secret: What forwarded requests carry.
    """

    def __init__(self, fields: Mapping[str, Any], host: str, address: str, index: int, secret: str) -> None:
        own = {name for name in _OF_THE_NODE if os.environ.get(f"AUDIOMIXER_{name.upper()}")}
        known = {name: value for name, value in fields.items() if name in Settings.model_fields and name not in own}
        self._settings = Settings(**known)
        if self._settings.media_port:
            self._settings.media_port += index
        if not own:
            addresses = self._settings.ice_addresses
            self._settings.ice_addresses = [one for one in addresses if _is_ours(str(one))]
        self._host = host
        self._address = address
        self._secret = secret
        self._incarnation = secrets.token_hex(8)
        self._draining = False
        self._starting = asyncio.Lock()
        self._running: contextlib.AsyncExitStack | None = None
        self._jobs: dict[str, Job] = {}
        self._elsewhere: dict[str, set[str]] = {}
        self._share = 0.0
        self._heard = clock()
        """When control was heard of last."""

    async def hello(self) -> tuple[int, Any]:
        """The version of what it understands, and its `Greeting`."""
        async with self._starting:
            if self._running is None:
                self._running = await self._start()
        self._heard = clock()
        return VERSION, Greeting(
            incarnation=self._incarnation,
            url=self._url,
            media_port=self._ice.port or 0,
            process=os.getpid(),
            draining=self._draining,
            number=self._journal.number,
            jobs=dict(self._jobs),
            elsewhere={sid: sorted(identities) for sid, identities in self._elsewhere.items()},
            rooms=self._rooms.present(),
        )

    async def _start(self) -> contextlib.AsyncExitStack:
        logs.set_up(self._settings.log_format)
        allow_many_files()
        gc.collect()
        gc.freeze()
        self._journal = Journal()
        self._ice = self._settings.ice(self._host)
        self._rooms = LocalRooms(self._ice, _Door(self._journal))
        self._streams = Streams(self._rooms, max_listeners=self._settings.max_listeners)
        self._engine = LocalEngine(self._streams, Outbound(self._settings.allowed_networks), self._settings)
        self._engine.on_room_event = self._told
        running = contextlib.AsyncExitStack()
        self._ice.open()
        app = _Forwarded(media_app(self._streams), self._secret)
        self._url = await running.enter_async_context(serving(app, self._address, 0))
        running.callback(spawn(self._look_for_ever()).cancel)
        if self._ice.servers:
            running.callback(spawn(self._ice.watch()).cancel)
        return running

    async def _look_for_ever(self) -> None:
        """Sees how busy it is, and that somebody still wants its work."""
        busy, then = process_pacer().busy, clock()
        while True:
            await asyncio.sleep(_LOOK)
            now = clock()
            self._share = (process_pacer().busy - busy) / (now - then)
            busy, then = process_pacer().busy, now
            if self._jobs and now - self._heard > _ABANDONED:
                _log.critical("nobody asked for %.0f s: what goes on here is ended", now - self._heard)
                for sid in list(self._jobs):
                    await self.stop(sid, to_resume=True)

    def _told(self, sid: str, event: RoomEvent) -> None:
        present = self._elsewhere.setdefault(sid, set())
        if event.what == "participant-joined":
            present.add(event.identity)
        elif event.what == "participant-left":
            present.discard(event.identity)
        self._journal.add(Happening("told", sid, event=event))

    async def report(self, after: int, patience: float) -> Report:
        """How it gets on, and what has happened after that number: at once if something has, or in so many seconds."""
        self._heard = clock()
        happenings = await self._journal.after(after, patience)
        return Report(
            incarnation=self._incarnation,
            number=self._journal.number,
            happenings=happenings,
            progress=self._engine.progress(),
            rooms=list(self._rooms.present()),
            streams=self._engine.streams(),
            load=self._engine.load(),
            share=self._share,
        )

    async def start(self, job: Job) -> Progress:
        """Starts a job; how far it is then."""
        await self._engine.start(job)
        self._jobs[job.sid] = job
        return self._engine.progress()[job.sid]

    async def drop(self, sid: str, output: str) -> None:
        """Ends one output of a job."""
        await self._engine.drop(sid, output)

    async def stop(self, sid: str, *, to_resume: bool = False) -> None:
        """Ends a job."""
        self._jobs.pop(sid, None)
        self._elsewhere.pop(sid, None)
        await self._engine.stop(sid, to_resume=to_resume)

    async def reserve(self, limits: Mapping[str, int]) -> None:
        """Lets jobs give sequence numbers below these."""
        await self._engine.reserve(limits)

    async def leave_room(self, sid: str) -> None:
        """Has a job leave its room."""
        self._elsewhere.pop(sid, None)
        self._engine.leave_room(sid)

    async def insert(self, stream: str, text: str) -> None:
        """Inserts a payload into a stream."""
        await self._engine.insert(stream, text)

    async def end_room(self, name: str) -> None:
        """Ends a room of ours."""
        await self._rooms.end(name)

    async def expel(self, resource: str) -> bool:
        """Has a participant leave."""
        return await self._rooms.leave(resource)

    async def drain(self, draining: bool) -> None:
        """Remembers whether it is to get nothing new."""
        self._draining = draining

    async def close(self) -> None:
        """Ends everything."""
        for sid in list(self._jobs):
            await self.stop(sid, to_resume=True)
        if self._running:
            await self._engine.close()
            await self._running.aclose()
            self._ice.close()


def _is_ours(address: str) -> bool:
    """Whether an address is one of this machine's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


class _Door:
    """Lets in whom control has let in, and notes who comes and goes."""

    is_open = False

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @contextlib.asynccontextmanager
    async def admit(self, room: str, token: str | None, identity: str | None) -> AsyncGenerator[tuple[str, str]]:
        """Everybody who is forwarded."""
        yield room, identity or ""

    async def check(self, room: str, token: str | None) -> str:
        """Everybody may know."""
        return room

    def joined(self, room: str, resource: str, identity: str) -> None:
        """Notes it."""
        self._journal.add(Happening("joined", room, resource, identity))

    def left(self, room: str, resource: str) -> None:
        """Notes it."""
        self._journal.add(Happening("left", room, resource))


class _Forwarded:
    """Takes requests that control forwards, and no others."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app = app
        self._secret = secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        if not hmac.compare_digest(headers.get(SECRET_HEADER.encode(), b""), self._secret):
            await error_response(403, "This is for the service's own use", 20003)(scope, receive, send)
            return
        scope.setdefault("state", {})["network"] = headers.get(NETWORK_HEADER.encode(), b"").decode("latin-1")
        await self._app(scope, receive, send)
