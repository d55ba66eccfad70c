"""`/v1/Rooms/{Sid}/Participants`: who is in a Room, how each gets on, and what a host sets of them."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Annotated, Any, Final, Literal

import fastapi
from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from audiomixer.audio.decibels import LOUDEST, QUIETEST
from audiomixer.rooms.base import Vitals
from audiomixer.rooms.names import check_identity, is_printable
from audiomixer.rooms.strip import Setting
from audiomixer.service.http.errors import ApiError
from audiomixer.service.http.rest.common import (
    ERRORS,
    NOT_FOUND,
    Form,
    LowerCase,
    Meta,
    Page,
    Paging,
    Text,
    TheService,
    base_url,
    is_sid,
    not_found,
    stamp,
)
from audiomixer.service.http.rest.hosts import AuthenticatedHost
from audiomixer.service.http.rest.rooms import Found
from audiomixer.service.resources.room_account import settings_of
from audiomixer.service.resources.store import Participant, Room
from audiomixer.service.service import Service

router = APIRouter(tags=["Rooms"], responses=ERRORS, dependencies=[AuthenticatedHost])

_SETTINGS: Final = {"gain": "gain_db"} | {name: name for name in ("muted", "in_mix", "denoise", "kept_out")}
"""What a form sets, and what that is called as a setting."""


class Resource(BaseModel):
    """Somebody in a Room, or who was, or who is expected."""

    sid: str | None
    room_sid: str
    account_sid: str
    identity: str
    status: Literal["connected", "disconnected", "expected"]
    start_time: str | None
    end_time: str | None
    duration: int | None
    gain_db: float
    muted_by_host: bool
    in_mix: bool
    denoise: bool
    kept_out: bool
    muted: bool | None
    volume: int | None
    packets_lost: int | None
    concealed_ms: int | None
    delay_ms: int | None
    codec: str | None
    client: str | None


class Listing(BaseModel):
    """A page of Participants."""

    participants: list[Resource]
    meta: Meta


class Levels(BaseModel):
    """How loud the mix of a Room is; none where it is silent, or not mixed."""

    momentary: float | None = Field(None, description="LUFS, of the last 400 ms (EBU R 128)")
    short_term: float | None = Field(None, description="LUFS, of the last 3 s")
    integrated: float | None = Field(None, description="LUFS, of everything since it was asked for first")
    gain_db: float = Field(0.0, description="what brings it to its target")
    reduction_db: float = Field(0.0, description="what the limiter took away of its peaks, in the last half second")


class Update(Form):
    """What shall become of a participant, or of whoever comes by that identity."""

    gain: float | None = Field(None, alias="Gain", ge=QUIETEST, le=LOUDEST, allow_inf_nan=False, description="decibels")
    muted: bool | None = Field(None, alias="Muted", description="nobody hears it")
    in_mix: bool | None = Field(None, alias="InMix", description="false: heard by the Room, and not in streams")
    denoise: bool | None = Field(None, alias="Denoise", description="noise is taken off it; 10 ms later")
    kept_out: bool | None = Field(None, alias="KeptOut", description="true: it has to leave, and may not join")
    status: Annotated[Literal["disconnected"] | None, LowerCase] = Field(None, alias="Status")


@dataclass(frozen=True, slots=True)
class _Who:
    """Whom the path names."""

    identity: str
    row: Participant | None


@router.get("/Rooms/{SidOrName}/Levels", responses=NOT_FOUND)
async def levels(service: TheService, room: Found) -> Levels:
    """How loud the mix of a Room is."""
    found = await service.participants.loudness(room)
    measured = asdict(found) if found else {}
    return Levels(**{name: round(value, 1) for name, value in measured.items() if isfinite(value)})


async def _find(
    request: Request,
    service: TheService,
    room: Found,
    name: Annotated[str, Path(alias="SidOrIdentity", description="PA…, or an identity, which may come later")],
) -> _Who:
    def look(session: Session) -> Participant | None:
        if is_sid("PA", name):
            found = session.get(Participant, name)
            return found if found and found.room_sid == room.sid else None
        rows = select(Participant).where(Participant.room_sid == room.sid, Participant.identity == name)
        return session.scalars(rows.order_by(Participant.started.desc())).first()

    await service.rooms.recorded()  # Somebody may have come just now.
    found = await service.store.run(look) if is_printable(name) else None
    if found:
        return _Who(identity=found.identity, row=found)
    if is_sid("PA", name):
        raise not_found(request)
    try:
        return _Who(identity=check_identity(name), row=None)
    except ValueError as error:
        raise ApiError(400, str(error)) from None


Named = Annotated[_Who, Depends(_find)]


@router.get("/Rooms/{SidOrName}/Participants", responses=NOT_FOUND)
async def read_all(
    request: Request,
    service: TheService,
    room: Found,
    paging: Paging,
    status: Annotated[
        Literal["connected", "disconnected", "expected"] | None, LowerCase, fastapi.Query(alias="Status")
    ] = None,
    identity: Annotated[Text, fastapi.Query(alias="Identity")] = "",
    kept_out: Annotated[bool, fastapi.Query(alias="KeptOut", description="true: those who may not join")] = False,
) -> Listing:
    """Who is in a Room, and who was, mixers included; or of whom something is set, and who have not been there."""
    page = Page[Resource](paging, Participant, Participant.started)
    rows = select(Participant).where(Participant.room_sid == room.sid)
    settings = settings_of(room)
    if kept_out:
        kept = [identity for identity, setting in settings.items() if setting.kept_out]
        return await _set(request, service, room, page, kept)
    if status == "expected":
        known = select(Participant.identity).where(Participant.room_sid == room.sid)
        been = set(await service.store.run(lambda session: list(session.scalars(known))))
        return await _set(request, service, room, page, [identity for identity in settings if identity not in been])
    if status:
        rows = rows.where(Participant.status == status)
    if identity:
        rows = rows.where(Participant.identity == identity)
    found, before, after = await service.store.run(lambda session: page.read(session, rows))
    url = f"{base_url(request)}/v1/Rooms/{room.sid}/Participants"
    meta = page.meta(url, "participants", found, before, after, Status=status, Identity=identity)
    vitals = await service.participants.vitals(room)
    resources = [_resource(service, room, _Who(identity=row.identity, row=row), vitals) for row in found]
    return Listing(participants=resources, meta=meta)


async def _set(
    request: Request, service: Service, room: Room, page: Page[Resource], identities: Collection[str]
) -> Listing:
    """Of these something is set: all at once, as there are a thousand at most, each as it was there last."""
    rows = select(Participant).where(Participant.room_sid == room.sid, Participant.identity.in_(identities))
    found = await service.store.run(lambda session: list(session.scalars(rows.order_by(Participant.started))))
    last = {row.identity: row for row in found}
    vitals = await service.participants.vitals(room)
    who = [_Who(identity, last.get(identity)) for identity in identities]
    meta = page.meta(f"{base_url(request)}/v1/Rooms/{room.sid}/Participants", "participants", [], False, False)
    return Listing(participants=[_resource(service, room, one, vitals) for one in who], meta=meta)


@router.get("/Rooms/{SidOrName}/Participants/{SidOrIdentity:path}", responses=NOT_FOUND)
async def read(request: Request, service: TheService, room: Found, who: Named) -> Resource:
    """One of them, by SID or by identity; of somebody who has never been there only if something has been set."""
    if who.row is None and who.identity not in settings_of(room):
        raise not_found(request)
    return _resource(service, room, who, await service.participants.vitals(room))


@router.post("/Rooms/{SidOrName}/Participants/{SidOrIdentity:path}", responses=NOT_FOUND)
async def update(
    request: Request, service: TheService, room: Found, who: Named, form: Annotated[Update, fastapi.Form()]
) -> Resource:
    """Sets something of an identity, whoever bears it, now or later; or has it leave."""
    given = form.model_dump(exclude_none=True)
    changes = {_SETTINGS[name]: value for name, value in given.items() if name in _SETTINGS}
    leaves = form.status == "disconnected" or form.kept_out is True
    if who.row and service.processors.is_mixer(who.row.sid):
        raise ApiError(400, "Participant: expected one that is no mixer; its MediaProcessor can be ended")
    if form.status and (who.row is None or who.row.status != "connected"):
        raise ApiError(409, "Status: expected one who is connected")
    # What cannot be is not half done.
    if leaves and who.row and who.row.status == "connected":
        await service.participants.remove(room, who.row)
    if changes:
        room = await service.participants.set(room, who.identity, changes)
    who = await _find(request, service, room, who.row.sid if who.row else who.identity)
    return _resource(service, room, who, await service.participants.vitals(room))


def _resource(service: Service, room: Room, who: _Who, vitals: Mapping[str, Vitals]) -> Resource:
    row, setting = who.row, settings_of(room).get(who.identity, Setting())
    there = vitals.get(who.identity) if row and row.status == "connected" else None
    heard: dict[str, Any] = {
        "muted": there.muted if there else None,
        "volume": there.volume if there else None,
        "packets_lost": there.packets_lost if there else None,
        "concealed_ms": round(1000 * there.concealed) if there else None,
        "delay_ms": round(1000 * there.delay) if there else None,
        "codec": there.codec if there else None,
        "client": there.client or None if there else None,
    }
    return Resource(
        sid=row.sid if row else None,
        room_sid=room.sid,
        account_sid=service.settings.account_sid,
        identity=who.identity,
        status=row.status if row else "expected",  # type: ignore[arg-type]
        start_time=stamp(row.started) if row else None,
        end_time=stamp(row.ended) if row and row.ended else None,
        duration=round(row.ended - row.started) if row and row.ended else None,
        gain_db=setting.gain_db,
        muted_by_host=setting.muted,
        in_mix=setting.in_mix,
        denoise=setting.denoise,
        kept_out=setting.kept_out,
        **heard,
    )
