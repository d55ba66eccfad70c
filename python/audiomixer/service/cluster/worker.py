"""A worker: a process that mixes, streams and has rooms, as another tells it to."""

import asyncio
import contextlib
import gc
import hashlib
import hmac
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

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
from audiomixer.service.jobs import Job, Progress, RecordingOrder
from audiomixer.service.local_engine import LocalEngine
from audiomixer.service.outbound import Outbound
from audiomixer.service.playing import Opener
from audiomixer.service.recorder import Recorder, place_of
from audiomixer.service.resources.checkpoints import RESERVE
from audiomixer.service.settings import Settings
from audiomixer.service.streams import Streams

SECRET_HEADER: Final = "x-audiomixer-cluster"  # noqa: S105 - its name
"""What a request has to carry that was forwarded."""
NETWORK_HEADER: Final = "x-audiomixer-network"
"""Whose it was, of `limits`."""
_KEPT: Final = ("account_sid", "api_key", "api_secret", "database_url", "engine", "ray_address", "data")
"""Settings that workers have no use for."""
_DESK: Final = ("adjust", "vitals", "loudness", "remove", "play", "sources", "steer")
_LOOK: Final = 1.0
"""Seconds between two looks whether somebody has asked."""
_ABANDONED: Final = RESERVE / 2.0
"""Seconds without a word after which it ends its jobs: as long as the sequence numbers last that are reserved. Whoever
goes on with them uses others."""

_log = logging.getLogger(__name__)


class Worker:
    """Everything that one process has. All but making it happens on its event loop.

    Args:
        fields: Of `worker_settings`.
        host: The address that the service listens on, where media is offered unless settings say otherwise.
        address: The node's, where requests are forwarded to.
        index: Which it is of the node's; it has the media port that many above the first.
    """

    def __init__(self, fields: Mapping[str, Any], host: str, address: str, index: int) -> None:
        # What a machine's own environment says of its addresses comes first.
        own = {name for name in ("ice_addresses", "ice_announced") if os.environ.get(f"AUDIOMIXER_{name.upper()}")}
        known = {name: value for name, value in fields.items() if name in Settings.model_fields and name not in own}
        self._settings = Settings(**known)
        if self._settings.media_port:
            self._settings.media_port += index
        if "ice_addresses" not in own:
            addresses = self._settings.ice_addresses
            self._settings.ice_addresses = [one for one in addresses if _is_ours(str(one))]
        self._host = host if _is_ours(host) else "0.0.0.0"  # noqa: S104 - all of this machine's, as the service
        self._address = address
        self._secret = self._settings.auth_token
        self._incarnation = secrets.token_hex(8)
        self._draining = False
        self._starting = asyncio.Lock()
        self._running: contextlib.AsyncExitStack | None = None
        self._jobs: dict[str, Job] = {}
        self._elsewhere: dict[str, set[str]] = {}
        self._heard = clock()
        """When control was heard of last."""

    async def version(self) -> int:
        """The version of what it says, and understands."""
        return VERSION

    async def hello(self) -> Greeting:
        """What it is, and what it is at."""
        async with self._starting:
            if self._running is None:
                self._running = await self._start()
        self._heard = clock()
        return Greeting(
            incarnation=self._incarnation,
            url=self._url,
            addresses=self._ice.addresses,
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
        outbound = Outbound(self._settings.allowed_networks)
        place = place_of(self._settings.recordings) if self._settings.recordings else None
        recorder = Recorder(place, _spool_of(self._settings), self._settings.spool_limit)
        self._engine = LocalEngine(self._streams, outbound, self._settings, recorder)
        await self._engine.open()
        self._engine.on_room_event = self._told
        self._rooms.opener = Opener(outbound)
        running = contextlib.AsyncExitStack()
        self._ice.open()
        app = _Forwarded(media_app(self._streams), self._secret)
        self._url = await running.enter_async_context(serving(app, self._address, 0, proxies="*"))
        running.callback(spawn(self._look_for_ever()).cancel)
        if self._ice.servers:
            running.callback(spawn(self._ice.watch()).cancel)
        return running

    async def _look_for_ever(self) -> None:
        """Sees that somebody still wants its work."""
        while True:
            await asyncio.sleep(_LOOK)
            silence = clock() - self._heard
            if self._jobs and silence > _ABANDONED:
                _log.critical("nobody asked for %.0f s: what goes on here is ended", silence)
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
            share=process_pacer().share,
            recordings=self._engine.recordings(),
        )

    async def start(self, job: Job) -> Progress:
        """Starts a job; how far it is then.

        Raises:
            ValueError: It has been started.
            Exception: It cannot be started; nothing is left of it then.
        """
        if job.sid in self._jobs:
            raise ValueError(f"job: expected one that is not at work, got {job.sid}")
        # Control may end meanwhile: the next has to know.
        self._jobs[job.sid] = job
        try:
            await self._engine.start(job)
        except BaseException:
            del self._jobs[job.sid]
            raise
        return self._engine.progress()[job.sid]

    async def drop(self, sid: str, output: str) -> None:
        """Ends one output of a job."""
        if job := self._jobs.get(sid):
            self._jobs[sid] = replace(job, outputs=tuple(other for other in job.outputs if other != output))
        await self._engine.drop(sid, output)

    async def stop(self, sid: str, *, to_resume: bool = False) -> None:
        """Ends a job."""
        await self._engine.stop(sid, to_resume=to_resume)
        self._jobs.pop(sid, None)
        self._elsewhere.pop(sid, None)

    async def record(self, sid: str, order: RecordingOrder) -> None:
        """Begins to record a job's mix."""
        await self._engine.record(sid, order)
        if job := self._jobs.get(sid):
            self._jobs[sid] = job.recorded(order)

    async def finish(self, sid: str, recording: str) -> None:
        """Ends a recording."""
        if job := self._jobs.get(sid):
            self._jobs[sid] = job.without(recording)
        await self._engine.finish(sid, recording)

    async def acknowledge(self, keys: Collection[str]) -> None:
        """It is known that these are stored."""
        await self._engine.acknowledge(keys)

    async def reserve(self, limits: Mapping[str, int]) -> None:
        """Lets jobs give sequence numbers below these."""
        await self._engine.reserve(limits)

    async def leave_room(self, sid: str) -> None:
        """Has a job leave its room."""
        if job := self._jobs.get(sid):
            self._jobs[sid] = replace(job, room=None)
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

    async def at_desk(self, of: Literal["room", "job"], method: str, *given: Any, **named: Any) -> Any:
        """What a `Desk` has, or `Hosted` of what is played: of rooms of ours, or of jobs."""
        if method not in _DESK:
            raise ValueError(f"method: expected one of {_DESK}, got {method!r}")
        return await getattr(self._rooms if of == "room" else self._engine, method)(*given, **named)

    async def drain(self, draining: bool) -> None:
        """Remembers whether it is to get nothing new."""
        self._draining = draining

    async def close(self) -> None:
        """Ends everything."""
        await asyncio.gather(*(self.stop(sid, to_resume=True) for sid in list(self._jobs)))
        if self._running:
            await self._engine.close()
            await self._running.aclose()
            self._ice.close()


