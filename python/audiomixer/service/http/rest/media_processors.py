"""`/v1/MediaProcessors`."""

import json
import re
from typing import Annotated, Any, Final, Literal

import fastapi
from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, Field
from sqlalchemy import select

from audiomixer.audio.encoding import BITRATES
from audiomixer.audio.loudness import LOUDEST_TARGET, QUIETEST_TARGET
from audiomixer.outputs.push import without_picture
from audiomixer.rooms.names import check_identity, check_name
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
    duration,
    is_sid,
    not_found,
    stamp,
)
from audiomixer.service.jobs import PLAYER_STREAMER, PUSHED
from audiomixer.service.resources.lifecycles import DURATION, LONGEST_DURATION
from audiomixer.service.resources.processor_lifecycle import ProcessorOrder
from audiomixer.service.resources.store import MediaProcessor
from audiomixer.service.service import Service

router = APIRouter(tags=["MediaProcessors"], responses=ERRORS, dependencies=[Authenticated])

_EXTENSIONS: Final = ("audio-mixer-v2", "audio-mixer-v1")
_MOST_OUTPUTS: Final = 20
_MOST_IDENTITIES: Final = 1000
Status = Literal["started", "ended", "failed"]


class Resource(BaseModel):
    """A MediaProcessor."""

    account_sid: str
    sid: str
    date_created: str
    date_updated: str
    extension: str
    extension_context: str
    status: Status
    url: str
    ended_reason: str | None
    status_callback: str | None
    status_callback_method: Method | None
    max_duration: int


class Listing(BaseModel):
    """A page of MediaProcessors."""

    media_processors: list[Resource]
    meta: Meta


class Usage(BaseModel):
    """What a MediaProcessor has done."""

    sid: str
    streamed_minutes: float


class Create(Form):
    """What a new MediaProcessor shall do."""

    extension: Text = Field(alias="Extension", description="audio-mixer-v2")
    extension_context: Text = Field(
        alias="ExtensionContext", description='JSON: {"room": {"name": …}, "outputs": ["VJ…"]}'
    )
    extension_environment: Text = Field("", alias="ExtensionEnvironment", description="JSON; accepted")
    status_callback: Text | None = Field(None, alias="StatusCallback")
    status_callback_method: Method = Field("POST", alias="StatusCallbackMethod")
    max_duration: Annotated[int, duration(LONGEST_DURATION)] = Field(DURATION, alias="MaxDuration")


class Update(Form):
    """What shall become of a MediaProcessor."""

    status: Annotated[Literal["ended"], LowerCase] = Field(alias="Status", description="ENDED")


async def _find(
    request: Request, service: TheService, sid: Annotated[str, Path(alias="Sid", description="ZX…")]
) -> MediaProcessor:
    found = await service.store.run(lambda session: session.get(MediaProcessor, sid)) if is_sid("ZX", sid) else None
    if found is None:
        raise not_found(request)
    return found


Found = Annotated[MediaProcessor, Depends(_find)]


@router.post("/MediaProcessors", status_code=201)
async def create(request: Request, service: TheService, form: Annotated[Create, fastapi.Form()]) -> Resource:
    """Has a mixer join a room and stream to PlayerStreamers."""
    extension = form.extension.strip().strip('"')
    if extension not in _EXTENSIONS:
        raise ApiError(400, f"Extension: expected {' or '.join(_EXTENSIONS)}, got {extension!r}")
    _json("ExtensionEnvironment", form.extension_environment or "{}")
    context = _json("ExtensionContext", form.extension_context)
    try:
        order = ProcessorOrder(
            extension=extension,
            extension_context=form.extension_context,
            room=_room(context),
            identity=check_identity(_text(context, "identity", extension)),
            outputs=await _outputs(service, context),
            audio_bitrate=_bitrate(context),
            denoise=_switch(context, "audioDenoise"),
            leveler=_switch(context, "audioLeveler"),
            loudness=_loudness(context),
            include=_identities(service, context, "include"),
            exclude=_identities(service, context, "exclude") or (),
            max_duration=form.max_duration,
            status_callback=await callback_url(service, form.status_callback),
            status_callback_method=form.status_callback_method,
        )
    except ValueError as error:
        raise ApiError(400, f"ExtensionContext: {error}") from None
    return _resource(request, service, await service.processors.create(order))


@router.get("/MediaProcessors")
async def read_all(
    request: Request,
    service: TheService,
    paging: Paging,
    status: Annotated[Status | None, LowerCase, fastapi.Query(alias="Status")] = None,
) -> Listing:
    """The MediaProcessors there are, and were."""
    page = Page[Resource](paging, MediaProcessor, MediaProcessor.created)
    rows = select(MediaProcessor)
    if status:
        rows = rows.where(MediaProcessor.status == status)
    found, before, after = await service.store.run(lambda session: page.read(session, rows))
    url = f"{base_url(request)}/v1/MediaProcessors"
    meta = page.meta(url, "media_processors", found, before, after, Status=status)
    return Listing(media_processors=[_resource(request, service, row) for row in found], meta=meta)


