"""`/v1/PlayerStreamers`, their playback grants, and their timed metadata."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal

import fastapi
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBasicCredentials
from pydantic import BaseModel, Field
from sqlalchemy import select

from audiomixer.auth.tokens import TokenError
from audiomixer.auth.turnstile import OriginError
from audiomixer.service.http.endpoints import events
from audiomixer.service.http.errors import ApiError
from audiomixer.service.http.rest.common import (
    ERRORS,
    NOT_FOUND,
    Authenticated,
    Form,
    LowerCase,
    Meta,
    Method,
    Page,
    Paging,
    Text,
    TheService,
    base_url,
    callback_url,
    check_credentials,
    duration,
    is_sid,
    not_found,
    optional_basic,
    stamp,
)
from audiomixer.service.resources import lives
from audiomixer.service.resources.lifecycles import DURATION, LONGEST_DURATION
from audiomixer.service.resources.store import PlayerStreamer, now
from audiomixer.service.service import Service

router = APIRouter(tags=["PlayerStreamers"], responses=ERRORS, dependencies=[Authenticated])
open_router = APIRouter(tags=["PlayerStreamers"], responses=ERRORS)
"""Of what players may do as well, with a playback token."""

_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9A-Fa-f:]+\](:\d{1,5})?")
_LOOK_AGAIN: Final = 10.0
"""Seconds until the next look whether a stream may still start."""
Status = Literal["created", "started", "ended", "failed"]


class Links(BaseModel):
    """Where the parts of a PlayerStreamer are."""

    playback_grant: str


class Resource(BaseModel):
    """A PlayerStreamer."""

    account_sid: str
    date_created: str
    date_updated: str
    video: bool
    links: Links
    sid: str
    status: Status
    url: str
    status_callback: str | None
    status_callback_method: Method | None
    ended_reason: str | None
    max_duration: int


class Listing(BaseModel):
    """A page of PlayerStreamers."""

    player_streamers: list[Resource]
    meta: Meta


class Usage(BaseModel):
    """How much a PlayerStreamer has streamed."""

    sid: str
    streamed_minutes: float


class Grant(BaseModel):
    """What a player needs, as the access token holds it."""

    playbackUrl: str  # noqa: N815
    playerStreamerSid: str  # noqa: N815
    requestCredentials: None  # noqa: N815


class GrantResource(BaseModel):
    """A PlaybackGrant."""

    sid: str
    url: str
    account_sid: str
    date_created: str
    grant: Grant


class Create(Form):
    """What a new PlayerStreamer shall be like."""

    video: bool = Field(False, alias="Video", description="accepted; there is none")
    status_callback: Text | None = Field(None, alias="StatusCallback")
    status_callback_method: Method = Field("POST", alias="StatusCallbackMethod")
    max_duration: Annotated[int, duration(LONGEST_DURATION)] = Field(DURATION, alias="MaxDuration")


class Update(Form):
    """What shall become of a PlayerStreamer."""

    status: Annotated[Literal["ended"], LowerCase] = Field(alias="Status", description="ENDED")


class GrantForm(Form):
    """What a playback grant shall permit."""

    ttl: int = Field(15, alias="Ttl", ge=1, le=60, description="seconds within which playing has to start")
    origin: str = Field("", alias="AccessControlAllowOrigin", description="the only site whose pages may play")


class Insert(Form):
    """A payload of the application's own."""

    metadata: Text = Field(alias="Metadata", min_length=1, description="at most 1 KiB")


class Inserted(BaseModel):
    """What was inserted."""

    sid: str
    metadata: str


async def _find(
    request: Request, service: TheService, sid: Annotated[str, Path(alias="Sid", description="VJ…")]
) -> PlayerStreamer:
    found = await service.store.run(lambda session: session.get(PlayerStreamer, sid)) if is_sid("VJ", sid) else None
    if found is None:
        raise not_found(request)
    return found


Found = Annotated[PlayerStreamer, Depends(_find)]


@router.post("/PlayerStreamers", status_code=201)
async def create(request: Request, service: TheService, form: Annotated[Create, fastapi.Form()]) -> Resource:
    """Makes a PlayerStreamer, for a MediaProcessor to feed."""
    callback = await callback_url(service, form.status_callback)
    made = await service.streamers.create(form.video, form.max_duration, callback, form.status_callback_method)
    return _resource(request, service, made)


@router.get("/PlayerStreamers")
async def read_all(
    request: Request,
    service: TheService,
    paging: Paging,
    status: Annotated[Status | None, LowerCase, fastapi.Query(alias="Status")] = None,
) -> Listing:
    """The PlayerStreamers there are, and were."""
    page = Page[Resource](paging, PlayerStreamer, PlayerStreamer.created)
    rows = select(PlayerStreamer)
    if status:
        rows = rows.where(PlayerStreamer.status == status)
    found, before, after = await service.store.run(lambda session: page.read(session, rows))
    url = f"{base_url(request)}/v1/PlayerStreamers"
    meta = page.meta(url, "player_streamers", found, before, after, Status=status)
    return Listing(player_streamers=[_resource(request, service, row) for row in found], meta=meta)


@router.get("/PlayerStreamers/{Sid}", responses=NOT_FOUND)
async def read(request: Request, service: TheService, streamer: Found) -> Resource:
    """A PlayerStreamer."""
    return _resource(request, service, streamer)


