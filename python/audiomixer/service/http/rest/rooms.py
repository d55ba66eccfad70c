"""`/v1/Rooms`."""

from typing import Annotated, Final, Literal

import fastapi
from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from audiomixer.rooms.names import is_printable
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
    not_found,
    stamp,
)
from audiomixer.service.resources.room_lifecycle import RoomOrder
from audiomixer.service.resources.store import Participant, Room, now
from audiomixer.service.service import Service

router = APIRouter(tags=["Rooms"], responses=ERRORS, dependencies=[Authenticated])

Status = Literal["in-progress", "completed", "failed"]
Type = Literal["go", "peer-to-peer", "group", "group-small"]
_LONGEST_STAY: Final = 86_400
_MOST_PARTICIPANTS: Final = 1000


class Links(BaseModel):
    """Where the parts of a room are."""

    participants: str


class Resource(BaseModel):
    """A Room."""

    sid: str
    status: Status
    date_created: str
    date_updated: str
    account_sid: str
    enable_turn: bool
    unique_name: str
    status_callback: str | None
    status_callback_method: Method | None
    end_time: str | None
    duration: int | None
    type: Type
    max_participants: int
    max_participant_duration: int
    max_concurrent_published_tracks: int
    record_participants_on_connect: bool
    video_codecs: list[str]
    media_region: str | None
    audio_only: bool
    empty_room_timeout: int
    unused_room_timeout: int
    large_room: bool
    url: str
    links: Links


class Listing(BaseModel):
    """A page of Rooms."""

    rooms: list[Resource]
    meta: Meta


class Usage(BaseModel):
    """How much a Room was used."""

    sid: str
    participant_minutes: float


class Create(Form):
    """What a new Room shall be like."""

    unique_name: Text = Field("", alias="UniqueName", max_length=128)
    type: Type = Field("group", alias="Type", description="accepted")
    audio_only: bool = Field(True, alias="AudioOnly", description="accepted; all are")
    max_participants: int = Field(50, alias="MaxParticipants", ge=1, le=_MOST_PARTICIPANTS)
    max_participant_duration: int = Field(14_400, alias="MaxParticipantDuration", ge=600, le=_LONGEST_STAY)
    empty_room_timeout: int = Field(5, alias="EmptyRoomTimeout", ge=1, le=60, description="minutes")
    unused_room_timeout: int = Field(5, alias="UnusedRoomTimeout", ge=1, le=60, description="minutes")
    status_callback: Text | None = Field(None, alias="StatusCallback")
    status_callback_method: Method = Field("POST", alias="StatusCallbackMethod")


class Update(Form):
    """What shall become of a Room."""

    status: Annotated[Literal["completed"], LowerCase] = Field(alias="Status", description="completed")


async def find(
    request: Request, service: TheService, name: Annotated[str, Path(alias="SidOrName", description="RM…, or a name")]
) -> Room:
    """The Room of the path."""
    found = await service.rooms.find(name) if is_printable(name) else None
    if found is None:
        raise not_found(request)
    return found


Found = Annotated[Room, Depends(find)]


@router.post("/Rooms", status_code=201)
async def create(request: Request, service: TheService, form: Annotated[Create, fastapi.Form()]) -> Resource:
    """Makes a Room."""
    try:
        order = RoomOrder(
            unique_name=form.unique_name,
            type=form.type,
            max_participants=form.max_participants,
            max_participant_duration=form.max_participant_duration,
            empty_room_timeout=form.empty_room_timeout,
            unused_room_timeout=form.unused_room_timeout,
            status_callback=await callback_url(service, form.status_callback),
            status_callback_method=form.status_callback_method,
        )
        return _resource(request, service, await service.rooms.create(order))
    except ValueError as error:
        raise ApiError(400, f"UniqueName: {str(error).removeprefix('room: ')}") from None


@router.get("/Rooms")
async def read_all(
    request: Request,
    service: TheService,
    paging: Paging,
    status: Annotated[Status | None, LowerCase, fastapi.Query(alias="Status")] = None,
    unique_name: Annotated[Text, fastapi.Query(alias="UniqueName")] = "",
) -> Listing:
    """The Rooms there are, and were."""
    page = Page[Resource](paging, Room, Room.created)
    rows = select(Room)
    if status:
        rows = rows.where(Room.status == status)
    if unique_name:
        rows = rows.where(Room.unique_name == unique_name)
    found, before, after = await service.store.run(lambda session: page.read(session, rows))
    url = f"{base_url(request)}/v1/Rooms"
    meta = page.meta(url, "rooms", found, before, after, Status=status, UniqueName=unique_name)
    return Listing(rooms=[_resource(request, service, row) for row in found], meta=meta)


@router.get("/Rooms/{SidOrName}", responses=NOT_FOUND)
async def read(request: Request, service: TheService, room: Found) -> Resource:
    """A Room, by its SID, or by its name while it is in progress."""
    return _resource(request, service, room)


@router.post("/Rooms/{SidOrName}", responses=NOT_FOUND)
async def update(
    request: Request,
    service: TheService,
    room: Found,
    form: Annotated[Update, fastapi.Form()],
) -> Resource:
    """Completes a Room: everybody has to leave. One that is completed stays as it is."""
    await service.rooms.complete(room.sid)
    return _resource(request, service, await find(request, service, room.sid))


@router.get("/Rooms/{SidOrName}/Usage", responses=NOT_FOUND)
async def usage(service: TheService, room: Found) -> Usage:
    """How long participants have been in a Room, all together."""

    def seconds(session: Session) -> float:
        stay = func.coalesce(Participant.ended, now()) - Participant.started
        return session.scalar(select(func.sum(stay)).where(Participant.room_sid == room.sid)) or 0.0

    return Usage(sid=room.sid, participant_minutes=round(await service.store.run(seconds) / 60, 3))


def _resource(request: Request, service: Service, row: Room) -> Resource:
    url = f"{base_url(request)}/v1/Rooms/{row.sid}"
    return Resource(
        sid=row.sid,
        status=row.status,  # type: ignore[arg-type] # It is one of them.
        date_created=stamp(row.created),
        date_updated=stamp(row.updated),
        account_sid=service.settings.account_sid,
        enable_turn=bool(service.settings.turn_url),
        unique_name=row.unique_name,
        status_callback=row.status_callback,
        status_callback_method=row.status_callback_method,  # type: ignore[arg-type]
        end_time=stamp(row.ended) if row.ended else None,
        duration=round(row.ended - row.created) if row.ended else None,
        type=row.type,  # type: ignore[arg-type]
        max_participants=row.max_participants,
        max_participant_duration=row.max_participant_duration,
        max_concurrent_published_tracks=row.max_participants,
        record_participants_on_connect=False,
        video_codecs=[],
        media_region=None,
        audio_only=True,
        empty_room_timeout=row.empty_room_timeout,
        unused_room_timeout=row.unused_room_timeout,
        large_room=row.max_participants > 50,
        url=url,
        links=Links(participants=f"{url}/Participants"),
    )
