"""`/v1/MediaProcessors/{Sid}/Recordings`, and `/v1/Rooms/{Sid}/Recordings`, by which hosts record their Room."""

from typing import Annotated, Final, Literal

import fastapi
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, defer

from audiomixer.audio.survey import draw
from audiomixer.clock.tasks import blocking
from audiomixer.outputs.base import OutputError
from audiomixer.outputs.bucket import Bucket
from audiomixer.rooms.names import check_identity
from audiomixer.service.http.errors import ApiError
from audiomixer.service.http.rest.common import (
    ERRORS,
    NOT_FOUND,
    Authenticated,
    Form,
    LowerCase,
    Method,
    Text,
    TheService,
    base_url,
    callback_url,
    is_sid,
    not_found,
    stamp,
)
from audiomixer.service.http.rest.hosts import AuthenticatedHost
from audiomixer.service.http.rest.media_processors import Found as FoundProcessor
from audiomixer.service.http.rest.rooms import Found as FoundRoom
from audiomixer.service.jobs import Layout, RecordingState
from audiomixer.service.recorder import RECORDING
from audiomixer.service.resources import lives
from audiomixer.service.resources.recording_lifecycle import Wanted
from audiomixer.service.resources.store import MediaProcessor, Recording, RecordingFile
from audiomixer.service.service import Service

router = APIRouter(tags=["Recordings"], responses=ERRORS, dependencies=[Authenticated])
host_router = APIRouter(tags=["Rooms"], responses=ERRORS, dependencies=[AuthenticatedHost])

Status = Literal["recording", "processing", "completed", "failed"]

_SIGNED: Final = 3600
"""Seconds for which the URL of a file in a bucket is good."""
_SHORTEST, _LONGEST = 60, 86_400
_MOST: Final = 1000


class File(BaseModel):
    """A file of a recording, in the store."""

    key: str
    size: int
    duration: float
    loudness: float | None = Field(description="LUFS, integrated (EBU R 128)")
    true_peak: float | None = Field(description="dBTP")
    date_stored: str
    media: str
    waveform: str


class Resource(BaseModel):
    """A recording."""

    account_sid: str
    sid: str
    media_processor_sid: str
    room_sid: str | None
    status: Status
    date_created: str
    date_updated: str
    date_ended: str | None
    format: str
    layout: Layout
    identity: str | None
    rotate: int | None
    duration: float
    size: int
    files: list[File]
    error: str | None
    status_callback: str | None
    status_callback_method: Method | None
    url: str


class Listing(BaseModel):
    """The recordings of a MediaProcessor or a Room, the newest first."""

    recordings: list[Resource]


class CreateOfRoom(Form):
    """What shall be recorded of a Room."""

    format: Annotated[Literal["m4a", "mp3", "ogg", "wav", "mka"], LowerCase] = Field("m4a", alias="Format")
    layout: Annotated[Layout, LowerCase] = Field(
        "mix", alias="Layout", description="the mix; a file for each participant; or one left, the others right"
    )
    identity: Text = Field("", alias="Identity", description="who is on the left, if Layout is dual")
    rotate: int | None = Field(
        None, alias="Rotate", ge=_SHORTEST, le=_LONGEST, description="seconds after which a new file is begun"
    )


class Create(CreateOfRoom):
    """What shall be recorded."""

    status_callback: Text | None = Field(None, alias="StatusCallback", description="the MediaProcessor's, if none")
    status_callback_method: Method = Field("POST", alias="StatusCallbackMethod")


class Update(Form):
    """What shall become of it."""

    status: Annotated[Literal["stopped"], LowerCase] = Field(alias="Status", description="STOPPED")


class Waveform(BaseModel):
    """What a file looks like."""

    duration: float
    peaks: list[int] = Field(description="0 to 100, of stretches that are all as long")


Sid = Annotated[str, Path(alias="Sid", description="KV…")]
Wanting = Annotated[Status | None, LowerCase, Query(alias="Status")]
Which = Annotated[int, Query(alias="File", ge=0, le=100_000, description="which of the recording's files, from 0")]


@router.post("/MediaProcessors/{Sid}/Recordings", status_code=201, responses=NOT_FOUND)
async def create(
    request: Request, service: TheService, processor: FoundProcessor, form: Annotated[Create, fastapi.Form()]
) -> Resource:
    """Records what a MediaProcessor mixes."""
    return await _create(request, service, processor, form)


@router.get("/MediaProcessors/{Sid}/Recordings", responses=NOT_FOUND)
async def read_all(request: Request, service: TheService, processor: FoundProcessor, status: Wanting = None) -> Listing:
    """The recordings there are of a MediaProcessor: the newest thousand."""
    return await _listing(request, service, Recording.processor_sid == processor.sid, status)