@router.post("/PlayerStreamers/{Sid}", responses=NOT_FOUND)
async def update(
    request: Request,
    service: TheService,
    streamer: Found,
    form: Annotated[Update, fastapi.Form()],
) -> Resource:
    """Ends a PlayerStreamer; one that has ended stays as it is."""
    await service.streamers.end(streamer.sid, "ended-via-api")
    return _resource(request, service, await _find(request, service, streamer.sid))


@router.get("/PlayerStreamers/{Sid}/Usage", responses=NOT_FOUND)
async def usage(streamer: Found) -> Usage:
    """How much was streamed, as of the last checkpoint."""
    return Usage(sid=streamer.sid, streamed_minutes=round(streamer.streamed / 60, 3))


@router.post("/PlayerStreamers/{Sid}/PlaybackGrant", status_code=201, responses=NOT_FOUND)
async def create_grant(
    request: Request,
    service: TheService,
    streamer: Found,
    form: Annotated[GrantForm, fastapi.Form()],
) -> GrantResource:
    """Permits to start playing within the next seconds; who has started may go on."""
    if streamer.status not in lives.PLAYER_STREAMER.open:
        raise ApiError(400, f"Sid: expected a PlayerStreamer that has not ended, got {streamer.sid}")
    origin = None if form.origin in {"", "*"} else form.origin.rstrip("/")
    if origin and not _ORIGIN.fullmatch(origin):
        raise ApiError(400, "AccessControlAllowOrigin: expected an origin, https://HOST[:PORT]")
    token = service.playback_key.grant(streamer.sid, form.ttl, origin)
    grant = {
        "playbackUrl": f"{base_url(request)}/hls/{streamer.sid}/index.m3u8?token={token}",
        "playerStreamerSid": streamer.sid,
        "requestCredentials": None,
    }

    def keep(session: Any) -> PlayerStreamer:
        stored: PlayerStreamer = session.get_one(PlayerStreamer, streamer.sid)
        stored.grant, stored.granted = grant, now()
        return stored

    return _grant(request, service, await service.store.run(keep))


@router.get("/PlayerStreamers/{Sid}/PlaybackGrant", responses=NOT_FOUND)
async def read_grant(request: Request, service: TheService, streamer: Found) -> GrantResource:
    """The last playback grant that was made."""
    return _grant(request, service, streamer)


@router.post("/PlayerStreamers/{Sid}/TimedMetadata", status_code=201, responses=NOT_FOUND)
async def insert(
    request: Request,
    service: TheService,
    streamer: Found,
    form: Annotated[Insert, fastapi.Form()],
) -> Inserted:
    """Inserts a payload into the stream, now."""
    try:
        if streamer.status != "started":
            raise LookupError
        await service.engine.insert(streamer.sid, form.metadata)
    except LookupError:
        raise ApiError(400, f"Sid: expected a PlayerStreamer that is started, got {streamer.sid}") from None
    except ValueError as error:
        raise ApiError(400, str(error)) from None
    return Inserted(sid=streamer.sid, metadata=form.metadata)


@open_router.get(
    "/PlayerStreamers/{Sid}/TimedMetadata",
    responses=NOT_FOUND | {200: {"content": {"text/event-stream": {}}, "description": "Every payload, as it comes."}},
    response_class=StreamingResponse,
)
async def timed_metadata(
    request: Request,
    service: TheService,
    credentials: Annotated[HTTPBasicCredentials | None, Depends(optional_basic)],
    sid: Annotated[str, Path(alias="Sid", description="VJ…")],
    token: str = "",
) -> fastapi.Response:
    """Every payload of the stream, as server-sent events; with the API's credentials, or a playback token."""
    if token:
        try:
            service.turnstile.admit(token, sid, request.headers.get("origin"))
        except TokenError as error:
            raise ApiError(401, str(error)) from None
        except OriginError as error:
            raise ApiError(403, str(error)) from None
    else:
        check_credentials(service, credentials)
    if (await _find(request, service, sid)).status not in lives.PLAYER_STREAMER.open:
        raise not_found(request)

    async def payloads() -> AsyncIterator[str]:
        while not service.streams.closed.is_set():
            async for text in service.engine.payloads(sid):
                yield text
            if (await _find(request, service, sid)).status not in lives.PLAYER_STREAMER.open:
                return
            # Streams come and go; only this one is worth asking the database about.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN):
                    while not service.engine.has(sid) and not service.streams.closed.is_set():
                        await service.engine.until_changed()

    return events(service.streams, payloads())


def _resource(request: Request, service: Service, row: PlayerStreamer) -> Resource:
    url = f"{base_url(request)}/v1/PlayerStreamers/{row.sid}"
    return Resource(
        account_sid=service.settings.account_sid,
        date_created=stamp(row.created),
        date_updated=stamp(row.updated),
        video=row.video,
        links=Links(playback_grant=f"{url}/PlaybackGrant"),
        sid=row.sid,
        status=row.status,  # type: ignore[arg-type] # It is one of them.
        url=url,
        status_callback=row.status_callback,
        status_callback_method=row.status_callback_method,  # type: ignore[arg-type]
        ended_reason=row.ended_reason,
        max_duration=row.max_duration,
    )


def _grant(request: Request, service: Service, row: PlayerStreamer) -> GrantResource:
    if row.grant is None or row.granted is None:
        raise not_found(request)
    return GrantResource(
        sid=row.sid,
        url=f"{base_url(request)}/v1/PlayerStreamers/{row.sid}/PlaybackGrant",
        account_sid=service.settings.account_sid,
        date_created=stamp(row.granted),
        grant=Grant.model_validate(row.grant),
    )
