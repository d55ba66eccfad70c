"""`/v1/Workers`: the processes that mix, how much they have to do, and which of them get nothing new."""

from dataclasses import asdict
from typing import Annotated, Literal

import fastapi
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from audiomixer.service.http.errors import ApiError
from audiomixer.service.http.rest.common import (
    ERRORS,
    NOT_FOUND,
    Authenticated,
    Form,
    LowerCase,
    Text,
    TheService,
    base_url,
    not_found,
)
from audiomixer.service.jobs import WorkerState

router = APIRouter(tags=["Workers"], responses=ERRORS, dependencies=[Authenticated])


class WorkerLoad(BaseModel):
    """What a worker has to do, and how it gets on; what is counted is counted from its beginning."""

    rooms: int
    jobs: int
    streams: int
    listeners: int
    ticks: int
    late: int


class Resource(BaseModel):
    """A worker."""

    name: str
    node: str
    status: Literal["active", "draining", "lost"]
    media_port: int
    share: float = Field(description="of the time that it has for mixing, how much it needs")
    load: WorkerLoad | None = Field(description="nothing until it has told")
    url: str


class Listing(BaseModel):
    """The workers."""

    workers: list[Resource]


class Update(Form):
    """What shall become of a worker."""

    status: Annotated[Literal["active", "draining"], LowerCase] = Field(alias="Status")


@router.get("/Workers")
async def read_all(request: Request, service: TheService) -> Listing:
    """The processes that mix: this one alone, or those of the cluster."""
    return Listing(workers=[_resource(request, worker) for worker in service.engine.workers()])


@router.get("/Workers/{Name}", responses=NOT_FOUND)
async def read(request: Request, service: TheService, name: Annotated[Text, Path(alias="Name")]) -> Resource:
    """A worker."""
    found = next((worker for worker in service.engine.workers() if worker.name == name), None)
    if found is None:
        raise not_found(request)
    return _resource(request, found)


@router.post("/Workers/{Name}", responses=NOT_FOUND)
async def update(
    request: Request,
    service: TheService,
    name: Annotated[Text, Path(alias="Name")],
    form: Annotated[Update, fastapi.Form()],
) -> Resource:
    """Drains a worker of a cluster: it gets nothing new, and what it has goes on elsewhere; or takes it back."""
    if service.cluster is None:
        await read(request, service, name)
        raise ApiError(400, "Status: expected a cluster, this process is the only one")
    try:
        await service.cluster.drain(name, form.status == "draining")
    except LookupError:
        raise not_found(request) from None
    except TimeoutError:
        raise ApiError(503, f"{name} does not answer", headers={"Retry-After": "5"}) from None
    return await read(request, service, name)


def _resource(request: Request, worker: WorkerState) -> Resource:
    return Resource(
        name=worker.name,
        node=worker.node,
        status=worker.status,
        media_port=worker.media_port,
        share=round(worker.share, 4),
        load=WorkerLoad(**asdict(worker.load)) if worker.load else None,
        url=f"{base_url(request)}/v1/Workers/{worker.name}",
    )