@host_router.post("/Rooms/{SidOrName}/Recordings", status_code=201, responses=NOT_FOUND)
async def create_of_room(
    request: Request, service: TheService, room: FoundRoom, form: Annotated[CreateOfRoom, fastapi.Form()]
) -> Resource:
    """Records a Room, by the MediaProcessor that has mixed it for longest."""

    def find(session: Session) -> MediaProcessor | None:
        mixing = service.processors.in_room(room.sid)
        open_ones = MediaProcessor.sid.in_(mixing), MediaProcessor.status.in_(lives.MEDIA_PROCESSOR.open)
        return session.scalars(select(MediaProcessor).where(*open_ones).order_by(MediaProcessor.created)).first()

    processor = await service.store.run(find)
    if processor is None:
        raise ApiError(409, "Room: expected one that a MediaProcessor mixes")
    # Callbacks are signed by the account, and go where the account says.
    recording = await _create(request, service, processor, Create(**form.model_dump()))
    return _for_host(recording)


@host_router.get("/Rooms/{SidOrName}/Recordings", responses=NOT_FOUND)
async def read_all_of_room(request: Request, service: TheService, room: FoundRoom, status: Wanting = None) -> Listing:
    """The recordings there are of a Room: the newest thousand."""
    found = await _listing(request, service, Recording.room_sid == room.sid, status)
    return Listing(recordings=[_for_host(recording) for recording in found.recordings])


@host_router.post("/Rooms/{SidOrName}/Recordings/{Sid}", responses=NOT_FOUND)
async def update_of_room(
    request: Request, service: TheService, room: FoundRoom, sid: Sid, form: Annotated[Update, fastapi.Form()]
) -> Resource:
    """Ends a recording of a Room."""
    recording = await _recording(request, service, sid)
    if recording.room_sid != room.sid:
        raise not_found(request)
    return _for_host(await update(request, service, recording, form))


async def _recording(request: Request, service: TheService, sid: Sid) -> Recording:
    found = await service.store.run(lambda session: session.get(Recording, sid)) if is_sid(RECORDING, sid) else None
    if found is None:
        raise not_found(request)
    return found


Found = Annotated[Recording, Depends(_recording)]


@router.get("/Recordings/{Sid}", responses=NOT_FOUND)
async def read(request: Request, service: TheService, recording: Found) -> Resource:
    """A recording."""
    return (await _resources(request, service, [recording]))[0]


@router.post("/Recordings/{Sid}", responses=NOT_FOUND)
async def update(
    request: Request, service: TheService, recording: Found, form: Annotated[Update, fastapi.Form()]
) -> Resource:
    """Ends a recording; one that has ended stays as it is."""
    await service.recordings.stop(recording.sid)
    return await read(request, service, await _recording(request, service, recording.sid))


@router.delete("/Recordings/{Sid}", status_code=204, responses=NOT_FOUND)
async def delete(service: TheService, recording: Found) -> Response:
    """Deletes a recording that has ended, and what is in the store of it."""
    await service.recordings.delete(recording.sid)
    return Response(status_code=204)


async def _file(request: Request, service: TheService, recording: Found, which: Which = 0) -> RecordingFile:
    def find(session: Session) -> RecordingFile | None:
        files = select(RecordingFile).where(RecordingFile.recording_sid == recording.sid).order_by(RecordingFile.id)
        return session.scalars(files.offset(which).limit(1)).first()

    found = await service.store.run(find)
    if found is None and recording.status in lives.RECORDING.open:
        raise ApiError(409, "Recording: expected one that is stored already")
    if found is None:
        raise not_found(request)
    return found


FoundFile = Annotated[RecordingFile, Depends(_file)]


@router.get("/Recordings/{Sid}/Media", responses=NOT_FOUND | {200: {"content": {"audio/*": {}}}, 307: {}})
async def media(request: Request, service: TheService, file: FoundFile) -> Response:
    """What is in a file: itself, ranges too, or the way to it, which is good for an hour."""
    store = service.recordings_place
    if isinstance(store, Bucket):
        try:
            return RedirectResponse(await store.sign(file.key, _SIGNED))
        except OutputError as error:
            raise ApiError(503, f"Recording: {error}") from error
    path = store.path(file.key)
    if not await blocking(path.is_file):
        raise not_found(request)
    return FileResponse(path, filename=path.name, headers={"X-Content-Type-Options": "nosniff"})