@router.get("/MediaProcessors/{Sid}", responses=NOT_FOUND)
async def read(request: Request, service: TheService, processor: Found) -> Resource:
    """A MediaProcessor."""
    return _resource(request, service, processor)


@router.post("/MediaProcessors/{Sid}", responses=NOT_FOUND)
async def update(
    request: Request, service: TheService, processor: Found, form: Annotated[Update, fastapi.Form()]
) -> Resource:
    """Ends a MediaProcessor; one that has ended stays as it is."""
    await service.processors.end(processor.sid, "ended-via-api")
    return _resource(request, service, await _find(request, service, processor.sid))


@router.get("/MediaProcessors/{Sid}/Usage", responses=NOT_FOUND)
async def usage(processor: Found) -> Usage:
    """How much a MediaProcessor has streamed, as of its last checkpoint."""
    return Usage(sid=processor.sid, streamed_minutes=round(processor.streamed / 60, 3))


def _resource(request: Request, service: Service, row: MediaProcessor) -> Resource:
    return Resource(
        account_sid=service.settings.account_sid,
        sid=row.sid,
        date_created=stamp(row.created),
        date_updated=stamp(row.updated),
        extension=row.extension,
        extension_context=row.extension_context,
        status=row.status,  # type: ignore[arg-type] # It is one of them.
        url=f"{base_url(request)}/v1/MediaProcessors/{row.sid}",
        ended_reason=row.ended_reason,
        status_callback=row.status_callback,
        status_callback_method=row.status_callback_method,  # type: ignore[arg-type]
        max_duration=row.max_duration,
    )


def _json(field: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ApiError(400, f"{field}: expected JSON") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"{field}: expected a JSON object")
    return value


def _text(context: dict[str, Any], key: str, default: str) -> str:
    value = context.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise ValueError(f"{key}: expected text")
    return value


def _room(context: dict[str, Any]) -> str:
    room = context.get("room")
    name = room.get("name") if isinstance(room, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError("room.name: expected a room's unique name or SID")
    check_name(name)
    return name


def _bitrate(context: dict[str, Any]) -> int:
    bitrate = context.get("audioBitrate")
    if bitrate is None:
        return BITRATES[0]
    if isinstance(bitrate, bool) or bitrate not in BITRATES:
        raise ValueError("audioBitrate: expected 128 or 192")
    return int(bitrate)


def _switch(context: dict[str, Any], key: str) -> bool:
    given = context.get(key, False)
    if not isinstance(given, bool):
        raise ValueError(f"{key}: expected true or false")
    return given


def _loudness(context: dict[str, Any]) -> float | None:
    given = context.get("audioLoudness")
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not QUIETEST_TARGET <= given <= LOUDEST_TARGET:
        raise ValueError(f"audioLoudness: expected {QUIETEST_TARGET:.0f} to {LOUDEST_TARGET:.0f} LUFS")
    return float(given)


def _identities(service: Service, context: dict[str, Any], key: str) -> tuple[str, ...] | None:
    given = context.get(key)
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(identity, str) for identity in given):
        raise ValueError(f"{key}: expected an array of identities")
    if len(given) > _MOST_IDENTITIES:
        raise ValueError(f"{key}: expected at most {_MOST_IDENTITIES} identities")
    if not service.settings.elsewhere:
        raise ValueError(f"{key}: expected rooms elsewhere; of rooms of ours, InMix of a participant says it for all")
    return tuple(given)


async def _outputs(service: Service, context: dict[str, Any]) -> tuple[str, ...]:
    outputs = context.get("outputs")
    if not isinstance(outputs, list) or not outputs or not all(isinstance(output, str) for output in outputs):
        raise ValueError("outputs: expected an array of PlayerStreamer SIDs, not empty")
    if len(outputs) > _MOST_OUTPUTS or len(set(outputs)) < len(outputs):
        raise ValueError(f"outputs: expected at most {_MOST_OUTPUTS}, all different")
    for output in outputs:
        if re.match("[a-z]+://", output):
            url, picture = without_picture(output)
            if picture:
                raise ValueError("outputs: expected picture without a value: files of the server are its own")
            await service.outbound.check(url, "outputs", PUSHED)
        elif not is_sid(PLAYER_STREAMER, output):
            raise ValueError(f"outputs: expected SIDs of PlayerStreamers, or URLs of rtmp(s)://, got {output!r}")
    return tuple(outputs)
