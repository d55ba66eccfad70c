"""What an operator does with a service that runs, over its API."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import httpx

_LOOK: Final = 1.0
"""Seconds until the next look whether workers are empty."""


async def drain(
    url: str, credentials: tuple[str, str], node: str, *, back: bool, wait: bool, say: Callable[[str], None]
) -> None:
    """Has workers get nothing new, or takes them back.

    Args:
        url: The service's.
        credentials: The account's SID and its secret.
        node: Their name, or the address of their machine.
        back: Whether they are taken back.
        wait: Whether to wait until they are empty.
        say: Told how it gets on, in lines.

    Raises:
        ValueError: There is no such worker, or the service does not answer.
    """
    status = "active" if back else "draining"
    async with httpx.AsyncClient(base_url=f"{url.rstrip('/')}/v1/", auth=credentials, timeout=20) as client:
        meant = {worker["name"] for worker in await _workers(client) if node in {worker["name"], worker["node"]}}
        if not meant:
            known = ", ".join(f"{worker['name']} on {worker['node']}" for worker in await _workers(client))
            raise ValueError(f"node: expected a worker's name or its machine's address, one of {known}; got {node!r}")
        for name in sorted(meant):
            await _ask(client, "POST", f"Workers/{name}", Status=status)
            say(f"{name} is {status}")
        while wait and not back:
            left = [worker["load"] for worker in await _workers(client) if worker["name"] in meant and worker["load"]]
            jobs, rooms = sum(load["jobs"] for load in left), sum(load["rooms"] for load in left)
            if not jobs and not rooms:
                say("nothing is left on it")
                return
            say(f"{jobs} MediaProcessors and {rooms} rooms are left")
            await asyncio.sleep(_LOOK)


async def _workers(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await _ask(client, "GET", "Workers"))["workers"]
    return found


async def _ask(client: httpx.AsyncClient, method: str, path: str, **form: str) -> Any:
    try:
        answer = await client.request(method, path, data=form or None)
    except httpx.TransportError as error:
        raise ValueError(f"url: expected a service there, --url says where: {client.base_url}: {error}") from error
    if answer.is_error:
        try:
            problem = answer.json()["message"]
        except (ValueError, KeyError, TypeError):
            problem = f"{answer.status_code}"
        raise ValueError(f"the service answered: {problem}")
    return answer.json()
