"""The whole service, for the tests of this folder."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.service.api import GIVEN, Api, running
from tests.service.postgresql import PostgreSql
from tests.service.postgresql import running as started


@pytest.fixture(scope="session", autouse=True)
def _engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """All services of these tests have workers on Ray, if it is asked for."""
    if request.config.getoption("--engine") == "local":
        yield
        return
    from tests.cluster.machines import Machines

    machines = Machines(2)
    GIVEN.update(engine="ray", ray_address=machines.address)
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

        retire_all()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path / "data") as api:
        yield api


@pytest.fixture
def server() -> Iterator[PostgreSql]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, started(Path(folder)) as server:
        yield server


@pytest.fixture
def postgresql(server: PostgreSql) -> str:
    return server.url
