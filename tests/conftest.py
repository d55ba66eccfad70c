"""What many tests need: a service on a port of its own, in this process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import aioice.ice
import pytest

from audiomixer.auth.tokens import Keyring
from audiomixer.rooms.local import LocalRooms, OpenDoor
from audiomixer.service import Streams, media_app
from audiomixer.service.http.server import serving
from tests.browser import browser, npm, page, plain_page  # noqa: F401 - fixtures
from tests.service.api import GIVEN


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=1, help="how often to kill the service in mid-stream")
    parser.addoption("--restarts", type=int, default=2, help="how often to kill each server that is pushed to")
    parser.addoption("--garbage", type=int, default=600, help="how many bad requests to make")
    parser.addoption("--examples", type=int, default=10, help="how many requests schemathesis makes of each operation")
    parser.addoption("--joins", type=int, default=10, help="how often libdatachannel joins")
    parser.addoption("--engine", default="local", help="what mixes in the tests of the service: local or ray")
    parser.addoption("--churn", type=float, default=10.0, help="seconds of MediaProcessors that come and go")


@dataclass
class Service:
    url: str
    streams: Streams


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock aiortc clients in tests gather on loopback, which they would leave out."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@pytest.fixture(scope="session", autouse=True)
def _engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """All services of these tests have workers on Ray, if it is asked for."""
    if request.config.getoption("--engine") == "local":
        yield
        return
    from tests.cluster.machines import Machines

    machines = Machines(2)
    GIVEN.update(engine="ray", ray_address=machines.address, media_port=0)
    yield
    GIVEN.clear()
    machines.close()


@pytest.fixture(autouse=True)
def _retired(_engine: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Workers go on when their service has ended, but not beyond the test."""
    if GIVEN and request.node.get_closest_marker("local"):
        pytest.skip("it is about one process")
    yield
    if GIVEN:
        from tests.cluster.machines import retire_all

        retire_all(GIVEN["ray_address"])


@pytest.fixture
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    """Runs with a secret if the test is marked so: `@pytest.mark.parametrize("service", [secret], indirect=True)`."""
    secret = getattr(request, "param", None)
    streams = Streams(LocalRooms(door=OpenDoor(Keyring({"": secret}) if secret else None)))
    async with serving(media_app(streams), "127.0.0.1", 0) as url:
        yield Service(url, streams)
        await streams.close()
    await asyncio.sleep(0)