def worker_settings(settings: Settings, *, one_machine: bool) -> dict[str, Any]:
    """What workers are told of the settings: no more of what is secret than they need.

    Args:
        settings: Complete ones.
        one_machine: Whether all of them are on this one, and what a router translates is theirs as well.
    """
    fields = settings.model_dump(mode="json", exclude=set(_KEPT))
    if "://" not in settings.recordings:
        is_given = one_machine or settings.recordings != str(settings.data / "recordings")
        fields["recordings"] = str(Path(settings.recordings).absolute()) if is_given else ""
    if one_machine:
        fields["spool"] = str((settings.spool or settings.data / "spool").absolute())
    if not one_machine:
        fields["ice_announced"] = None
    return fields | {"auth_token": cluster_secret(settings.auth_token)}


def cluster_secret(auth_token: str) -> str:
    """What control and its workers know one another by; nobody can tell the account's secret from it."""
    return hmac.new(auth_token.encode(), b"workers", hashlib.sha256).hexdigest()


def _is_ours(address: str) -> bool:
    """Whether an address is one of this machine's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _spool_of(settings: Settings) -> Path:
    """Where the workers of a service keep what they record; others find there what one has left."""
    whose = hashlib.sha256(settings.auth_token.encode()).hexdigest()[:8]
    return settings.spool or Path(tempfile.gettempdir()) / f"audiomixer-spool-{whose}"


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
        if scope["type"] not in {"http", "websocket"}:
            return
        headers = dict(scope["headers"])
        if not hmac.compare_digest(headers.get(SECRET_HEADER.encode(), b""), self._secret):
            await error_response(403, "This is for the service's own use", 20003)(scope, receive, send)
            return
        scope.setdefault("state", {})["network"] = headers.get(NETWORK_HEADER.encode(), b"").decode("latin-1")
        await self._app(scope, receive, send)
