"""Who may have a hand on a Room: who has the API's credentials, and hosts, whose access tokens say so."""

from typing import Annotated

from fastapi import Depends, Path, Request
from fastapi.security import HTTPBasicCredentials

from audiomixer.auth.tokens import TokenError
from audiomixer.rooms.names import is_printable
from audiomixer.service.http.lookups import token_of, unauthorized
from audiomixer.service.http.rest.common import TheService, authenticate, check_form, optional_basic


async def _authenticate(
    request: Request,
    service: TheService,
    credentials: Annotated[HTTPBasicCredentials | None, Depends(optional_basic)],
    name: Annotated[str, Path(alias="SidOrName")],
) -> None:
    token = token_of(request)
    if token is None:
        authenticate(request, credentials)
        return
    try:
        access = service.host_of(token)
        found = await service.rooms.find(name) if is_printable(name) else None
        access.check_room(name, *([found.unique_name, found.sid] if found else []))
    except TokenError as error:
        raise unauthorized(error) from error
    check_form(request)


AuthenticatedHost = Depends(_authenticate)
