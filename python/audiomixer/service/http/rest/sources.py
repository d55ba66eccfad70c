"""`/v1/Rooms/{Sid}/Sources`: what is played into a Room, each as a participant of it."""

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import fastapi
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from audiomixer.audio.decibels import LOUDEST, QUIETEST
from audiomixer.rooms.base import RoomError
from audiomixer.rooms.names import check_identity
from audiomixer.rooms.source import SourceError, SourceOrder, SourceState
from audiomixer.service.http.errors import ApiError
from audiomixer.service.http.rest.common import (
    ERRORS,
    NOT_FOUND,
    Form,
    LowerCase,
    Text,
    TheService,
    base_url,
    is_sid,
    not_found,
)
from audiomixer.service.http.rest.hosts import AuthenticatedHost
from audiomixer.service.http.rest.rooms import Found
from audiomixer.service.playing import SCHEMES
from audiomixer.service.resources.lifecycles import make_sid
from audiomixer.service.resources.store import Room
from audiomixer.service.service import Service

router = APIRouter(tags=["Rooms"], responses=ERRORS, dependencies=[AuthenticatedHost])

_LONGEST: Final = 86_400.0


class Resource(BaseModel):
    """What is being played."""

    sid: str
    room_sid: str
    account_sid: str
    participant_identity: str
    source_url: str
    status: Literal["playing", "paused", "ended"]
    position: float
    duration: float | None
    gain_db: float
    duck_db: float
    loop: bool
    error: str | None
    url: str


class Listing(BaseModel):
    """All that is being played."""

    sources: list[Resource]


class Create(Form):
    """What shall be played."""

    url: Text = Field(alias="Url", description=f"{', '.join(SCHEMES)}: a file of any common kind, or a stream")
    identity: Text = Field("", alias="Identity", description="as the file is called, if none")
    gain: float = Field(0.0, alias="Gain", ge=QUIETEST, le=LOUDEST, allow_inf_nan=False, description="decibels")
    duck: float = Field(
        0.0, alias="Duck", ge=QUIETEST, le=0, allow_inf_nan=False, description="decibels, while somebody speaks"
    )
    loop: bool = Field(False, alias="Loop")


class Update(Form):
    """What shall become of it."""

    status: Annotated[Literal["playing", "paused", "ended"] | None, LowerCase] = Field(None, alias="Status")
    gain: float | None = Field(None, alias="Gain", ge=QUIETEST, le=LOUDEST, allow_inf_nan=False, description="decibels")
    position: float | None = Field(None, alias="Position", ge=0, le=_LONGEST, allow_inf_nan=False, description="s")


Sid = Annotated[str, Path(alias="Sid", description="SO…")]


@router.post("/Rooms/{SidOrName}/Sources", status_code=201, responses=NOT_FOUND)
async def create(
    request: Request, service: TheService, room: Found, form: Annotated[Create, fastapi.Form()]
) -> Resource:
    """Plays a file or a stream into a Room that somebody is in; it is heard when this is answered."""
    if service.settings.elsewhere:
        raise ApiError(409, "Room: expected one of ours; into rooms elsewhere nothing is played")
    try:
        await service.outbound.check(form.url, "Url", SCHEMES)
        identity = check_identity(form.identity) if form.identity else ""
        sid, order = make_sid("SO"), SourceOrder(form.url, identity, form.gain, form.duck, form.loop)
        state = await service.engine.rooms.play(room.unique_name, order, sid)
    except ValueError as error:
        raise ApiError(400, str(error)) from None
    except SourceError as error:
        raise ApiError(400, f"Url: {error}") from None
    except RoomError as error:
        raise ApiError(409, str(error)) from None
    return _resource(request, service, room, sid, state)


@router.get("/Rooms/{SidOrName}/Sources", responses=NOT_FOUND)
async def read_all(request: Request, service: TheService, room: Found) -> Listing:
    """What is being played into a Room."""
    found = await service.engine.rooms.sources(room.unique_name)
    playing = {sid: state for sid, state in found.items() if is_sid("SO", sid) and state.state != "ended"}
    return Listing(sources=[_resource(request, service, room, sid, state) for sid, state in playing.items()])


@router.get("/Rooms/{SidOrName}/Sources/{Sid}", responses=NOT_FOUND)
async def read(request: Request, service: TheService, room: Found, sid: Sid) -> Resource:
    """What is being played, or was: of a Room, the last 32."""
    found = (await service.engine.rooms.sources(room.unique_name)).get(sid)
    if found is None:
        raise not_found(request)
    return _resource(request, service, room, sid, found)


@router.post("/Rooms/{SidOrName}/Sources/{Sid}", responses=NOT_FOUND)
async def update(
    request: Request, service: TheService, room: Found, sid: Sid, form: Annotated[Update, fastapi.Form()]
) -> Resource:
    """Pauses it, or goes on, elsewhere, louder; or ends it."""
    before = await read(request, service, room, sid)
    if before.status == "ended":
        return before
    if form.status == "ended":
        await service.engine.rooms.leave(sid)
        return before.model_copy(update={"status": "ended"})
    try:
        await service.engine.rooms.steer(
            room.unique_name,
            sid,
            paused=None if form.status is None else form.status == "paused",
            gain_db=form.gain,
            position=form.position,
        )
    except (SourceError, ValueError) as error:
        raise ApiError(400, f"Position: {str(error).removeprefix('position: ')}") from None
    return await read(request, service, room, sid)


def _resource(request: Request, service: Service, room: Room, sid: str, state: SourceState) -> Resource:
    return Resource(
        sid=sid,
        room_sid=room.sid,
        account_sid=service.settings.account_sid,
        participant_identity=state.identity,
        source_url=_without_secrets(state.order.url),
        status=state.state,
        position=round(state.position, 3),
        duration=round(state.seconds, 3) or None,
        gain_db=state.gain_db,
        duck_db=state.order.duck_db,
        loop=state.order.loop,
        error=state.error or None,
        url=f"{base_url(request)}/v1/Rooms/{room.sid}/Sources/{sid}",
    )


def _without_secrets(url: str) -> str:
    """A URL without what may be one: who asks for it, and with what."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