@router.get("/Recordings/{Sid}/Waveform", responses=NOT_FOUND)
async def waveform(file: FoundFile) -> Waveform:
    """What a file looks like."""
    return Waveform(duration=round(file.seconds, 3), peaks=file.outline)


@router.get("/Recordings/{Sid}/Waveform.png", responses=NOT_FOUND | {200: {"content": {"image/png": {}}}})
async def picture(
    file: FoundFile,
    width: Annotated[int, Query(alias="Width", ge=16, le=4096)] = 1000,
    height: Annotated[int, Query(alias="Height", ge=16, le=1024)] = 120,
) -> Response:
    """The same, drawn."""
    return Response(await blocking(draw, tuple(file.outline), width, height), media_type="image/png")


async def _create(request: Request, service: Service, processor: MediaProcessor, form: Create) -> Resource:
    if (form.layout == "dual") != bool(form.identity):
        raise ApiError(400, "Identity: expected one if Layout is dual, and only then")
    if form.layout == "tracks" and (form.format != "m4a" or form.rotate):
        raise ApiError(400, "Layout: expected neither Format nor Rotate with tracks, which are .mka")
    try:
        identity = check_identity(form.identity) if form.identity else ""
    except ValueError as error:
        raise ApiError(400, f"Identity: {str(error).removeprefix('identity: ')}") from None
    wanted = Wanted(
        "mka" if form.layout == "tracks" else form.format,
        form.layout,
        identity,
        form.rotate,
        await callback_url(service, form.status_callback),
        form.status_callback_method,
    )
    recording = await service.recordings.create(processor, wanted)
    return (await _resources(request, service, [recording]))[0]


async def _listing(request: Request, service: Service, of: ColumnElement[bool], status: Status | None) -> Listing:
    rows = select(Recording).where(of).order_by(Recording.created.desc()).limit(_MOST)
    if status:
        rows = rows.where(Recording.status == status)
    found = await service.store.run(lambda session: list(session.scalars(rows)))
    return Listing(recordings=await _resources(request, service, found))


async def _resources(request: Request, service: Service, recordings: list[Recording]) -> list[Resource]:
    sids = [recording.sid for recording in recordings]
    rows = select(RecordingFile).where(RecordingFile.recording_sid.in_(sids)).order_by(RecordingFile.id)
    rows = rows.options(defer(RecordingFile.outline))
    files: dict[str, list[RecordingFile]] = {sid: [] for sid in sids}
    for file in await service.store.run(lambda session: list(session.scalars(rows))):
        files[file.recording_sid].append(file)
    states = service.engine.recordings() or {}
    return [
        _resource(request, service, recording, files[recording.sid], states.get(recording.sid))
        for recording in recordings
    ]


def _for_host(recording: Resource) -> Resource:
    """What hosts are told: neither where callbacks go, nor what a store says."""
    error = "it cannot be stored just now" if recording.error else None
    return recording.model_copy(update={"status_callback": None, "status_callback_method": None, "error": error})


def _resource(
    request: Request, service: Service, row: Recording, files: list[RecordingFile], state: RecordingState | None
) -> Resource:
    url = f"{base_url(request)}/v1/Recordings/{row.sid}"
    lasted = _seconds(row, files) + (state.seconds if state else 0.0)
    return Resource(
        account_sid=service.settings.account_sid,
        sid=row.sid,
        media_processor_sid=row.processor_sid,
        room_sid=row.room_sid,
        status=row.status,  # type: ignore[arg-type] # It is one of them, as the layout is.
        date_created=stamp(row.created),
        date_updated=stamp(row.updated),
        date_ended=stamp(row.ended) if row.ended else None,
        format=row.format,
        layout=row.layout,  # type: ignore[arg-type]
        identity=row.identity or None,
        rotate=round(row.rotate) if row.rotate else None,
        duration=round(lasted, 3),
        size=sum(file.size for file in files) + (state.size if state else 0),
        files=[
            File(
                key=file.key,
                size=file.size,
                duration=round(file.seconds, 3),
                loudness=file.loudness,
                true_peak=file.true_peak,
                date_stored=stamp(file.stored),
                media=f"{url}/Media?File={number}",
                waveform=f"{url}/Waveform?File={number}",
            )
            for number, file in enumerate(files)
        ],
        error=row.error or (state.problem if state and state.problem else None),
        status_callback=row.status_callback,
        status_callback_method=row.status_callback_method,  # type: ignore[arg-type]
        url=url,
    )


def _seconds(row: Recording, files: list[RecordingFile]) -> float:
    """Of files that follow each other, the sum; of tracks, which are side by side, the longest."""
    seconds = [file.seconds for file in files]
    return max(seconds, default=0.0) if row.layout == "tracks" else sum(seconds)
